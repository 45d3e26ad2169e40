"""What computes descriptors: torch, whose numbers everything else is held against, or a runtime for inference alone.

core.py says what a runtime offers, exported.py writes a network as ONNX for those that read it. Importing this package
loads no torch: a runtime's file is imported when it is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    import torch

    from ultron_cli.models.runtimes.core import Network, OpenNetwork
    from ultron_cli.models.weights.checkpoints import LoadedModel

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # of the extra `onnx`
RuntimeName = Literal["torch", "compile", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Threads:
    """How a runtime shares the cores."""

    n_at_once: int = 1  # calls at the same time, each from a thread of its own
    per_call: int = 1  # threads that compute one call


@dataclass(frozen=True, kw_only=True)
class RuntimeEntry:
    """What a name of RUNTIMES stands for."""

    module: str  # in this package, with a function open_network, as core.OpenNetwork describes it
    packages: tuple[str, ...] = ()  # modules that it imports beside torch
    extra: str = ""  # of ultron, which brings them
    # A photo at a time, each on one thread and as many at once as there are threads; else one batch on all threads.
    is_per_photo: bool = False
    is_for_auto: bool = False  # whether `auto` tries it

    def threads(self, n_threads: int) -> Threads:
        """How so many threads are used for many photos."""
        return (
            Threads(n_at_once=n_threads, per_call=1) if self.is_per_photo else Threads(n_at_once=1, per_call=n_threads)
        )

    @property
    def is_installed(self) -> bool:
        """Whether its packages are there; nothing is imported."""
        return all(find_spec(package) is not None for package in self.packages)


def require_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Raises UltronError unless these packages, which an extra of ultron brings, are installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UltronError(f'{what} needs {" and ".join(missing)}; install it: pip install "ultron[{extra}]"')


def open_network(
    name: RuntimeName, loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads
) -> Network:
    """A model made ready by a runtime to describe photos at one scale. UltronError if the runtime is not installed, or
    cannot take this model, device or precision."""
    entry = RUNTIMES[name]
    require_packages(f"runtime {name}", entry.packages, entry.extra)
    per_scale = replace(loaded, model=loaded.model.per_scale)
    open_: OpenNetwork = importlib.import_module(f"ultron_cli.models.runtimes.{entry.module}").open_network
    network = open_(per_scale, device, precision, threads)
    loaded.model.to(device)  # with what comes after the scales
    return network


RUNTIMES: dict[RuntimeName, RuntimeEntry] = {
    "torch": RuntimeEntry(module="eager"),
    # It compiles for a minute or more, which few extractions win back.
    "compile": RuntimeEntry(module="compiled"),
    "onnxruntime": RuntimeEntry(
        module="onnx_runtime",
        packages=("onnxruntime", "onnxscript"),
        extra="onnxruntime",
        is_per_photo=True,
        is_for_auto=True,
    ),
    # Of transformers it gives other descriptors (cosine 0.9996 to 0.9999 with torch's), so that `auto` leaves it out.
    "openvino": RuntimeEntry(
        module="openvino_runtime",
        packages=("openvino", "onnxscript"),
        extra="openvino",
        is_per_photo=True,
    ),
}
