"""The losses by name.

base.py has what all losses share (Loss) and the base of those with class weights (MarginLoss), partial_fc.py class
weights that are sampled or spread over processes, margins.py the classification losses, cfcd.py CFCD's second stage.
batch.py has the base of those without class weights (BatchLoss) and their memory, pairs.py losses of pairs and
triplets, smooth_ap.py Smooth-AP. A loss's settings stand directly above it.

Importing this package loads no torch: a loss's file is imported when its settings are checked.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ultron_cli import user_code
from ultron_cli.configs import from_dict, one_of
from ultron_cli.errors import UltronError, nearest_names

if TYPE_CHECKING:
    from ultron_cli.training.losses.base import Loss, LossSettings


@dataclass(frozen=True)
class LossEntry:
    """What a name of LOSSES stands for."""

    module: str  # below ultron_cli.training.losses
    class_name: str  # of a Loss in that module
    settings_name: str  # of the frozen dataclass of its settings, in that module

    def loss_class(self) -> type[Loss]:
        """The class of the loss, imported."""
        return getattr(self._imported(), self.class_name)

    def settings_class(self) -> type[LossSettings]:
        """The class of its settings, imported."""
        return getattr(self._imported(), self.settings_name)

    def _imported(self) -> object:
        return importlib.import_module(f"{__name__}.{self.module}")


@dataclass(frozen=True)
class UserLoss:
    """A loss that a user names by import path: a class made as those of LossEntry are, whose `settings_type`, where it
    has one, is the frozen dataclass of its settings."""

    loss: type[Loss]
    settings: type[LossSettings]
    part: user_code.UserPart

    def loss_class(self) -> type[Loss]:
        """The class of the loss."""
        return self.loss

    def settings_class(self) -> type[LossSettings]:
        """The class of its settings."""
        return self.settings


def user_loss(part: user_code.UserPart) -> UserLoss:
    """A class by import path as a loss. Raises UltronError, naming the place, if it is none."""
    base = importlib.import_module(f"{__name__}.base")
    if not issubclass(part.target, base.Loss):
        raise UltronError(
            f"{part.place()}: {part.name} must be a MarginLoss of training/losses/base.py or a BatchLoss of batch.py; "
            "derive one of them"
        )
    usual = part.target.settings_base
    settings = getattr(part.target, "settings_type", usual)
    if not issubclass(settings, usual):
        raise UltronError(f"{part.place()}: settings_type of {part.name} must derive {usual.__name__}; derive it")
    part.require_made_of("n_classes", "dim", "settings")
    if getattr(getattr(part.target, "of_batch", None), "__qualname__", "") == "BatchLoss.of_batch":
        raise UltronError(f"{part.place()}: {part.name} needs the method of_batch, see BatchLoss; write it")
    return UserLoss(part.target, settings, part)


LOSSES: dict[str, LossEntry] = {
    "softmax": LossEntry("margins", "Softmax", "ClassSettings"),
    "linear": LossEntry("margins", "Linear", "ClassSettings"),
    "arcface": LossEntry("margins", "ArcFace", "ArcFaceSettings"),
    "cosface": LossEntry("margins", "CosFace", "CosFaceSettings"),
    "subcentre-arcface": LossEntry("margins", "SubcentreArcFace", "SubcentreSettings"),
    "madacos": LossEntry("margins", "MadaCos", "MadaCosSettings"),
    "contrastive": LossEntry("pairs", "Contrastive", "ContrastiveSettings"),
    "triplet": LossEntry("pairs", "Triplet", "TripletSettings"),
    "multi-similarity": LossEntry("pairs", "MultiSimilarity", "MultiSimilaritySettings"),
    "ntxent": LossEntry("pairs", "NtXent", "NtXentSettings"),
    "fastap": LossEntry("pairs", "FastAp", "FastApSettings"),
    "smooth-ap": LossEntry("smooth_ap", "SmoothAp", "SmoothApSettings"),
    "cfcd-stage2": LossEntry("cfcd", "CfcdStage2", "CfcdStage2Settings"),
}


def loss_entry(name: str) -> LossEntry | UserLoss:
    """The loss of a name of LOSSES, or of an import path (`my.py:Loss`). Raises UltronError for an unknown name, naming
    near ones, and for a class that is no loss."""
    if user_code.is_import_path(name):
        return user_loss(user_code.load(name, "loss", LOSSES))
    if name not in LOSSES:
        raise UltronError(f"unknown loss {name!r}{nearest_names(name, LOSSES)} (known: {', '.join(LOSSES)})")
    return LOSSES[name]


def loss_settings(name: str, settings: dict[str, object]) -> LossSettings:
    """The checked settings of a loss, defaults filled in. Raises UltronError for an unknown name or setting, naming
    near ones."""
    entry = loss_entry(name)
    if isinstance(entry, UserLoss):
        checked = entry.part.settings(entry.settings, settings, prefix="loss.")
    else:
        checked = from_dict(entry.settings_class(), settings, prefix="loss.")
    if not user_code.is_import_path(checked.batches):
        one_of("loss.batches", checked.batches, checked.kinds_of_batches)
        if checked.batches_settings:
            raise UltronError(
                f"loss.batches_settings are of batches by import path, found loss.batches={checked.batches}; leave "
                "them out"
            )
    return checked


def make_loss(name: str, settings: LossSettings, *, n_classes: int, dim: int) -> Loss:
    """A loss by name from settings that are checked already."""
    return loss_entry(name).loss_class()(n_classes, dim, settings)


def create_loss(name: str, *, n_classes: int, dim: int, **settings: object) -> Loss:
    """A loss by name with its settings: create_loss("madacos", n_classes=, dim=, rho=)(descriptors, labels) -> scalar.

    Code that the name is an import path of is run. Raises UltronError for an unknown name or setting.
    """
    user_code.permit_in({"name": name})
    return make_loss(name, loss_settings(name, settings), n_classes=n_classes, dim=dim)
