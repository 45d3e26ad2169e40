"""Losses of pairs and triplets of a batch, by pytorch-metric-learning where it has them; the settings of each directly
above it.

Symbols: B photos of the batch, R references, of which the first B are the batch (batch.py). d is the distance of two
unit descriptors, 0 to 2; s their cosine. A photo's positives are the other references of its landmark, its negatives
those of other landmarks.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices

from ultron_cli.configs import within
from ultron_cli.training.losses.batch import BatchLoss, BatchSettings, without_memory

Indices = tuple[torch.Tensor, ...]
"""(anchors, positives, anchors, negatives) of pairs, or (anchors, positives, negatives) of triplets: places in the
batch and in the references, int64."""


def without_itself(indices: Indices) -> Indices:
    """Pairs or triplets without those in which a photo is its own positive."""
    anchors, positives = indices[:2]
    is_other = anchors != positives
    if len(indices) == 4:
        return anchors[is_other], positives[is_other], *indices[2:]
    return tuple(part[is_other] for part in indices)


class SquaredContrastiveLoss(losses.ContrastiveLoss):
    """pytorch-metric-learning's, whose terms are d and max(0, margin - d), with half their squares."""

    def get_per_pair_loss(self, pair_dists: torch.Tensor, pos_or_neg: str) -> torch.Tensor:
        return 0.5 * super().get_per_pair_loss(pair_dists, pos_or_neg).square()


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(BatchSettings):
    """Settings of the contrastive loss; the margin is cirtorch's."""

    margin: float = 0.7  # distance that negatives are pushed to, 0..2

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.margin", self.margin, 0.0, 2.0)


class Contrastive(BatchLoss):
    """d^2 / 2 of positives and max(0, margin - d)^2 / 2 of negatives (Hadsell et al., CVPR 2006; Radenovic et al.,
    TPAMI 2019): the means over the pairs of either kind whose term is not 0, added."""

    def __init__(self, n_classes: int, dim: int, settings: ContrastiveSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.loss = SquaredContrastiveLoss(neg_margin=settings.margin)  # pyright: ignore[reportArgumentType]

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        pairs = without_itself(get_all_pairs_indices(labels, reference_labels))
        return self.loss(descriptors, labels, pairs, references, reference_labels)


@dataclass(frozen=True, kw_only=True)
class TripletSettings(BatchSettings):
    """Settings of the triplet loss."""

    margin: float = 0.1  # by which a negative is to be farther than a positive, 0..2
    # "batch-hard": each photo with its farthest positive and its nearest negative (Hermans et al., 2017). "semi-hard":
    # all triplets whose negative is farther than the positive, by less than the margin (Schroff et al., CVPR 2015).
    mining: Literal["batch-hard", "semi-hard"] = "semi-hard"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.margin", self.margin, 0.0, 2.0)


class Triplet(BatchLoss):
    """max(0, d_positive - d_negative + margin), the mean over the mined triplets in which it is not 0."""

    def __init__(self, n_classes: int, dim: int, settings: TripletSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.loss = losses.TripletMarginLoss(margin=settings.margin)
        is_hard = settings.mining == "batch-hard"
        self.miner = miners.BatchHardMiner() if is_hard else miners.TripletMarginMiner(settings.margin, "semihard")

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        triplets = without_itself(self.miner(descriptors, labels, references, reference_labels))
        return self.loss(descriptors, labels, triplets, references, reference_labels)


@dataclass(frozen=True, kw_only=True)
class MultiSimilaritySettings(BatchSettings):
    """Settings of the multi-similarity loss; the defaults are as published, base excepted, which is
    pytorch-metric-learning's."""

    alpha: float = 2.0  # weight in the exponent, of positives
    beta: float = 50.0  # the same, of negatives
    base: float = 0.5  # cosine about which pairs count, -1..1
    # A pair counts if a positive has a cosine less than the nearest negative's plus epsilon, and so on: 0..2.
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.alpha", self.alpha, 1e-3, 1e4)
        within("loss.beta", self.beta, 1e-3, 1e4)
        within("loss.base", self.base, -1.0, 1.0)
        within("loss.epsilon", self.epsilon, 0.0, 2.0)


class MultiSimilarity(BatchLoss):
    """Pairs weighed by how they compare with the others of their photo (Wang et al., CVPR 2019, eq. 16 with the mining
    of eq. 11 and 12)."""

    def __init__(self, n_classes: int, dim: int, settings: MultiSimilaritySettings) -> None:
        super().__init__(n_classes, dim, settings)
        exponents = (settings.alpha, settings.beta)
        self.loss = losses.MultiSimilarityLoss(*exponents, settings.base)  # pyright: ignore[reportArgumentType]
        self.miner = miners.MultiSimilarityMiner(settings.epsilon)

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        pairs = without_itself(self.miner(descriptors, labels, references, reference_labels))
        return self.loss(descriptors, labels, pairs, references, reference_labels)


@dataclass(frozen=True, kw_only=True)
class NtXentSettings(BatchSettings):
    """Settings of NT-Xent."""

    temperature: float = 0.07  # above 0, up to 10

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.temperature", self.temperature, 1e-3, 10.0)


class NtXent(BatchLoss):
    """Cross-entropy of each positive among the negatives of its photo (Sohn, NeurIPS 2016; Chen et al., ICML 2020):
    -ln(exp(s_p / t) / (exp(s_p / t) + sum of exp(s_n / t))), the mean over the positive pairs.

    As pytorch-metric-learning's NTXentLoss, whose table of positive pairs x negative pairs takes B^4 numbers and grows
    with the square of the memory; this one has B x R.
    """

    def __init__(self, n_classes: int, dim: int, settings: NtXentSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.temperature = settings.temperature

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        logits = descriptors @ references.T / self.temperature
        is_same = labels[:, None] == reference_labels
        log_negatives = logits.masked_fill(is_same, -math.inf).logsumexp(1)
        anchors, positives = without_itself(get_all_pairs_indices(labels, reference_labels))[:2]
        if not len(anchors) or is_same.all():
            return 0.0 * descriptors.sum()
        return F.softplus(log_negatives[anchors] - logits[anchors, positives]).mean()


@dataclass(frozen=True, kw_only=True)
class FastApSettings(BatchSettings):
    """Settings of FastAP."""

    bins: int = 10  # of the histogram of distances

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.bins", self.bins, 2, 1000)
        without_memory("fastap", self)


class FastAp(BatchLoss):
    """1 - average precision of each photo's ranking of the batch, through a histogram of its squared distances (Cakir
    et al., CVPR 2019)."""

    def __init__(self, n_classes: int, dim: int, settings: FastApSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.loss = losses.FastAPLoss(num_bins=settings.bins)

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        return self.loss(descriptors, labels)
