"""Writes a network for other tools."""

import contextlib
import importlib
import io
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from ultron_kernels.ops import standard_operators

from ultron_cli import __version__
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.guarded import one_line
from ultron_cli.models.runtimes import ONNX_PACKAGES, require_packages
from ultron_cli.models.runtimes.window_padding import counted_windows
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.network_record import (
    KEY,
    NetworkRecord,
    PixelType,
    WhiteningInside,
)
from ultron_cli.retrieval.extraction.dataset import longest_side_px
from ultron_cli.retrieval.networks import ExportFormat
from ultron_cli.retrieval.networks.photos import PhotosToDescriptors
from ultron_cli.retrieval.whitening import Whitening
from ultron_cli.stops import undisturbed

EXAMPLE_SIDES_PX = (192, 256)  # of the photos with which a network is traced, or its least side where that is more
# Photos at a time: as many as nothing else in a network, for what is equal to another size is taken for it (and one for
# the only number).
N_EXAMPLES = 5
DYNAMIC_AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `ultron weights export` shall do."""

    format: ExportFormat
    scales: tuple[float, ...] = (1.0,)
    whitening: Whitening | None = None
    sides_px: tuple[int, int] | None = None  # (H, W) of all photos; None: any
    pixels: PixelType = "uint8"

    def __post_init__(self) -> None:
        if self.format == "state-dict" and (self.whitening or self.sides_px or self.scales != (1.0,)):
            raise UltronError(
                "a state dict holds weights alone: `scales`, `whiten` and `size` belong to the formats onnx and "
                "torch-export; leave them out"
            )


def export_network(loaded: LoadedModel, request: ExportRequest, out: Path) -> NetworkRecord:
    """Writes a model's file and returns what it says of itself. Raises UltronError if the network cannot be written so,
    with the reason."""
    loaded.model.cpu().eval()
    record = _record(loaded, request)
    if request.format == "onnx":
        require_packages("a file in ONNX", ONNX_PACKAGES, "onnx")
        writer = importlib.import_module("ultron_cli.retrieval.networks.onnx_graph")  # loads onnx and its exporter
        content = writer.onnx_content(loaded, request, record)
    elif request.format == "torch-export":
        content = _torch_export(loaded, request, record)
    else:
        content = _state_dict(loaded, record, is_safetensors=out.suffix.lower() == ".safetensors")
    with whole_file(out) as output:
        output.write(content)
    return record


def _record(loaded: LoadedModel, request: ExportRequest) -> NetworkRecord:
    """Raises UltronError if sides or the whitening do not fit the model."""
    model, whitening = loaded.model, request.whitening
    least_side_px = math.ceil(model.min_side_px / min(1.0, *request.scales))
    if request.sides_px and min(request.sides_px) < least_side_px:
        raise UltronError(
            f"`size` must have sides of {least_side_px} px at least for {model.label} at scales "
            f"{', '.join(f'{scale:g}' for scale in request.scales)}; found {min(request.sides_px)}"
        )
    if whitening is not None:
        whitening.require_for(model.descriptor_dim, model.label)
    preprocessing = model.preprocessing
    trained_on = loaded.source.get("trained_on")
    return NetworkRecord(
        ultron_version=__version__,
        label=model.label,
        model=model.made_of(),
        weights_sha256=loaded.weights_sha256,
        descriptor_dim=whitening.dim if whitening else model.descriptor_dim,
        pixels=request.pixels,
        mean=preprocessing.mean,
        sd=preprocessing.sd,
        interpolation=preprocessing.interpolation,
        scaling=preprocessing.scaling,
        box_edges=preprocessing.box_edges,
        scales=request.scales,
        whitening=WhiteningInside(method=whitening.method, dim=whitening.dim, sha256=whitening.sha256)
        if whitening
        else None,
        max_side_px=None if request.sides_px else longest_side_px(None, loaded),
        sides_px=request.sides_px,
        least_side_px=least_side_px,
        trained_on=trained_on if isinstance(trained_on, dict) else None,
    )


def example_photos(loaded: LoadedModel, request: ExportRequest, record: NetworkRecord) -> torch.Tensor:
    """Photos to trace with."""
    sides = request.sides_px or [max(side, record.least_side_px) for side in EXAMPLE_SIDES_PX]
    dtype = torch.uint8 if request.pixels == "uint8" else torch.float32
    return torch.zeros(N_EXAMPLES, 3, *sides, dtype=dtype)


def free_axes(request: ExportRequest) -> dict[int, object]:
    """The axes of photos that may have any size."""
    axes = [0] if request.sides_px else list(DYNAMIC_AXES)
    return {axis: torch.export.Dim.DYNAMIC for axis in axes}


def refusal(loaded: LoadedModel, request: ExportRequest, reason: str) -> UltronError:
    """What is said of a network that cannot be traced."""
    ways = () if request.sides_px else ("try one `size`",)
    return UltronError(
        f"{loaded.model.label} cannot be written as {request.format} for photos of "
        f"{'this' if request.sides_px else 'any'} size ({reason})",
        *ways,
    )


def _torch_export(loaded: LoadedModel, request: ExportRequest, record: NetworkRecord) -> bytes:
    module = PhotosToDescriptors(loaded.model, request.scales, request.whitening, request.pixels).eval()
    content = io.BytesIO()
    with torch.no_grad(), counted_windows(module), standard_operators():
        try:
            program = torch.export.export(
                module, (example_photos(loaded, request, record),), dynamic_shapes={"images": free_axes(request)}
            )
            torch.export.save(program, content, extra_files={KEY: record.to_json()})
        except (RuntimeError, ValueError) as error:  # torch's own kinds derive these
            raise refusal(loaded, request, one_line(error)) from error
    return content.getvalue()


def _state_dict(loaded: LoadedModel, record: NetworkRecord, *, is_safetensors: bool) -> bytes:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.model.state_dict().items()}
    if is_safetensors:
        from safetensors.torch import save

        return save({name: tensor.clone() for name, tensor in state.items()}, {KEY: record.to_json()})
    ordered = OrderedDict(state)
    # Where torch notes the versions of modules; load_state_dict passes over what is of none.
    with contextlib.suppress(AttributeError):
        ordered._metadata = {KEY: record.to_json()}  # type: ignore[attr-defined]
    content = io.BytesIO()
    with undisturbed():
        torch.save(ordered, content)
    return content.getvalue()
