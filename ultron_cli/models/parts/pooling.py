"""Poolings: a feature map (B, C, H, W) becomes one vector (B, C). Names and settings stand in parts/__init__.py."""

import math

import torch
from torch import nn

# Powers between e^-64 and e^64 (1e-28 and 1e28) leave room in float32 for their sums and their gradients.
LARGEST_LOG = 64.0


def power_mean(
    values: torch.Tensor,
    exponent: torch.Tensor | float,
    dims: tuple[int, ...] = (-2, -1),
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """(mean x^p)^(1/p) over `dims`, which it removes: finite in value and gradient for every p from 0.1 up, and the
    maximum for p towards infinity.

    Where the powers would leave the range of float32, values are divided by the largest before the power and the mean
    is multiplied by it again, which changes no number but by rounding; elsewhere they are divided by 1.
    values: none below 0. exponent: p, a number, or shaped to multiply `values` with `dims` of length 1. weights: (B, 1,
    N), summing to 1, of values (B, N, C) with dims (1,) and p a number; the largest is then that of the weighted
    powers.
    """
    with torch.no_grad():
        largest = values.amax(dim=dims, keepdim=True)
        log_power = largest.log() * exponent
        is_far = log_power.abs() > LARGEST_LOG
        if weights is not None:
            log_powers = values.log() * exponent + weights.transpose(1, 2).log()
            log_power = log_powers.amax(dim=dims, keepdim=True)
            is_far |= log_power.abs() > LARGEST_LOG
            largest = (log_power / exponent).exp()
        unit = torch.where(is_far, largest.clamp(min=torch.finfo(values.dtype).tiny), 1.0)
    ratios = values / unit
    if weights is None:
        mean = ratios.pow(exponent).mean(dim=dims, keepdim=True)
    else:
        # Above 1 are values of next to no weight: cut off, their powers times their weights are nothing still.
        highest = math.exp(min(LARGEST_LOG / float(exponent), LARGEST_LOG))
        mean = weights @ ratios.clamp(max=highest).pow(exponent)
    return (unit * mean.pow(1.0 / exponent)).squeeze(dims)


def pooled_dim(pooling: nn.Module, n_channels: int) -> int:
    """Dimensions of a pooling's vectors: its `pooled_dim` where it has one, else the channels of the map."""
    return int(getattr(pooling, "pooled_dim", n_channels))


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
            return power_mean(values.clamp(min=self.eps), self.p)


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
            return power_mean(values.clamp(min=self.eps), exponent[:, None, None])


class ClassToken(nn.Module):
    """The class token as it is. (B, C) -> (B, C) float32 (float64 stays)."""

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return token if token.dtype == torch.float64 else token.float()
