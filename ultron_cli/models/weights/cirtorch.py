"""Networks of cirtorch (github.com/filipradenovic/cnnimageretrieval-pytorch) as `gem` models, with their learned
whitenings.

Such a file is a dictionary: state_dict (features.0... by place in the network, pool.p, whiten.*) and meta
(architecture, pooling, mean, std and, for networks trained without a whitening layer, Lw: per data set and for one
scale (ss) or several (ms) the mean m and projection P).
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.models import build_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import save_checkpoint
from ultron_cli.models.weights.importers import Imported, ImportTask, LearnedWhitening, State, place
from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file
from ultron_cli.schema.values import shown

RESNET_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
DENSENET_PARTS = {
    "0": "conv0",
    "1": "norm0",
    "4": "denseblock1",
    "5": "transition1",
    "6": "denseblock2",
    "7": "transition2",
    "8": "denseblock3",
    "9": "transition3",
    "10": "denseblock4",
    "11": "norm5",
}
ARCHITECTURES = {
    **{f"resnet{depth}": ("", RESNET_PARTS) for depth in (18, 34, 50, 101, 152)},
    **{f"densenet{depth}": ("features.", DENSENET_PARTS) for depth in (121, 161, 169, 201)},
}
# As cirtorch's README tests its networks: those whose descriptors a learned whitening (Lw) follows, and those with a
# projection layer.
SCALES, SCALES_OF_PROJECTION = (1.0, 2**-0.5, 0.5), (1.0, 2**0.5, 2**-0.5)
POOLINGS: dict[str, Mapping[str, object]] = {
    "gem": {"pooling": "gem", "p_learnable": True},
    "gemmp": {"pooling": "ggem"},
    "mac": {"pooling": "max"},
    "spoc": {"pooling": "avg"},
}


def import_cirtorch(task: ImportTask) -> Imported:
    """A network of cirtorch and its whitenings. The scales are those that cirtorch tests its networks at.

    Raises UltronError for a file that does not fit.
    """
    content = read_weights_file(task.path)
    state, meta = bare_state_dict(content, task.path, _is_known), cirtorch_meta(content, task.path)
    model = cirtorch_model(meta, state, task.path)
    whitenings = cirtorch_whitenings(meta, model.descriptor_dim, task.path)
    rename = partial(cirtorch_name, meta["architecture"])
    model.load_state_dict(place(state, rename, model, task.path), strict=False)
    model.recommended_scales = SCALES_OF_PROJECTION if "whiten.weight" in state else SCALES
    scales = ",".join(f"{scale:.9g}" for scale in model.recommended_scales)
    imported = {"from": "cirtorch", "file": task.path.name, "input": "RGB", "scales": scales}
    save_checkpoint(task.out, model, {"imported": imported})
    return Imported(model, scales, whitenings)


def _is_known(name: str) -> bool:
    return name.startswith(("features.", "pool.", "whiten."))


def cirtorch_meta(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The meta of a file. Raises UltronError for another kind of file and for layers that ultron does not have."""
    meta = content.get("meta")
    if (
        not isinstance(meta, dict)
        or not isinstance(content.get("state_dict"), dict)
        or not isinstance(meta.get("architecture"), str)
        or not isinstance(meta.get("pooling"), str)
    ):
        raise UltronError(
            f"{path} is no network of cirtorch: it must hold state_dict, and meta with architecture and "
            "pooling; check `from`"
        )
    foreign_parts: list[str] = []
    if meta["architecture"] not in ARCHITECTURES:
        foreign_parts.append(f"architecture {meta['architecture']}")
    if meta["pooling"] not in POOLINGS:
        foreign_parts.append(f"pooling {meta['pooling']}")
    foreign_parts += [name.replace("_", " ") for name in ("local_whitening", "regional") if meta.get(name)]
    if foreign_parts:
        known = f"{', '.join(ARCHITECTURES)} with {', '.join(POOLINGS)}"
        raise UltronError(
            f"{path} has {' and '.join(foreign_parts)}, which ultron does not import (it takes {known}); choose "
            "another network"
        )
    return meta


def cirtorch_model(meta: dict[str, Any], state: State, path: Path) -> RetrievalModel:
    """A fresh `gem` model that the file's tensors fit. Raises UltronError if the file's normalisation is not that of
    the backbone."""
    settings: dict[str, Any] = {"backbone": meta["architecture"], **POOLINGS[meta["pooling"]]}
    if "whiten.weight" in state:
        settings["descriptor_dim"] = len(state["whiten.weight"])
    elif meta["pooling"] == "gem":
        settings["scale_gem"] = True
    if meta["pooling"] == "gemmp":
        settings["groups"] = state["pool.p"].numel() if "pool.p" in state else None  # an exponent per channel
    model = build_model("gem", settings)
    for name, value in (("mean", model.preprocessing.mean), ("std", model.preprocessing.sd)):
        of_file = _numbers(meta.get(name, list(value)))
        if of_file.shape != (3,) or not np.allclose(of_file, value, atol=1e-6):
            raise UltronError(
                f"{path} wants photos of {name} {shown(of_file.tolist())}, {meta['architecture']} is given those of "
                f"{list(value)}; choose another network"
            )
    return model


def cirtorch_name(architecture: str, name: str) -> str | None:
    """A key of the file as our name; itself if it is unknown."""
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if match:
        prefix, parts = ARCHITECTURES[architecture]
        return f"backbone.network.{prefix}{parts[match[1]]}.{match[2]}" if match[1] in parts else name
    if name == "pool.p":
        return "pooling.p"
    return name.replace("whiten.", "whitening.", 1) if name.startswith("whiten.") else name


def _numbers(value: object) -> np.ndarray:
    """float64 of an array, a tensor or a list of numbers; NaN, of no shape, for anything else."""
    try:
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype.kind in "fiu" else np.array(np.nan)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths; a tensor without numbers
        return np.array(np.nan)


def cirtorch_whitenings(meta: dict[str, Any], dim: int, path: Path) -> list[LearnedWhitening]:
    """The whitenings in meta["Lw"], in order of name. Raises UltronError if one does not fit descriptors of `dim`
    dimensions."""
    stored = meta.get("Lw", {})
    if not isinstance(stored, dict) or not all(isinstance(value, dict) for value in stored.values()):
        raise UltronError(f"{path}: Lw must hold whitenings by data set and scales; get it again")
    entries = {
        f"{dataset}-{scales}": value for dataset, by_scales in stored.items() for scales, value in by_scales.items()
    }
    whitenings: list[LearnedWhitening] = []
    for name, value in sorted(entries.items()):
        arrays: list[np.ndarray] = [
            _numbers(value.get(key)) if isinstance(value, dict) else np.empty(0) for key in ("m", "P")
        ]
        if not all(np.isfinite(array).all() for array in arrays):
            raise UltronError(f"{path}: whitening {name} must hold finite numbers m and P; get it again")
        mean, projection = arrays[0].reshape(-1), arrays[1]
        if mean.size != dim or projection.ndim != 2 or projection.shape[1] != dim or not len(projection):
            raise UltronError(
                f"{path}: whitening {name} has m {arrays[0].shape} and P {arrays[1].shape}, the descriptors "
                f"have {dim} dimensions; get it again"
            )
        whitenings.append(LearnedWhitening(re.sub(r"[^\w.-]", "_", name), mean, projection))
    return whitenings
