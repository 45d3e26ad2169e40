"""The authors' published checkpoints as checkpoints of ultron.

Files are read with weights_only=True. Every key that could not be placed is listed; that is an error unless the key is
known to serve training only. Timm's state dicts are read here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ultron_cli import user_code
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models import build_model
from ultron_cli.models.core import BackboneModel, RetrievalModel
from ultron_cli.models.weights import IMPORTERS
from ultron_cli.models.weights.checkpoints import load_timm_weights, save_checkpoint
from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ImportTask:
    """One file to import."""

    path: Path
    source: str  # one of IMPORTERS
    out: Path  # for the checkpoint of ultron
    backbone: str | None = None  # of a timm state dict


@dataclass(frozen=True)
class LearnedWhitening:
    """y = projection (x - mean), that came with a network."""

    name: str  # data set and scales, for example retrieval-SfM-120k-ms
    mean: np.ndarray  # (D,) float64
    projection: np.ndarray  # (D', D) float64


@dataclass(frozen=True)
class Imported:
    """What came of a file."""

    model: RetrievalModel
    scales: str  # those it is published for, as --scales takes them
    whitenings: list[LearnedWhitening] = field(default_factory=list)  # for its descriptors


def import_weights(path: Path, source: str, out: Path, backbone: str | None = None) -> Imported:
    """Reads a published checkpoint, writes ours and returns it. source: one of IMPORTERS, or the import path of such a
    function (`my.py:read`), which a person has named; `timm` goes with `backbone`.

    Raises UltronError for a file that does not fit, naming every key that could not be placed.
    """
    if user_code.is_import_path(source):
        part = user_code.load(source, "importer", IMPORTERS, is_function=True)
        with user_code.blaming(part.target):
            imported = part.target(ImportTask(path, source, out, backbone))
        if not isinstance(imported, Imported):
            raise UltronError(f"{part.place()}: {part.name} must return Imported; found {type(imported).__name__}")
        return imported
    return IMPORTERS[source].function()(ImportTask(path, source, out, backbone))


def import_timm(task: ImportTask) -> Imported:
    """A plain timm state dict as a `gem` model. Raises UltronError without a backbone and for a file that does not
    fit."""
    if task.backbone is None:
        raise UltronError("`from` timm needs `backbone` NAME, the timm network that the file is of")
    model = build_model("gem", {"backbone": task.backbone})
    if not isinstance(model, BackboneModel):
        raise TypeError("gem stands on a backbone")
    state = bare_state_dict(
        read_weights_file(task.path), task.path, set(model.backbone.network.state_dict()).__contains__
    )
    load_timm_weights(model.backbone, state, task.path)
    save_checkpoint(task.out, model, {"imported": {"from": task.source, "file": task.path.name}})
    return Imported(model, "1")


def _fits(tensor: torch.Tensor, of_model: torch.Tensor) -> bool:
    """Equal shapes, or as many values: an exponent is (1,) in the authors' code, a number in ours."""
    return tensor.numel() == of_model.numel() and (tensor.ndim != of_model.ndim or tensor.shape == of_model.shape)


def place(state: State, rename: Callable[[str], str | None], model: RetrievalModel, path: Path) -> State:
    """The file's tensors under our names.

    rename: a key of the file as our name; None if it serves training only; itself if it is unknown. Raises UltronError
    listing keys without a place, places without a key and wrong shapes.
    """
    model_state = model.state_dict()
    placed: State = {}
    training_only: list[str] = []
    foreign: list[str] = []
    misshapen: list[str] = []
    for key, tensor in state.items():
        name = rename(key)
        if name is None:
            training_only.append(key)
        elif name not in model_state:
            foreign.append(key)
        elif not _fits(tensor, model_state[name]):
            misshapen.append(f"{key} {tuple(tensor.shape)} for {tuple(model_state[name].shape)}")
        else:
            placed[name] = tensor.reshape(model_state[name].shape)
    missing = sorted(name for name in model_state.keys() - placed.keys() if not name.endswith("num_batches_tracked"))
    problems = [
        f"{len(names)} {kind}: {', '.join(names)}"
        for kind, names in (
            ("keys without a place", foreign),
            ("places without a key", missing),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise UltronError(f"{path} does not fit {model.name}: {'; '.join(problems)}; check `from`")
    if training_only:
        log.info("%s: left out, of use in training only: %s", path.name, ", ".join(training_only))
    return placed
