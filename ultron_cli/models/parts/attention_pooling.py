"""Attention pooling of ULTRON: one query, made from the map itself, gathers the map into one vector.

It follows SimPool (Psomas et al., ICCV 2023), which this file holds as published too. That ULTRON pools in this way,
with GeM for the query, is a third party's reading of its paper.
"""

from typing import Literal

import torch
from torch import nn

from ultron_cli.models.parts.pooling import Average, GeM, power_mean


class AttentionPooling(nn.Module):
    """q = Wq GeM(X); A = softmax(K^T q / sqrt(C)) over the positions, K = Wk LN(X); result f^-1(f(V) A), f(V) = (V -
    min V + eps)^gamma.

    (B, C, H, W) -> (B, C) float32 (float64 stays). V = LN(X) as in SimPool's public code. Its minimum is taken over
    each photo; there it is taken over the whole batch, which would make a descriptor depend on the photos beside it.
    gem_p: exponent of GeM; with None the query is made from the plain average. gem_p_learnable: it is a parameter.
    beta: a learnable number, 0 at first, is added to the result, as SimPool's code can (use_beta); needs an exponent.
    exponent: gamma; None gives the weighted mean of V, without power and shift.
    shift: "undone" is f^-1 to the letter. "left" is SimPool's code, which takes the root only: then all channels of all
    photos share a constant far larger than what they differ by, and under a linear layer with unit norm training starts
    with all descriptors alike (ultron-t on eight photos, AdamW: the loss is 2.2 at first and after 3 steps 2.3, undone
    0.3; the mean cosine between photos is 0.98, undone 0.15).
    """

    def __init__(
        self,
        n_channels: int,
        *,
        gem_p: float | None = 3.0,
        gem_p_learnable: bool = False,
        exponent: float | None = 2.0,
        shift: Literal["undone", "left"] = "undone",
        beta: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if beta and exponent is None:
            raise ValueError("beta is added after the power mean; give an exponent too")
        self.exponent = exponent
        self.shift = shift
        self.eps = eps
        self.scale = n_channels**-0.5
        self.summary = Average() if gem_p is None else GeM(gem_p, gem_p_learnable)
        self.norm = nn.LayerNorm(n_channels, eps=1e-6)
        self.query = nn.Linear(n_channels, n_channels, bias=False)
        self.key = nn.Linear(n_channels, n_channels, bias=False)
        self.beta = nn.Parameter(torch.zeros(())) if beta else None

    def weights(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A (B, H*W), summing to 1, and LN(X) (B, H*W, C)."""
        values = feature_map if feature_map.dtype == torch.float64 else feature_map.float()
        normalised = self.norm(values.flatten(2).transpose(1, 2))
        query = self.query(self.summary(values))
        # K^T q is computed as LN(X)^T (Wk^T q), so that no map of keys is made.
        scores = normalised @ (query @ self.key.weight)[:, :, None]
        return (scores[:, :, 0] * self.scale).softmax(dim=1), normalised

    def attention(self, feature_map: torch.Tensor) -> torch.Tensor:
        """A (B, H, W), summing to 1."""
        return self.weights(feature_map)[0].unflatten(1, feature_map.shape[-2:])

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        # A power mean in half precision loses its small terms.
        with torch.autocast(feature_map.device.type, enabled=False):
            weights, values = self.weights(feature_map)
            if self.exponent is None:
                return (weights[:, None] @ values)[:, 0]
            shift = self.eps - values.amin(dim=(1, 2), keepdim=True)
            pooled = power_mean(values + shift, self.exponent, dims=(1,), weights=weights[:, None])
            pooled = pooled - shift[:, 0] if self.shift == "undone" else pooled
            return pooled if self.beta is None else pooled + self.beta


class SimPool(AttentionPooling):
    """SimPool as its authors' code has it (Psomas et al., ICCV 2023): query of the average, one head, power mean whose
    shift is left in.

    (B, C, H, W) -> (B, C) float32 (float64 stays); the class token takes no part. gamma: the published values are 1.25
    for transformers and 2 for convolutional networks; 0 is the weighted mean without a power, published as well. shift:
    and beta: as in AttentionPooling.
    """

    def __init__(
        self, n_channels: int, *, gamma: float, shift: Literal["undone", "left"] = "left", beta: bool = False
    ) -> None:
        super().__init__(n_channels, gem_p=None, exponent=gamma or None, shift=shift, beta=beta)


class NormedGeM(nn.Module):
    """LayerNorm, then GeM, with which attention pooling is compared. (B, C, H, W) -> (B, C) float32 (float64 stays)."""

    def __init__(self, n_channels: int, *, gem_p: float = 3.0, gem_p_learnable: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_channels, eps=1e-6)
        self.gem = GeM(gem_p, gem_p_learnable)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        with torch.autocast(feature_map.device.type, enabled=False):
            values = feature_map if feature_map.dtype == torch.float64 else feature_map.float()
            return self.gem(self.norm(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
