"""Arrays as descriptors: what a program has computed by itself, to be searched as files are."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorInfo, MemoryDescriptors

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

    Array = np.ndarray | torch.Tensor

UNIT = "divide each row by its length"


def is_array(value: object) -> "TypeIs[Array]":
    """Whether something is a NumPy array or a tensor of torch, which is not loaded for it."""
    return isinstance(value, np.ndarray) or ("torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor))


def to_numpy(values: "Array") -> np.ndarray:
    """A NumPy array of an array or a tensor on any device; half precisions that NumPy lacks become float32."""
    if isinstance(values, np.ndarray):
        return values
    tensor = values.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def descriptors_of(rows: "Array", names: Sequence[str] | None = None, label: str = "row") -> MemoryDescriptors:
    """(N, D) unit vectors as descriptors in memory, of photos of these names; without names `row 0`, `row 1` ...

    rows: a NumPy array or a tensor of torch, float16, float32 or float64 (searched in float32). label: what messages
    and default names call a row. Raises UltronError if they are no unit vectors.
    """
    array = to_numpy(rows)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if names is None:
        names = [f"{label} {i}" for i in range(len(array))]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise UltronError(f"names must be texts, found {wrong[0]!r}; give one text per row")
    name, n_times = Counter(names).most_common(1)[0] if len(names) else ("", 1)
    if n_times > 1:
        raise UltronError(f"names must differ, as photos are known by them; {name!r} stands there {n_times} times")
    info = DescriptorInfo(model="", weights_sha256="", dataset="", role="database", crop="none", scales=[])
    return MemoryDescriptors(array, names, info, f"the {label} array", advice=UNIT)
