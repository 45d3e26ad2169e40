"""timm's networks as ultron uses them: their types, and ResNets and Swins cut into stages for the systems that need
more than the last map.

timm makes its networks' parts by name, so a type checker knows none of them. The classes of this file are never made; a
network that has the parts is cast to them.
"""

from typing import Required, TypedDict, cast

import torch
from torch import nn

from ultron_cli.errors import UltronError


class TimmConfig(TypedDict, total=False):
    """What ultron reads of a network's record in timm."""

    mean: Required[tuple[float, ...]]
    std: Required[tuple[float, ...]]
    interpolation: str
    classifier: str | tuple[str, ...] | None  # names of the layers that end the network


class StageInfo(TypedDict):
    """timm's record of one stage."""

    num_chs: int  # channels
    reduction: int  # stride
    module: str  # its last layer, by name


class TimmNetwork(nn.Module):
    """What every network of timm has."""

    pretrained_cfg: TimmConfig
    num_features: int  # channels of the last map
    feature_info: list[StageInfo]

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the last map (B, C, h, w) or (B, h, w, C), or tokens (B, prefix + N, C)."""
        raise NotImplementedError


class ResNetNetwork(TimmNetwork):
    """A ResNet: a stem and four stages."""

    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential


class SwinNetwork(TimmNetwork):
    """A Swin: an embedding, four stages and a norm. Its maps are (B, h, w, C)."""

    patch_embed: nn.Module
    layers: nn.Sequential
    norm: nn.Module


class ViTAttention(nn.Module):
    """The attention layer of a ViT's block."""

    attn_drop: nn.Module  # is given the weights (B, heads, N, N), unless the fused operator runs
    fused_attn: bool


RESNET_PARTS = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
SWIN_PARTS = ("patch_embed", "layers", "norm")


def require_resnet(network: nn.Module, name: str, system: str) -> ResNetNetwork:
    """The same network. Raises UltronError if it is not a ResNet with the stages layer1 to layer4.

    name: of the backbone; system: what needs the ResNet; both stand in the message.
    """
    if not all(hasattr(network, part) for part in RESNET_PARTS):
        raise UltronError(
            f"{system} takes a ResNet of timm (resnet50, resnet101, ...) as its backbone, found {name}; name one"
        )
    return cast(ResNetNetwork, network)


def require_swin(network: nn.Module, name: str, system: str) -> SwinNetwork:
    """The same network. Raises UltronError unless it is a Swin (v1 or v2) with four stages.

    name, system: as of require_resnet.
    """
    swin = cast(SwinNetwork, network)
    if (
        getattr(network, "output_fmt", "NCHW") != "NHWC"
        or not all(hasattr(network, part) for part in SWIN_PARTS)
        or len(swin.layers) != 4
    ):
        raise UltronError(
            f"{system} takes a Swin of timm as its backbone (swin_small_patch4_window7_224, "
            f"swinv2_tiny_window8_256, ...), found {name}; name one"
        )
    return swin


def n_channels_of_stages(network: TimmNetwork) -> tuple[int, int]:
    """Channels of the maps of the last two stages (1024 and 2048 for resnet50)."""
    return network.feature_info[-2]["num_chs"], network.feature_info[-1]["num_chs"]


def up_to_stage_3(network: ResNetNetwork, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) -> (B, C3, H/16, W/16): everything but the last stage."""
    stem = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    return network.layer3(network.layer2(network.layer1(stem)))


def named_stages(network: nn.Module) -> dict[str, nn.Module]:
    """layer1 to layer4 of a ResNet, else the modules that timm names as the ends of stages; may be empty."""
    modules = dict(network.named_modules())
    resnet_stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if name in modules]
    info = getattr(network, "feature_info", None) or []
    ends = [entry["module"] for entry in info if isinstance(entry, dict) and entry.get("module") in modules]
    return {name: modules[name] for name in resnet_stages or ends}
