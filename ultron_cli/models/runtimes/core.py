"""What every runtime offers, and what those for CPUs alone refuse alike.

A new runtime is one file with a function open_network and one entry in runtimes/__init__.py. Legend: B batch, D
descriptor dims.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.machine import bfloat16_units, cpu_flags
from ultron_cli.models.parts.cdconv import CDConv, PlainDepthwise
from ultron_cli.models.parts.scala import ScalaAttention
from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.weights.checkpoints import LoadedModel

# (B, 3, H, W) float32, normalised -> (B, D) float32 unit descriptors, as RetrievalModel's forward gives them, of any H
# and W. A runtime that takes a photo at a time has B = 1, and may be called from several threads at once.
Network = Callable[[torch.Tensor], torch.Tensor]
OWN_OPERATORS = (ScalaAttention, CDConv, PlainDepthwise)
# By module of ultron_cli.models: why its networks stay with torch.
WITHOUT_EXPORT = {
    "superglobal": "pads small maps in another way than large ones, and ONNX has one way",
    "dalg": "crashes OpenVINO 2026.4 when that compiles it",
}


class OpenNetwork(Protocol):
    """The function open_network of a runtime's file: makes a model ready. It raises UltronError for a model, device or
    precision that it does not take."""

    def __call__(
        self, loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads, /
    ) -> Network: ...


def has_own_operators(model: nn.Module) -> bool:
    """Whether a network holds operators that are ULTRON's own, which ONNX does not know. Their reference could be
    written as ONNX, but is a hundred times slower than the compiled ones that torch calls."""
    return any(isinstance(module, OWN_OPERATORS) for module in model.modules())


def require_exportable(runtime: str, loaded: LoadedModel, device: torch.device) -> None:
    """Raises UltronError if a network cannot go to a runtime that reads ONNX and computes on the CPU."""
    if device.type != "cpu":
        raise UltronError(f"runtime {runtime} computes on the CPU, found device {device}", "use `runtime=torch` there")
    module = type(loaded.model).__module__.rpartition(".")[2]
    if module in WITHOUT_EXPORT:
        raise UltronError(
            f"runtime {runtime} does not take {loaded.model.label}: it {WITHOUT_EXPORT[module]}", "use `runtime=torch`"
        )
    if has_own_operators(loaded.model):
        raise UltronError(
            f"{loaded.model.label} is built of ULTRON's own operators, which runtime {runtime} does not have",
            "use `runtime=torch`",
        )


def require_precision(runtime: str, precision: Precision, known: Iterable[Precision]) -> None:
    """Raises UltronError if a runtime does not compute in a precision, or the processor has no units for it.

    Without them bfloat16 would be slower than float32, and less exact.
    """
    if precision not in known:
        raise UltronError(
            f"runtime {runtime} computes in {' or '.join(known)}, found {precision}", "use `precision=float32`"
        )
    if precision == "bfloat16" and not bfloat16_units(cpu_flags()):
        raise UltronError(
            f"runtime {runtime} computes in bfloat16 on processors with AMX or AVX512-BF16, and this one has neither",
            "use `precision=float32`",
        )
