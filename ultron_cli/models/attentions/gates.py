"""Attentions that weigh a map's channels, its places, or both: SE, ECA, CBAM and SCA.

All take a map (B, C, H, W) and give the same shape. Gates start almost open: the last layer's weights are 0 and its
bias is OPEN, and sigmoid(OPEN) is 0.95 everywhere. So a pretrained network's output hardly changes when gates are put
in; at sigmoid(0) each gate would halve it.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.models.parts.layers import eca_kernel_size

OPEN = 3.0  # 0.95 of the map passes, and the gate's slope is still 0.045: at 4 it would be 0.018, and slow to leave


def hidden_channels(n_channels: int, reduction: int) -> int:
    """Width of the layer between the two of a gate; at least 1."""
    return max(1, n_channels // reduction)


class ChannelGate(nn.Module):
    """sigmoid(sum over statistics s of W2 ReLU(W1 s)) per channel: SE with the mean alone (Hu et al., CVPR 2018), the
    channel gate of CBAM with the maximum too.

    with_maximum: the channels' maxima go through the same two layers. reduction: C over the hidden width.
    """

    def __init__(self, n_channels: int, *, reduction: int = 16, with_maximum: bool = False) -> None:
        super().__init__()
        self.with_maximum = with_maximum
        self.squeeze = nn.Linear(n_channels, hidden_channels(n_channels, reduction))
        self.excite = nn.Linear(hidden_channels(n_channels, reduction), n_channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.constant_(self.excite.bias, OPEN / (2 if with_maximum else 1))  # counted once per statistic

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        scores = self.excite(F.relu(self.squeeze(maps.mean(dim=(-2, -1)))))
        if self.with_maximum:
            scores = scores + self.excite(F.relu(self.squeeze(maps.amax(dim=(-2, -1)))))
        return maps * scores.sigmoid()[:, :, None, None]


class EcaGate(nn.Module):
    """sigmoid(conv1d over the channels' means): ECA (Wang et al., CVPR 2020).

    The convolution has a bias, which the paper's lacks, so that the gate can start open; 0 gives the paper's.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        size = eca_kernel_size(n_channels)
        self.across = nn.Conv1d(1, 1, size, padding=size // 2)
        nn.init.zeros_(self.across.weight)
        if self.across.bias is not None:  # as torch's types allow
            nn.init.constant_(self.across.bias, OPEN)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps * self.across(maps.mean(dim=(-2, -1))[:, None])[:, 0].sigmoid()[:, :, None, None]


def maximum_and_mean(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, 2, H, W): per place over the channels."""
    return torch.cat([maps.amax(dim=1, keepdim=True), maps.mean(dim=1, keepdim=True)], dim=1)


class Cbam(nn.Module):
    """A channel gate from means and maxima, then sigmoid(BN(conv 7x7 of [max; mean] over channels)) per place (Woo et
    al., ECCV 2018)."""

    def __init__(self, n_channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.channels = ChannelGate(n_channels, reduction=reduction, with_maximum=True)
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)  # momentum as in the authors' code
        nn.init.zeros_(self.norm.weight)
        nn.init.constant_(self.norm.bias, OPEN)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.channels(maps)
        return maps * self.norm(self.places(maximum_and_mean(maps))).sigmoid()


class Sca(nn.Module):
    """Channel-wise, then spatial softmax attention: SCA-CNN's C-S order (Chen et al., CVPR 2017, equations 5 to 7)
    without the sentence.

    Channels: softmax over C of w . tanh(u v_c + b), v the means. Places: softmax over H*W of w . tanh(U x_p + b).
    Hidden width C / 4, which is the paper's 512 on ResNet50's last map. Each softmax is multiplied by its length, so
    that weights have mean 1: without, values would shrink by C*H*W. With w = 0 at first, all weights are 1 and the map
    is unchanged.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_hidden = hidden_channels(n_channels, 4)
        self.channel_hidden = nn.Linear(1, n_hidden)
        self.channel_score = nn.Linear(n_hidden, 1, bias=False)  # a bias would cancel in the softmax
        self.place_hidden = nn.Conv2d(n_channels, n_hidden, 1)
        self.place_score = nn.Conv2d(n_hidden, 1, 1, bias=False)
        nn.init.zeros_(self.channel_score.weight)
        nn.init.zeros_(self.place_score.weight)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        batch, n_channels, height, width = maps.shape
        scores = self.channel_score(torch.tanh(self.channel_hidden(maps.mean(dim=(-2, -1))[:, :, None])))[:, :, 0]
        maps = maps * (n_channels * scores.float().softmax(dim=1))[:, :, None, None].to(maps.dtype)
        scores = self.place_score(torch.tanh(self.place_hidden(maps))).flatten(1)
        weights = (height * width * scores.float().softmax(dim=1)).to(maps.dtype)
        return maps * weights.view(batch, 1, height, width)
