"""Attentions are put into the stages of a timm ResNet."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import ATTENTIONS, STAGES, AttentionSettings
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import require_resnet
from ultron_cli.models.parts.of_users import made_layer
from ultron_cli.user_code import is_import_path, load


class Placed(NamedTuple):
    """Where an attention goes, as `Attention` has it."""

    at: str
    stages: tuple[int, ...]


def put_attention(backbone: Backbone, settings: AttentionSettings) -> None:
    """Puts fresh attentions into the stages of a ResNet, in place. Raises UltronError for another network, and for one
    that has attentions in its blocks already."""
    if settings.attention is None:
        return
    network = require_resnet(backbone.network, backbone.name, f"attention {settings.attention}")
    attention, make = _attention(settings.attention, settings)
    for number in settings.attention_stages or attention.stages:
        stage: nn.Sequential = getattr(network, f"layer{number}")
        n_channels = network.feature_info[number]["num_chs"]
        if (settings.attention_at or attention.at) == "stage":
            stage.add_module("attention", make(n_channels))
            continue
        for block in stage:
            if getattr(block, "se", None) is not None:
                raise UltronError(
                    f"{backbone.name} has attentions in its blocks already; choose another backbone, or "
                    "`model.attention_at=stage`"
                )
            # timm's place for one: after the last norm, before the shortcut is added
            block.se = make(n_channels)


def _attention(name: str, settings: AttentionSettings) -> tuple[Placed, Callable[[int], nn.Module]]:
    """Where an attention of this name goes, and what makes one for maps of so many channels."""
    if is_import_path(name):
        part = load(name, "attention", ATTENTIONS)
        place = Placed(at=getattr(part.target, "at", "block"), stages=getattr(part.target, "stages", STAGES))
        values, prefix = settings.attention_settings or {}, "model.attention_settings."
        return place, lambda n_channels: made_layer(part, n_channels, values, prefix, gives="map")
    attention = ATTENTIONS[name]
    genotype = () if settings.genotype is None else (settings.genotype,)
    return Placed(attention.at, attention.stages), lambda n_channels: attention.make(n_channels, *genotype)
