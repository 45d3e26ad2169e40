"""ResNets for photos of 32 px (He et al., CVPR 2016, section 4.2), made of timm's blocks: cifar_resnet20, 32, 44, 56,
110, and wider ones.

A 3x3 stem without pooling, three stages of (depth - 2) / 6 basic blocks at strides 1, 2, 4 and 16, 32, 64 channels;
`cifar_resnet20_w64` begins with 64 channels. layer4, which timm's ResNets have, is empty. Shortcuts that change the
shape are 1x1 convolutions, as in AutoLA's code.
"""

import re

from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from ultron_cli.errors import UltronError

WIDTH = 16  # channels of the first stage
MEAN, SD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training photos of CIFAR-10, as in AutoLA's code
NAMES = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110")
_NAME = re.compile(r"cifar_resnet(\d{1,4})(?:_w(\d{1,4}))?")


def is_cifar_resnet(name: str) -> bool:
    """Whether the name is of this family."""
    return name.startswith("cifar_resnet")


def make_cifar_resnet(name: str, n_classes: int = 0) -> ResNet:
    """A fresh network. n_classes: of its classifier; 0 leaves that out. Raises UltronError for a name outside the
    family."""
    match = _NAME.fullmatch(name)
    depth, width = (int(match[1]), int(match[2] or WIDTH)) if match else (0, 0)
    if depth < 8 or depth % 6 != 2 or not 4 <= width <= 1024 or width % 4:
        raise UltronError(
            f"unknown backbone {name!r}: a CIFAR ResNet is cifar_resnetN with N = 6n + 2 ({', '.join(NAMES)}), "
            "and _wC for C channels, C = 4n"
        )
    n_blocks = (depth - 2) // 6
    channels = (width, 2 * width, 4 * width, 4 * width)
    network = ResNet(
        BasicBlock, (n_blocks, n_blocks, n_blocks, 0), num_classes=n_classes, channels=channels, zero_init_last=False
    )
    network.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.bn1, network.maxpool = nn.BatchNorm2d(width), nn.Identity()
    network.layer1[0] = BasicBlock(width, width)  # timm's is for a stem of 64 channels
    for module in network.layer1[0].modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.feature_info[0]["num_chs"] = width
    for info, stride in zip(network.feature_info, (1, 1, 2, 4, 4), strict=True):
        info["reduction"] = stride
    network.pretrained_cfg = {
        "mean": MEAN,
        "std": SD,
        "interpolation": "bicubic",
        "classifier": "fc",
        "first_conv": "conv1",
    }
    return network
