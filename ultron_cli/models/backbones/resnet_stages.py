"""A timm ResNet cut before its last stage, for systems that need the maps of its last two stages."""

import torch
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.backbones import Backbone


def require_resnet(backbone: Backbone, system: str) -> nn.Module:
    """The timm network inside. Raises UltronError if it is not a ResNet with the stages layer1 to layer4."""
    network = backbone.network
    if not all(
        hasattr(network, part) for part in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    ):
        raise UltronError(
            f"{system} takes a ResNet of timm (resnet50, resnet101, ...) as its backbone, found {backbone.name}"
        )
    return network


def n_channels_of_stages(backbone: Backbone) -> tuple[int, int]:
    """Channels of the maps of the last two stages (1024 and 2048 for resnet50)."""
    info = backbone.network.feature_info
    return info[-2]["num_chs"], info[-1]["num_chs"]


def up_to_stage_3(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) -> (B, C3, H/16, W/16): everything but the last stage."""
    stem = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    return network.layer3(network.layer2(network.layer1(stem)))
