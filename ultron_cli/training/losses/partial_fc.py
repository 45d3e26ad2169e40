"""Partial-FC (An et al., CVPR 2022): each rank holds a shard of the class weights, and a step may compare with a sample of them only.

Symbols: G descriptors of all ranks together when the weights are sharded (else this rank's), S classes compared with on this rank.
"""

import math

import torch

from ultron_cli import ranks
from ultron_cli.training.losses.margins import MarginLoss


def sample_classes(own_labels: torch.Tensor, n_classes: int, sample_rate: float) -> torch.Tensor:
    """(S,) int64, ascending: the classes in `own_labels`, filled up at random to sample_rate x n_classes (more if the labels are more)."""
    wanted = max(1, round(sample_rate * n_classes))
    priority = torch.rand(n_classes, device=own_labels.device)
    priority[own_labels] = 2.0
    n_own = int((priority == 2.0).sum())
    return priority.topk(max(wanted, n_own)).indices.sort().values


def partial_loss(loss: MarginLoss, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of (B, D) descriptors and (B,) labels. Sharded: that of the global batch, equal on every rank.

    The optimiser still moves the weights of classes that were not sampled by its momentum and decay, unlike in the paper.
    """
    sharded = loss.settings.sharded and ranks.n_ranks() > 1
    everyone = ranks.GatherWithGradient.apply(descriptors) if sharded else descriptors
    everyones = ranks.gather_rows(labels) if sharded else labels
    n_own = len(loss.weight) // loss.n_centres
    mine = (everyones >= loss.first_class) & (everyones < loss.first_class + n_own)
    column = everyones - loss.first_class
    classes = None
    if loss.settings.sample_rate < 1.0:
        classes = sample_classes(column[mine], n_own, loss.settings.sample_rate)
        column = torch.searchsorted(classes, column.clamp(0, n_own - 1))
    cosines = loss.cosines(everyone, classes)  # (G, S)
    column = torch.where(mine, column, 0)[:, None]
    target = torch.where(mine[:, None], cosines.gather(1, column), 0.0)
    target = ranks.SumWithGradient.apply(target) if sharded else target
    with torch.no_grad():
        _adapt(loss, cosines, column, mine, target, sharded)
        best = cosines.amax(1)
        loss.n_right = (target[:, 0] >= (ranks.max_over_ranks(best) if sharded else best)).sum()
        if sharded:  # of the global batch: this rank reports its part
            loss.n_right = loss.n_right / ranks.n_ranks()
    with_margin = loss.with_margin(target)
    others = loss.others(cosines, with_margin)
    logits = loss.scale * torch.where(mine[:, None], others.scatter(1, column, with_margin), others)
    highest = logits.detach().amax(1, keepdim=True)
    highest = ranks.max_over_ranks(highest) if sharded else highest
    total = (logits - highest).exp().sum(1, keepdim=True)
    total = ranks.SumWithGradient.apply(total) if sharded else total
    return (highest + total.log() - loss.scale * with_margin).mean()


def _adapt(loss: MarginLoss, cosines: torch.Tensor, column: torch.Tensor, mine: torch.Tensor, target: torch.Tensor, sharded: bool) -> None:
    """Lets the loss set margin and scale from the target cosines of all ranks."""

    def log_negatives(row: int, scale: float) -> torch.Tensor:
        owner, own_row = (ranks.rank(), row) if sharded else divmod(row, len(cosines))
        value = cosines.new_full((), -math.inf)
        if owner == ranks.rank():
            values = scale * cosines[own_row]
            value = torch.logsumexp(values.index_fill(0, column[own_row], -math.inf) if mine[own_row] else values, 0)
        return torch.logsumexp(ranks.gather_rows(value[None]), 0)

    loss.adapt(target[:, 0] if sharded else ranks.gather_rows(target[:, 0]), log_negatives)
