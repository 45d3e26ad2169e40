"""SALAD: places of a map go to clusters, or to a dustbin, by optimal transport (Izquierdo and Civera, CVPR 2024).

The paper's global token is a ViT's class token; a pooling sees the map alone, so the map's mean stands for it.
Legend: B batch, C channels, P places of the map, M clusters.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import within


def transported(scores: torch.Tensor, dustbin: torch.Tensor, n_iterations: int) -> torch.Tensor:
    """(B, M, P) scores -> (B, M, P) shares of each place that each cluster takes, by Sinkhorn's iterations in the
    logarithm (section 3.2).

    A place has mass 1, a cluster takes 1 and the dustbin the rest, P - M; the last iteration makes the places' masses
    exact. In a map of fewer places than M + 1, for which the paper has no rule, clusters and dustbin take equal parts.
    dustbin: its score, a scalar.
    """
    n_clusters, n_places = scores.shape[1:]
    log_scores = torch.cat([scores, dustbin.expand(len(scores), 1, n_places)], dim=1)
    cluster_mass = min(1.0, n_places / (n_clusters + 1))
    masses = [cluster_mass] * n_clusters + [n_places - n_clusters * cluster_mass]
    log_masses = scores.new_tensor(masses).log()[:, None]
    log_shares = log_scores
    of_place = torch.zeros_like(log_scores[:, :1])
    for _ in range(n_iterations):
        of_cluster = log_masses - torch.logsumexp(log_scores + of_place, dim=2, keepdim=True)
        log_shares = log_scores + of_cluster
        of_place = -torch.logsumexp(log_shares, dim=1, keepdim=True)
    return (log_shares + of_place).exp()[:, :-1]


class Salad(nn.Module):
    """(B, C, H, W) -> (B, token_dim + n_clusters x cluster_dim) float32: the token, then the clusters' sums of local
    features, each of unit norm (section 3.3).

    Defaults are the published ones for a C of 768.
    """

    def __init__(
        self,
        n_channels: int,
        *,
        n_clusters: int = 64,
        cluster_dim: int = 128,
        token_dim: int = 256,
        hidden_dim: int = 512,
        dropout: float = 0.3,
        iterations: int = 3,
    ) -> None:
        super().__init__()
        sizes = {"n_clusters": n_clusters, "cluster_dim": cluster_dim, "token_dim": token_dim, "hidden_dim": hidden_dim}
        for name, value in sizes.items():
            within(f"model.pooling_settings.{name}", value, 1, 65536)
        within("model.pooling_settings.dropout", dropout, 0.0, 0.99)
        within("model.pooling_settings.iterations", iterations, 1, 1000)
        self.iterations = iterations
        self.pooled_dim = token_dim + n_clusters * cluster_dim
        self.token = nn.Sequential(nn.Linear(n_channels, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, token_dim))
        self.local = _per_place(n_channels, hidden_dim, cluster_dim, dropout)
        self.score = _per_place(n_channels, hidden_dim, n_clusters, dropout)
        self.dustbin = nn.Parameter(torch.ones(()))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        local = self.local(maps).flatten(2)
        scores = self.score(maps).flatten(2)
        token = self.token(maps.mean(dim=(2, 3)))
        with torch.autocast(maps.device.type, enabled=False):
            shares = transported(scores.float(), self.dustbin, self.iterations)
            sums = torch.einsum("bmp,bdp->bdm", shares, local.float())
            return torch.cat([F.normalize(token.float(), dim=1), F.normalize(sums, dim=1).flatten(1)], dim=1)


def _per_place(n_channels: int, hidden_dim: int, n_out: int, dropout: float) -> nn.Sequential:
    """Two layers, the same at every place."""
    return nn.Sequential(
        nn.Conv2d(n_channels, hidden_dim, 1), nn.Dropout(dropout), nn.ReLU(), nn.Conv2d(hidden_dim, n_out, 1)
    )
