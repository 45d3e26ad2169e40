"""GLAM: local and global attention, each over channels and places, fused with the map itself (Song et al., WACV 2022).

All take a map (B, C, H, W); H and W may differ from photo to photo.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.models.attentions.gates import hidden_channels

REDUCTION = 8
# Logit of the map itself: softmax(0, 0, 4) gives it 0.96, so that a pretrained network hardly changes at first.
ORIGINAL_FIRST = 4.0


class LocalAttention(nn.Module):
    """F_c = F + F * sigmoid(conv1d(means)); then F_c + F_c * s, where s is a score per place from dilated 3x3
    convolutions (reach 3, 5, 7)."""

    def __init__(self, n_channels: int, kernel_size: int) -> None:
        super().__init__()
        width = hidden_channels(n_channels, REDUCTION)
        self.across = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2)
        self.reduce = nn.Conv2d(n_channels, width, 1)
        self.reaches = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.score = nn.Conv2d(4 * width, 1, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        gate = self.across(maps.mean(dim=(-2, -1))[:, None])[:, 0].sigmoid()[:, :, None, None]
        by_channel = maps + maps * gate
        reduced = self.reduce(maps)
        score = self.score(torch.cat([reduced, *(reach(reduced) for reach in self.reaches)], dim=1))
        return by_channel + by_channel * score


class GlobalAttention(nn.Module):
    """F_c = F * (each place's channels mixed by a C x C attention); then F_c + F_c * (places mixed by an HW x HW
    attention, back to C channels).

    Attentions are softmax(K^T Q) over the keys, unscaled as in the paper. Channels: Q and K are sigmoid(conv1d(means)).
    """

    def __init__(self, n_channels: int, kernel_size: int) -> None:
        super().__init__()
        width = hidden_channels(n_channels, REDUCTION)
        self.channel_query = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2)
        self.channel_key = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2)
        self.place_query, self.place_key, self.place_value = (nn.Conv2d(n_channels, width, 1) for _ in range(3))
        self.widen = nn.Conv2d(width, n_channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        means = maps.mean(dim=(-2, -1))[:, None]
        query, key = self.channel_query(means).sigmoid(), self.channel_key(means).sigmoid()  # (B, 1, C)
        attention = (query.transpose(1, 2) * key).softmax(dim=2)  # (B, C, C): rows are queries
        by_channel = maps * (attention @ maps.flatten(2)).view_as(maps)
        # The fused operator never holds the HW x HW matrix: at 1024 px a map of stage 2 has 16384 places.
        parts = (
            part(maps).flatten(2).transpose(1, 2)[:, None]
            for part in (self.place_query, self.place_key, self.place_value)
        )
        mixed = F.scaled_dot_product_attention(*parts, scale=1.0)[:, 0].transpose(1, 2)
        return by_channel + by_channel * self.widen(mixed.unflatten(2, maps.shape[-2:]))


class Glam(nn.Module):
    """softmax(w) weighs the local branch, the global branch and the map itself. kernel_size: of the convolutions over
    channels."""

    def __init__(self, n_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.local_branch = LocalAttention(n_channels, kernel_size)
        self.global_branch = GlobalAttention(n_channels, kernel_size)
        self.fusion = nn.Parameter(torch.tensor([0.0, 0.0, ORIGINAL_FIRST]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        local_weight, global_weight, map_weight = self.fusion.softmax(dim=0)
        return local_weight * self.local_branch(maps) + global_weight * self.global_branch(maps) + map_weight * maps
