"""The one model core: `create_model(name, **settings)` makes every model that the commands know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultron_cli.models.core import RetrievalModel


def _over_backbone(
    settings_class: type, make: Callable[..., RetrievalModel], values: dict[str, Any], pretrained: bool
) -> RetrievalModel:
    """make(settings, backbone), the settings from plain values and the backbone that they name."""
    from ultron_cli.configs import from_dict
    from ultron_cli.models.backbones import create_backbone

    settings = from_dict(settings_class, values, prefix="model.")
    return make(settings, create_backbone(settings.backbone, pretrained=pretrained))


def _gem(values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.gem import GemModel, GemSettings

    return _over_backbone(GemSettings, GemModel, values, pretrained)


def _ultron(name: str, values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.configs import from_dict
    from ultron_cli.errors import UltronError
    from ultron_cli.models.ultron import UltronModel
    from ultron_cli.models.ultron_settings import SIZES, UltronSettings

    if pretrained:
        raise UltronError(
            f"there are no published weights of {name}; train it (`ultron train --set model.name={name}`) or "
            "give a checkpoint with --weights"
        )
    if "backbone" in values:
        asked = (
            f"--model gem --backbone {values['backbone']} (in training --set model.name=gem --set "
            f"model.backbone={values['backbone']})"
        )
        raise UltronError(f"{name} has a network of its own; for a timm backbone name the model too: {asked}")
    return UltronModel(name, from_dict(UltronSettings, SIZES[name] | values, prefix="model."))


def _superglobal(values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.superglobal import SuperGlobalModel, SuperGlobalSettings

    return _over_backbone(SuperGlobalSettings, SuperGlobalModel, values, pretrained)


def _dolg(name: str, values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.dolg import SIZES, DolgModel, DolgSettings

    return _over_backbone(DolgSettings, partial(DolgModel, name), SIZES[name] | values, pretrained)


def _cfcd(name: str, values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.cfcd import SIZES, CfcdModel, CfcdSettings

    return _over_backbone(CfcdSettings, partial(CfcdModel, name), SIZES[name] | values, pretrained)


def _senet(name: str, values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.senet import SIZES, SenetModel, SenetSettings

    return _over_backbone(SenetSettings, partial(SenetModel, name), SIZES[name] | values, pretrained)


def _dalg(values: dict[str, Any], pretrained: bool) -> RetrievalModel:
    from ultron_cli.models.dalg import DalgModel, DalgSettings

    return _over_backbone(DalgSettings, DalgModel, values, pretrained)


MODELS: dict[str, Callable[[dict[str, Any], bool], RetrievalModel]] = {
    "cfcd-r101": partial(_cfcd, "cfcd-r101"),
    "cfcd-r50": partial(_cfcd, "cfcd-r50"),
    "dalg": _dalg,
    "dolg-r101": partial(_dolg, "dolg-r101"),
    "dolg-r50": partial(_dolg, "dolg-r50"),
    "gem": _gem,
    "senet-r101": partial(_senet, "senet-r101"),
    "senet-r50": partial(_senet, "senet-r50"),
    "superglobal": _superglobal,
    "ultron-b": partial(_ultron, "ultron-b"),
    "ultron-s": partial(_ultron, "ultron-s"),
    "ultron-t": partial(_ultron, "ultron-t"),
}


def list_models() -> list[str]:
    """Names that create_model takes."""
    return sorted(MODELS)


def create_model(name: str, *, pretrained: bool = False, **settings: Any) -> RetrievalModel:
    """Makes a model with fresh weights (or timm's with `pretrained`) in evaluation mode.

    settings: the fields of the model's settings, for example backbone="resnet50", p=3.0, descriptor_dim=512 for `gem`;
        those of the ultron models are in ultron_settings.py.
    Raises UltronError for an unknown model or setting, naming near ones.
    """
    from ultron_cli.errors import UltronError, nearest_names

    if name not in MODELS:
        raise UltronError(f"unknown model {name!r}{nearest_names(name, MODELS)} (known: {', '.join(list_models())})")
    return MODELS[name](settings, pretrained).eval()
