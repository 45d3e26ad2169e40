"""Attentions are put into the stages of a timm ResNet."""

from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import ATTENTIONS, AttentionSettings
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import require_resnet


def put_attention(backbone: Backbone, settings: AttentionSettings) -> None:
    """Puts fresh attentions into the stages of a ResNet, in place. Raises UltronError for another network, and for one
    that has attentions in its blocks already."""
    if settings.attention is None:
        return
    network = require_resnet(backbone.network, backbone.name, f"attention {settings.attention}")
    attention = ATTENTIONS[settings.attention]
    genotype = () if settings.genotype is None else (settings.genotype,)
    for number in settings.attention_stages or attention.stages:
        stage: nn.Sequential = getattr(network, f"layer{number}")
        n_channels = network.feature_info[number]["num_chs"]
        if (settings.attention_at or attention.at) == "stage":
            stage.add_module("attention", attention.make(n_channels, *genotype))
            continue
        for block in stage:
            if getattr(block, "se", None) is not None:
                raise UltronError(
                    f"{backbone.name} has attentions in its blocks already; choose another backbone, or "
                    "`model.attention_at=stage`"
                )
            # timm's place for one: after the last norm, before the shortcut is added
            block.se = attention.make(n_channels, *genotype)
