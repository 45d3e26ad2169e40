"""What the models are built from: poolings, ULTRON's CDConv and SCALA, and small layers; and the poolings by name."""

from collections.abc import Callable
from typing import Literal, Protocol

from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.parts.attention_pooling import SimPool
from ultron_cli.models.parts.pooling import Average, ClassToken, GeM, GGeM, Maximum


class PoolingSettings(Protocol):
    """The settings of a model that concern its pooling; see GemSettings."""

    @property
    def p(self) -> float: ...
    @property
    def p_learnable(self) -> bool: ...
    @property
    def groups(self) -> int | None: ...
    @property
    def gamma(self) -> float | None: ...
    @property
    def pooling_shift(self) -> Literal["undone", "left"] | None: ...
    @property
    def beta(self) -> bool: ...


def _gem(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    return GeM(settings.p, settings.p_learnable)


def _average(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    return Average()


def _maximum(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    return Maximum()


def _ggem(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    n_groups = backbone.n_heads if settings.groups is None else settings.groups
    if n_groups is None or backbone.n_channels % n_groups:
        reason = (
            "has no attention heads to tell it"
            if n_groups is None
            else f"{n_groups} do not divide its {backbone.n_channels} channels"
        )
        raise UltronError(f"ggem needs a number of groups and {backbone.name} {reason}; give one with `model.groups=N`")
    return GGeM(backbone.n_channels, n_groups, settings.p)


def _class_token(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    if not backbone.has_class_token:
        raise UltronError(
            f"pooling cls takes the class token of a ViT and {backbone.name} has none; choose another "
            "`model.pooling` or backbone"
        )
    return ClassToken()


def _simpool(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    gamma = settings.gamma
    if gamma is None:
        gamma = 2.0 if backbone.n_heads is None else 1.25
    return SimPool(backbone.n_channels, gamma=gamma, shift=settings.pooling_shift or "left", beta=settings.beta)


# Each makes a module (B, C, H, W) -> (B, C); that of `cls` takes the class token (B, C) instead of a map.
POOLINGS: dict[str, Callable[[PoolingSettings, Backbone], nn.Module]] = {
    "gem": _gem,
    "avg": _average,
    "max": _maximum,
    "ggem": _ggem,
    "cls": _class_token,
    "simpool": _simpool,
}
