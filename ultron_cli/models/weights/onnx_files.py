"""Opens ONNX files: of ultron, which say everything of themselves, and of other tools, of which a person states what
they do not say.

A file is looked into by a child process (guarded.py), which also runs its network once; what it may read beside itself
are weights in its own folder.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ultron_cli.configs import MAX_SIDE_PX, MIN_SIDE_PX, from_dict
from ultron_cli.console import log
from ultron_cli.datasets.photos import INTERPOLATIONS
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import ReaderDied, ReaderFailed, ReaderStopped, in_child, one_line
from ultron_cli.machine import check_memory
from ultron_cli.models.backbones.preprocessing import IMAGENET, Preprocessing
from ultron_cli.models.onnx_model import AS_IT_IS, NUMBERS, OnnxModel, OnnxSettings, OnnxSignature
from ultron_cli.models.runtimes import ONNX_PACKAGES, require_packages
from ultron_cli.models.weights.network_record import KEY, VERSION, NetworkRecord
from ultron_cli.schema.texts import fit_file, parse_json
from ultron_cli.schema.values import Misfit, fit

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from google.protobuf.message import Message

SUFFIX = ".onnx"
NAME = "onnx"  # of the model, in descriptor files
CPU_S = 120  # for one photo by a network that is not made fast first
SPARE_BYTES = 1 << 30  # beside what a file holds, for onnxruntime and one photo
TRIED_SIDE_PX = 224  # of the photo that is tried, where a file takes any
MOST_NAME = 100  # characters of a label or of an input's name
AGAIN = "export it again"


def is_onnx_file(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() == SUFFIX


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A network of an ONNX file, and the SHA-256 of all that it is made of."""

    model: OnnxModel
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Value:
    """An input or an output."""

    name: str
    kind: str  # as onnxruntime says it: tensor(float)
    axes: tuple[int | None, ...]  # None: of any length

    def __str__(self) -> str:
        axes = ", ".join("any" if length is None else str(length) for length in self.axes)
        return f"{self.name[:MOST_NAME]} {self.kind[:MOST_NAME]} ({axes})"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a child saw in a file."""

    inputs: tuple[_Value, ...]
    outputs: tuple[_Value, ...]
    metadata: str | None  # under KEY


def open_onnx(path: Path, settings: Mapping[str, object]) -> OnnxFile:
    """Opens an ONNX file. settings: of OnnxSettings. Raises UltronError if it is none, takes something else than one
    photo or gives something else than descriptors, reads what is not beside it, or does not fit the memory budget."""
    require_regular_file(path, "weights")
    require_packages(f"{path}, a network in ONNX,", ONNX_PACKAGES, "onnx")
    stated = from_dict(OnnxSettings, settings, prefix="model.")
    n_bytes = path.stat().st_size
    check_memory(2 * n_bytes, f"{path}: the network")
    paths = [path, *_weights_beside(path, n_bytes)]
    n_bytes = sum(part.stat().st_size for part in paths)
    check_memory(2 * n_bytes, f"{path}: the network")
    look = fit(_answer_of_child(path, n_bytes, _look_into, str(path)), _Look)
    record = _record(path, look.metadata)
    model = _model(path, n_bytes, look, record, stated)
    digest = sha256()
    for part in paths:
        with open(part, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return OnnxFile(model=model, sha256=digest.hexdigest())


def _answer_of_child(path: Path, n_bytes: int, function: Callable[..., Any], *arguments: object) -> Any:
    """What a child says. Raises UltronError if the file is none that onnxruntime takes."""
    try:
        return in_child(function, *arguments, cpu_s=CPU_S, memory_bytes=3 * n_bytes + SPARE_BYTES)
    except ReaderStopped as stop:
        raise UltronError(f"{path}: looking into it {one_line(stop)}; try a smaller network") from stop
    except ReaderDied as death:
        raise UltronError(f"{path} is not sound: onnxruntime {one_line(death)} reading it; {AGAIN}") from death
    except ReaderFailed as failure:
        raise UltronError(
            f"{path} is truncated or not an ONNX file that onnxruntime takes ({one_line(failure, 200)}); get it again"
        ) from failure


def _weights_beside(path: Path, n_bytes: int) -> list[Path]:
    """The files of a network's weights beside its own. Raises UltronError for one that is not in the same folder."""
    names = _answer_of_child(path, n_bytes, _names_beside, str(path))
    folder = os.path.realpath(path.parent)
    beside = []
    for name in sorted(names):
        place = os.path.realpath(os.path.join(folder, name))
        is_inside = not os.path.isabs(name) and place.startswith(os.path.join(folder, ""))
        if not is_inside:
            raise UltronError(
                f"{path} was refused: it reads weights from {name[:MOST_NAME]!r}, outside of its own folder; {AGAIN}"
            )
        require_regular_file(Path(place), f"{path} has its weights in")
        beside.append(Path(place))
    return beside


def _names_beside(path: str) -> list[str]:
    """In a child: the files in which a network's tensors are, as it names them."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    names = set()
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"} or {""}
    return sorted(names)


def _tensors(message: "Message") -> "Iterator[onnx.TensorProto]":
    """All tensors in a message of ONNX, however deep."""
    import onnx

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from _tensors(part)


def _session(path: str) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what is fatal
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _look_into(path: str) -> dict[str, object]:
    """In a child: a _Look as plain data."""
    session = _session(path)

    def values(parts: "Sequence[onnxruntime.NodeArg]") -> list[dict[str, object]]:
        return [
            {
                "name": part.name,
                "kind": part.type,
                "axes": [length if isinstance(length, int) and length > 0 else None for length in part.shape],
            }
            for part in parts
        ]

    metadata = session.get_modelmeta().custom_metadata_map.get(KEY)
    return {"inputs": values(session.get_inputs()), "outputs": values(session.get_outputs()), "metadata": metadata}


def _tried(path: str, name: str, kind: str, shape: list[int], output: str) -> list[int]:
    """In a child: the shape of an output for grey photos. Raises ValueError if a number in it is not finite."""
    photos = np.full(shape, 128 if kind == "tensor(uint8)" else 0.25, NUMBERS[kind])
    (result,) = _session(path).run([output], {name: photos})
    values = np.asarray(result)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError("its output is not made of finite numbers")
    return list(values.shape)


def _record(path: Path, metadata: str | None) -> NetworkRecord | None:
    """What a file of ultron says of itself. Raises UltronError if that is unsound, or of a newer ultron."""
    if metadata is None:
        return None
    try:
        content = parse_json(metadata)
    except Misfit as misfit:
        raise UltronError(f"{path}: its metadata {KEY} is not JSON ({misfit}); {AGAIN}") from None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise UltronError(
            f"{path} has format version {version}, this ultron reads up to {VERSION}; install a newer ultron"
        )
    record = fit_file(content, NetworkRecord, path, "what the network says of itself", AGAIN)
    fault = record.fault(tuple(INTERPOLATIONS))
    if fault:
        raise UltronError(f"{path}: what it says of itself is not sound ({fault}); {AGAIN}")
    return record


def _model(path: Path, n_bytes: int, look: _Look, record: NetworkRecord | None, stated: OnnxSettings) -> OnnxModel:
    photo = _photo_input(path, look)
    settings, preprocessing = _preparation(path, photo, record, stated)
    output = _output(path, look, stated.output)
    n_photos, _, height, width = photo.axes
    if settings.size and any(
        fixed not in (None, side) for fixed, side in zip((height, width), settings.size, strict=True)
    ):
        raise UltronError(f"{path} takes photos of {height} x {width} px; found model.size={list(settings.size)}")
    for side in (height, width):
        if side is not None and not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
            raise UltronError(
                f"{path} must take photos with sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} px, found {side}; {AGAIN}"
            )
    least_px = max(TRIED_SIDE_PX, record.least_side_px if record else 0)
    stated_sides = settings.size or (None, None)
    tried_sides = [fixed or side or least_px for fixed, side in zip((height, width), stated_sides, strict=True)]
    shape = [n_photos or 1, 3, *tried_sides]
    tried_bytes = 16 * int(np.prod(shape, dtype=np.int64))
    check_memory(tried_bytes, f"{path}: one batch of photos")
    try:
        result = _answer_of_child(
            path, n_bytes + tried_bytes, _tried, str(path), photo.name, photo.kind, shape, output.name
        )
    except UltronError as error:
        raise UltronError(
            f"{path} does not describe a photo of {tried_sides[0]} x {tried_sides[1]} px ({error.message[:300]}); "
            "state another size with `set` model.size=[H,W], or name another file"
        ) from error
    if len(result) != 2 or result[0] != shape[0] or result[1] < 1:
        raise UltronError(
            f"{path}: {output.name[:MOST_NAME]} must be ({shape[0]}, D) for {shape[0]} photos, found {tuple(result)}; "
            "name a network of descriptors"
        )
    if record is not None and result[1] != record.descriptor_dim:
        raise UltronError(
            f"{path} says that it gives {record.descriptor_dim}-d descriptors, found {result[1]}-d; {AGAIN}"
        )
    signature = OnnxSignature(
        input=photo.name,
        numbers=photo.kind,
        n_photos=n_photos,
        sides_px=(height, width),
        output=output.name,
        dim=int(result[1]),
    )
    model = OnnxModel(settings, path, signature, preprocessing, record)
    if model.sides_px:
        height, width = model.sides_px
        log.info("%s takes photos of %d x %d px (height x width): all are resized to that", path.name, height, width)
    return model.eval()


def _photo_input(path: Path, look: _Look) -> _Value:
    """The input. Raises UltronError unless there is one, of photos."""
    photos = [value for value in look.inputs if len(value.axes) == 4 and _has_channels_second(value.axes)]
    if len(look.inputs) != 1 or not photos or photos[0].kind not in NUMBERS:
        values = "; ".join(map(str, look.inputs[:4])) or "none"
        raise UltronError(
            f"{path} must take one input of photos, {' or '.join(NUMBERS)} (batch, 3, height, width); found {values}"
        )
    return photos[0]


def _has_channels_second(axes: tuple[int | None, ...]) -> bool:
    """Whether (B, 3, H, W) fits; of (any, any, any, 3) the last are the channels."""
    return axes[1] == 3 or (axes[1] is None and axes[3] != 3)


def _output(path: Path, look: _Look, name: str | None) -> _Value:
    """The output of descriptors. Raises UltronError unless there is one."""
    if name is not None:
        outputs = [value for value in look.outputs if value.name == name]
    else:
        outputs = [value for value in look.outputs if len(value.axes) == 2] or list(look.outputs)
    if len(outputs) != 1:
        values = "; ".join(map(str, look.outputs[:4])) or "none"
        raise UltronError(
            f"{path} must give one output of descriptors (batch, D); found {values}; name one with `set` "
            "model.output=NAME"
        )
    return outputs[0]


def _preparation(
    path: Path, photo: _Value, record: NetworkRecord | None, stated: OnnxSettings
) -> tuple[OnnxSettings, Preprocessing]:
    """The settings with what was not stated, and how photos are prepared. Raises UltronError for what is stated and
    does not apply."""
    is_inside = record is not None or photo.kind == "tensor(uint8)"
    if record is not None and (stated != replace(OnnxSettings(), output=stated.output)):
        raise UltronError(
            f"{path} says itself how photos are prepared; leave out model.mean, model.sd, model.size and "
            "model.interpolation"
        )
    if record is not None:
        wants_bytes = record.pixels == "uint8"
        if wants_bytes != (photo.kind == "tensor(uint8)") or record.sides_px not in (None, photo.axes[2:]):
            raise UltronError(f"{path} takes {photo}, which is not what it says of itself; {AGAIN}")
        return stated, replace(AS_IT_IS, interpolation=record.interpolation, box_edges=record.box_edges)
    if is_inside and (stated.mean or stated.sd):
        raise UltronError(f"{path} takes pixels of 0 to 255 as they are; leave out model.mean and model.sd")
    interpolation = stated.interpolation or IMAGENET.interpolation
    if is_inside:
        return replace(stated, interpolation=interpolation), replace(AS_IT_IS, interpolation=interpolation)
    settings = replace(
        stated, mean=stated.mean or IMAGENET.mean, sd=stated.sd or IMAGENET.sd, interpolation=interpolation
    )
    preprocessing = Preprocessing(mean=settings.mean or (), sd=settings.sd or (), interpolation=interpolation)
    fault = preprocessing.fault()
    if fault:
        raise UltronError(f"model.{fault}; state another")
    if not (stated.mean and stated.sd):
        log.info(
            "%s does not say how photos are normalised: by mean %s and sd %s of 0..1 (ImageNet's, unless model.mean "
            "and model.sd say others)",
            path.name,
            list(preprocessing.mean),
            list(preprocessing.sd),
        )
    return settings, preprocessing
