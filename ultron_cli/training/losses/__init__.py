"""The losses by name.

margins.py has the classification losses, cfcd.py the local part of CFCD's second stage, partial_fc.py class weights
that are sampled or spread over processes, settings.py the settings of each.
"""

from typing import Any

from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.training.losses.margins import (
    ArcFace,
    CfcdStage2,
    CosFace,
    Linear,
    MadaCos,
    MarginLoss,
    Softmax,
    SubcentreArcFace,
)
from ultron_cli.training.losses.settings import (
    ArcFaceSettings,
    CfcdStage2Settings,
    CosFaceSettings,
    LossSettings,
    MadaCosSettings,
    SubcentreSettings,
)

LOSSES: dict[str, tuple[type[MarginLoss], type[LossSettings]]] = {
    "softmax": (Softmax, LossSettings),
    "linear": (Linear, LossSettings),
    "arcface": (ArcFace, ArcFaceSettings),
    "cosface": (CosFace, CosFaceSettings),
    "subcentre-arcface": (SubcentreArcFace, SubcentreSettings),
    "madacos": (MadaCos, MadaCosSettings),
    "cfcd-stage2": (CfcdStage2, CfcdStage2Settings),
}


def loss_settings(name: str, settings: dict[str, Any]) -> LossSettings:
    """The checked settings of a loss, defaults filled in. Raises UltronError for an unknown name or setting, naming
    near ones."""
    if name not in LOSSES:
        raise UltronError(f"unknown loss {name!r}{nearest_names(name, LOSSES)} (known: {', '.join(LOSSES)})")
    return from_dict(LOSSES[name][1], settings, prefix="loss.")


def create_loss(name: str, *, n_classes: int, dim: int, **settings: Any) -> MarginLoss:
    """A loss by name with its settings. Raises UltronError for an unknown name or setting."""
    checked = loss_settings(name, settings)
    return LOSSES[name][0](n_classes, dim, checked)
