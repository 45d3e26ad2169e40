"""What the models are built from: poolings, ULTRON's CDConv and SCALA, and small layers; and the poolings by name."""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, cast

from torch import nn

from ultron_cli import user_code
from ultron_cli.configs import from_signature, one_of
from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.parts.attention_pooling import SimPool
from ultron_cli.models.parts.of_users import made_layer
from ultron_cli.models.parts.pooling import Average, ClassToken, GeM, GGeM, Maximum
from ultron_cli.models.parts.salad import Salad


class PoolingSettings(Protocol):
    """The settings of a model that concern its pooling; see GemSettings."""

    @property
    def pooling(self) -> str: ...
    @property
    def pooling_settings(self) -> Mapping[str, object] | None: ...
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


def check_pooling(settings: PoolingSettings) -> None:
    """Raises UltronError for an unknown pooling, and for settings of one that has none under `pooling_settings`."""
    name = settings.pooling
    if user_code.is_import_path(name):
        return
    one_of("model.pooling", name, list(POOLINGS))
    if settings.pooling_settings and not isinstance(POOLINGS[name], type):
        takers = ", ".join(other for other, pooling in POOLINGS.items() if isinstance(pooling, type))
        raise UltronError(
            f"model.pooling_settings are of poolings that list them ({takers}) and of your own, found pooling {name}; "
            "leave them out"
        )


def make_pooling(settings: PoolingSettings, backbone: Backbone) -> nn.Module:
    """The pooling that settings name: one of POOLINGS, or a user's by import path. Raises UltronError for settings that
    do not fit it, and for a user's that is no pooling."""
    name, values = settings.pooling, settings.pooling_settings or {}
    prefix = "model.pooling_settings."
    if not user_code.is_import_path(name):
        pooling = POOLINGS[name]
        if not isinstance(pooling, type):
            return pooling(settings, backbone)
        arguments = from_signature(pooling, values, prefix=prefix, n_passed=1)
        return cast(Callable[..., nn.Module], pooling)(backbone.n_channels, **arguments)
    part = user_code.load(name, "pooling", POOLINGS)
    return made_layer(part, backbone.n_channels, values, prefix, gives="vector")


# A class is made of the number of channels C and keyword settings, `model.pooling_settings.NAME`; it is a module
# (B, C, H, W) -> (B, C), or -> (B, D) where it has D as its attribute pooled_dim. A function makes such a module of the
# model's settings and its backbone; that of `cls` takes the class token (B, C) instead of a map.
POOLINGS: dict[str, type[nn.Module] | Callable[[PoolingSettings, Backbone], nn.Module]] = {
    "gem": _gem,
    "avg": _average,
    "max": _maximum,
    "ggem": _ggem,
    "cls": _class_token,
    "simpool": _simpool,
    "salad": Salad,
}
