"""Smooth-AP (Brown et al., ECCV 2020): average precision with a sigmoid in the place of each comparison of two
similarities.

Symbols: Q photos as queries, R references that they rank, P pairs of a query and one of its positives.
"""

from dataclasses import dataclass

import torch

from ultron_cli.configs import within
from ultron_cli.training.losses.batch import BatchLoss, BatchSettings


def smooth_ap(
    similarities: torch.Tensor, is_positive: torch.Tensor, is_ranked: torch.Tensor, temperature: float
) -> torch.Tensor:
    """(Q',) average precision, 0..1, of the queries that have a positive (equation 6).

    similarities: (Q, R). is_positive, is_ranked: (Q, R) bool; a positive is ranked. A reference's rank is 1 and, summed
    over the others, sigmoid((their similarity - its own) / temperature).
    """
    queries, positives = torch.where(is_positive)
    ahead = similarities[queries] - similarities[queries, positives][:, None]  # (P, R)
    ahead = torch.sigmoid(ahead / temperature)
    is_other = torch.ones_like(ahead).scatter_(1, positives[:, None], 0.0)  # a reference is not ahead of itself
    among_positives = 1.0 + (ahead * is_other * is_positive[queries]).sum(1)
    among_all = 1.0 + (ahead * is_other * is_ranked[queries]).sum(1)
    n_positives = is_positive.sum(1)
    sums = similarities.new_zeros(len(similarities)).index_add(0, queries, among_positives / among_all)
    has_positive = n_positives > 0
    return sums[has_positive] / n_positives[has_positive]


@dataclass(frozen=True, kw_only=True)
class SmoothApSettings(BatchSettings):
    """Settings of Smooth-AP."""

    temperature: float = (
        0.01  # of the sigmoid, above 0, up to 1: low is near to average precision, high has more gradient
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.temperature", self.temperature, 1e-4, 1.0)


class SmoothAp(BatchLoss):
    """1 - the mean of the smooth average precisions with which photos rank the others of their batch and the memory.

    The photo itself is not in its ranking, as when a dataset is searched; in the authors' code it is, as a positive.
    """

    def __init__(self, n_classes: int, dim: int, settings: SmoothApSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.temperature = settings.temperature

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        is_ranked = torch.ones(len(labels), len(references), dtype=torch.bool, device=labels.device)
        is_ranked.fill_diagonal_(False)  # the first references are the batch
        is_positive = (labels[:, None] == reference_labels) & is_ranked
        if not is_positive.any():
            return 0.0 * descriptors.sum()
        return 1.0 - smooth_ap(descriptors @ references.T, is_positive, is_ranked, self.temperature).mean()
