"""The losses by name.

base.py has what all losses share, partial_fc.py class weights that are sampled or spread over processes, margins.py the
classification losses, cfcd.py CFCD's second stage. A loss's settings stand directly above it.
"""

from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.training.losses.base import LossResult, LossSettings, MarginLoss, TupleSettings
from ultron_cli.training.losses.cfcd import CfcdStage2, CfcdStage2Settings
from ultron_cli.training.losses.margins import (
    ArcFace,
    ArcFaceSettings,
    CosFace,
    CosFaceSettings,
    Linear,
    MadaCos,
    MadaCosSettings,
    Softmax,
    SubcentreArcFace,
    SubcentreSettings,
)

__all__ = [
    "DEFAULT_LOSS",
    "LOSSES",
    "LossResult",
    "LossSettings",
    "MarginLoss",
    "TupleSettings",
    "create_loss",
    "loss_settings",
    "make_loss",
]

DEFAULT_LOSS = "arcface"  # of a configuration that names none

LOSSES: dict[str, tuple[type[MarginLoss], type[LossSettings]]] = {
    "softmax": (Softmax, LossSettings),
    "linear": (Linear, LossSettings),
    "arcface": (ArcFace, ArcFaceSettings),
    "cosface": (CosFace, CosFaceSettings),
    "subcentre-arcface": (SubcentreArcFace, SubcentreSettings),
    "madacos": (MadaCos, MadaCosSettings),
    "cfcd-stage2": (CfcdStage2, CfcdStage2Settings),
}


def loss_settings(name: str, settings: dict[str, object]) -> LossSettings:
    """The checked settings of a loss, defaults filled in. Raises UltronError for an unknown name or setting, naming
    near ones."""
    if name not in LOSSES:
        raise UltronError(f"unknown loss {name!r}{nearest_names(name, LOSSES)} (known: {', '.join(LOSSES)})")
    return from_dict(LOSSES[name][1], settings, prefix="loss.")


def make_loss(name: str, settings: LossSettings, *, n_classes: int, dim: int) -> MarginLoss:
    """A loss by name from settings that are checked already."""
    return LOSSES[name][0](n_classes, dim, settings)


def create_loss(name: str, *, n_classes: int, dim: int, **settings: object) -> MarginLoss:
    """A loss by name with its settings: create_loss("madacos", n_classes=, dim=, rho=)(descriptors, labels) -> scalar.

    Raises UltronError for an unknown name or setting.
    """
    return make_loss(name, loss_settings(name, settings), n_classes=n_classes, dim=dim)
