"""Opens ONNX files: of ultron, which say everything of themselves, and of other tools, of which a person states what
they do not say.

A file is looked into by a child process (guarded.py), which also runs its network once; what it may read beside itself
are weights in its own folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ultron_cli.configs import MAX_SIDE_PX, MIN_SIDE_PX, from_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.memory import check_memory
from ultron_cli.models.backbones.preprocessing import IMAGENET, Preprocessing
from ultron_cli.models.onnx_model import AS_IT_IS, NUMBERS, OnnxModel, OnnxSettings, OnnxSignature
from ultron_cli.models.runtimes import ONNX_PACKAGES, require_packages
from ultron_cli.models.weights.network_record import NetworkRecord
from ultron_cli.models.weights.onnx_reading import (
    AGAIN,
    MOST_NAME,
    Look,
    Value,
    answer_of_child,
    look_into,
    stored_record,
    tried_shape,
    weights_beside,
)
from ultron_cli.schema.values import fit

SUFFIX = ".onnx"
NAME = "onnx"  # of the model, in descriptor files
TRIED_SIDE_PX = 224  # of the photo that is tried, where a file takes any


def is_onnx_file(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() == SUFFIX


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A network of an ONNX file, and the SHA-256 of all that it is made of."""

    model: OnnxModel
    sha256: str


def open_onnx(path: Path, settings: Mapping[str, object]) -> OnnxFile:
    """Opens an ONNX file. settings: of OnnxSettings. Raises UltronError if it is none, takes something else than one
    photo or gives something else than descriptors, reads what is not beside it, or does not fit the memory budget."""
    require_regular_file(path, "weights")
    require_packages(f"{path}, a network in ONNX,", ONNX_PACKAGES, "onnx")
    stated = from_dict(OnnxSettings, settings, prefix="model.")
    n_bytes = path.stat().st_size
    check_memory(2 * n_bytes, f"{path}: the network")
    paths = [path, *weights_beside(path, n_bytes)]
    n_bytes = sum(part.stat().st_size for part in paths)
    check_memory(2 * n_bytes, f"{path}: the network")
    look = fit(answer_of_child(path, n_bytes, look_into, str(path)), Look)
    record = stored_record(path, look.metadata)
    model = _model(path, n_bytes, look, record, stated)
    digest = sha256()
    for part in paths:
        with open(part, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return OnnxFile(model=model, sha256=digest.hexdigest())


def _model(path: Path, n_bytes: int, look: Look, record: NetworkRecord | None, stated: OnnxSettings) -> OnnxModel:
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
        result = answer_of_child(
            path, n_bytes + tried_bytes, tried_shape, str(path), photo.name, photo.kind, shape, output.name
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


def _photo_input(path: Path, look: Look) -> Value:
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


def _output(path: Path, look: Look, name: str | None) -> Value:
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
    path: Path, photo: Value, record: NetworkRecord | None, stated: OnnxSettings
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
