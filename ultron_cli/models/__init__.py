"""The one model core: `create_model(name, **settings)` makes every model that the commands know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultron_cli.models.core import RetrievalModel


def _gem(values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.configs import from_dict
    from ultron_cli.models.backbones import create_backbone
    from ultron_cli.models.gem import GemModel, GemSettings

    settings = from_dict(GemSettings, values, prefix="model.")
    return GemModel(settings, create_backbone(settings.backbone, pretrained=pretrained))


MODELS: dict[str, Callable[[dict[str, Any], bool], RetrievalModel]] = {"gem": _gem}


def list_models() -> list[str]:
    """Names that create_model takes."""
    return sorted(MODELS)


def create_model(name: str, *, pretrained: bool = False, **settings: Any) -> RetrievalModel:
    """Makes a model with fresh weights (or timm's with `pretrained`) in evaluation mode.

    settings: the fields of the model's settings, for example backbone="resnet50", p=3.0, descriptor_dim=512 for `gem`.
    Raises UltronError for an unknown model or setting, naming near ones.
    """
    from ultron_cli.errors import UltronError, nearest_names

    if name not in MODELS:
        raise UltronError(f"unknown model {name!r}{nearest_names(name, MODELS)} (known: {', '.join(list_models())})")
    return MODELS[name](settings, pretrained).eval()
