"""Backbones that timm does not have, made of its blocks: ResNets for photos of 32 px and a Swin for laptops."""

import re

from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.names import CIFAR_NAMES, SMALL_SWIN
from ultron_cli.models.backbones.preprocessing import CIFAR, IMAGENET, Preprocessing

CIFAR_WIDTH = 16  # channels of the first stage
_CIFAR_NAME = re.compile(r"cifar_resnet(\d{1,4})(?:_w(\d{1,4}))?")


def _timm_config(preprocessing: Preprocessing, classifier: str, first_convolution: str) -> dict[str, object]:
    """The record that timm keeps in a network's pretrained_cfg."""
    return {
        "mean": preprocessing.mean,
        "std": preprocessing.sd,
        "interpolation": preprocessing.interpolation,
        "classifier": classifier,
        "first_conv": first_convolution,
    }


def _set_timm_config(network: nn.Module, config: dict[str, object]) -> None:
    network.pretrained_cfg = config  # pyright: ignore[reportArgumentType]  # torch's stub allows tensors and modules only


def make_cifar_resnet(name: str, n_classes: int = 0) -> ResNet:
    """A fresh ResNet for photos of 32 px (He et al., CVPR 2016, section 4.2): cifar_resnet20, 32, 44, 56, 110, wider.

    A 3x3 stem without pooling is followed by three stages of (depth - 2) / 6 basic blocks at strides 1, 2, 4 with 16,
    32 and 64 channels; `cifar_resnet20_w64` begins with 64 channels. layer4, which timm's ResNets have, is empty.
    Shortcuts that change the shape are 1x1 convolutions, as in AutoLA's code.

    n_classes: of its classifier; 0 leaves that out. Raises UltronError for a name outside the family.
    """
    match = _CIFAR_NAME.fullmatch(name)
    depth, width = (int(match[1]), int(match[2] or CIFAR_WIDTH)) if match else (0, 0)
    if depth < 8 or depth % 6 != 2 or not 4 <= width <= 1024 or width % 4:
        raise UltronError(
            f"unknown backbone {name!r}: a CIFAR ResNet is cifar_resnetN with N = 6n + 2 ({', '.join(CIFAR_NAMES)}), "
            "and _wC for C channels, C = 4n"
        )
    n_blocks = (depth - 2) // 6
    channels = (width, 2 * width, 4 * width, 4 * width)
    network = ResNet(
        BasicBlock,  # pyright: ignore[reportArgumentType]  # timm's hint says an instance, and it takes the class
        (n_blocks, n_blocks, n_blocks, 0),
        num_classes=n_classes,
        channels=channels,
        zero_init_last=False,
    )
    network.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.bn1 = nn.BatchNorm2d(width)
    network.maxpool = nn.Identity()
    first_block = BasicBlock(width, width)  # timm's is for a stem of 64 channels
    for module in first_block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.get_submodule("layer1").add_module("0", first_block)
    network.feature_info[0]["num_chs"] = width
    for info, stride in zip(network.feature_info, (1, 1, 2, 4, 4), strict=True):
        info["reduction"] = stride
    _set_timm_config(network, _timm_config(CIFAR, classifier="fc", first_convolution="conv1"))
    return network


def make_small_swin(name: str = SMALL_SWIN) -> SwinTransformer:
    """A fresh Swin (Liu et al., ICCV 2021) small enough to learn on a laptop, as timm's test_resnet and test_vit are.

    It takes photos of any size and has 1.4 M parameters: patches of 4 px, 32 to 256 channels in five blocks, windows of
    4 x 4 places.
    """
    network = SwinTransformer(
        img_size=224,
        strict_img_size=False,
        window_size=4,
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        num_classes=0,
        drop_path_rate=0.0,
    )
    _set_timm_config(network, _timm_config(IMAGENET, classifier="head.fc", first_convolution="patch_embed.proj"))
    return network
