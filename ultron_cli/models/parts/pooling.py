"""Poolings: a feature map (B, C, H, W) becomes one vector (B, C). Names and settings stand in parts/__init__.py."""

import torch
from torch import nn


class GeM(nn.Module):
    """Generalised mean over positions, (mean x^p)^(1/p); Radenovic et al., TPAMI 2019, eq. 3.

    p: exponent; 1 is the average, large values approach the maximum; 3 as published. learnable: p is a parameter.
    forward: (B, C, H, W) any float type -> (B, C) float32 (float64 stays). Values below `eps` count as `eps`.
    """

    p: torch.Tensor

    def __init__(self, p: float = 3.0, learnable: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        exponent = torch.tensor(float(p))
        if learnable:
            self.p = nn.Parameter(exponent)
        else:
            self.register_buffer("p", exponent, persistent=False)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        # Half precision overflows at x^3 for x > 40; autocast must not bring it back.
        with torch.autocast(feature_map.device.type, enabled=False):
            values = feature_map if feature_map.dtype == torch.float64 else feature_map.float()
            return values.clamp(min=self.eps).pow(self.p).mean(dim=(-2, -1)).pow(1.0 / self.p)


class Average(nn.Module):
    """Mean over positions (SPoC). (B, C, H, W) -> (B, C) float32 (float64 stays)."""

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        values = feature_map if feature_map.dtype == torch.float64 else feature_map.float()
        return values.mean(dim=(-2, -1))


class Maximum(nn.Module):
    """Maximum over positions (MAC). (B, C, H, W) -> (B, C)."""

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return feature_map.float().amax(dim=(-2, -1))


class GGeM(nn.Module):
    """Group generalised mean (Ko et al. 2022): channels in groups, as many as attention heads, each with a learnable
    exponent.

    n_channels: a multiple of n_groups. p: every exponent at first. forward: (B, C, H, W) -> (B, C) float32; values
    below `eps` count as `eps`.
    """

    def __init__(self, n_channels: int, n_groups: int, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if n_groups < 1 or n_channels % n_groups:
            raise ValueError(f"{n_channels} channels do not divide into {n_groups} groups")
        self.eps, self.group_size = eps, n_channels // n_groups
        self.p = nn.Parameter(torch.full((n_groups,), float(p)))

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        with torch.autocast(feature_map.device.type, enabled=False):
            values = feature_map if feature_map.dtype == torch.float64 else feature_map.float()
            exponent = self.p.repeat_interleave(self.group_size)
            return values.clamp(min=self.eps).pow(exponent[:, None, None]).mean(dim=(-2, -1)).pow(1.0 / exponent)


class ClassToken(nn.Module):
    """The class token as it is. (B, C) -> (B, C) float32 (float64 stays)."""

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return token if token.dtype == torch.float64 else token.float()
