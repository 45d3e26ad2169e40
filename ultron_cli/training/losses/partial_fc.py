"""Partial-FC (An et al., CVPR 2022): each process holds a shard of the class weights, and a step may compare with a
sample of them only.

Symbols: G descriptors of all processes together when the weights are sharded (else this process's), S classes compared
with on this process.
"""

import math

import torch

from ultron_cli import distributed
from ultron_cli.training.losses.margins import MarginLoss


def sample_classes(own_labels: torch.Tensor, n_classes: int, sample_rate: float) -> torch.Tensor:
    """(S,) int64, ascending: the classes in `own_labels`, filled up at random to sample_rate x n_classes (more if the
    labels are more)."""
    wanted = max(1, round(sample_rate * n_classes))
    priority = torch.rand(n_classes, device=own_labels.device)
    priority[own_labels] = 2.0
    n_own = int((priority == 2.0).sum())
    return priority.topk(max(wanted, n_own)).indices.sort().values


def partial_loss(loss: MarginLoss, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of (B, D) descriptors and (B,) labels. Sharded: that of the global batch, equal on every process.

    The optimiser still moves the weights of classes that were not sampled by its momentum and decay, unlike in the
    paper.
    """
    sharded = loss.settings.sharded and distributed.n_processes() > 1
    everyone = distributed.GatherWithGradient.apply(descriptors) if sharded else descriptors
    everyones = distributed.gather_rows(labels) if sharded else labels
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
    target = distributed.SumWithGradient.apply(target) if sharded else target
    with torch.no_grad():
        _adapt(loss, cosines, column, mine, target, sharded)
        best = cosines.amax(1)
        loss.n_right = (target[:, 0] >= (distributed.max_over_processes(best) if sharded else best)).sum()
        if sharded:  # of the global batch: this process reports its part
            loss.n_right = loss.n_right / distributed.n_processes()
    with_margin = loss.with_margin(target)
    others = loss.others(cosines, with_margin)
    logits = loss.scale * torch.where(mine[:, None], others.scatter(1, column, with_margin), others)
    highest = logits.detach().amax(1, keepdim=True)
    highest = distributed.max_over_processes(highest) if sharded else highest
    total = (logits - highest).exp().sum(1, keepdim=True)
    total = distributed.SumWithGradient.apply(total) if sharded else total
    return (highest + total.log() - loss.scale * with_margin).mean()


def _adapt(
    loss: MarginLoss,
    cosines: torch.Tensor,
    column: torch.Tensor,
    mine: torch.Tensor,
    target: torch.Tensor,
    sharded: bool,
) -> None:
    """Lets the loss set margin and scale from the target cosines of all processes."""

    def log_negatives(row: int, scale: float) -> torch.Tensor:
        owner, own_row = (distributed.process_index(), row) if sharded else divmod(row, len(cosines))
        value = cosines.new_full((), -math.inf)
        if owner == distributed.process_index():
            values = scale * cosines[own_row]
            value = torch.logsumexp(values.index_fill(0, column[own_row], -math.inf) if mine[own_row] else values, 0)
        return torch.logsumexp(distributed.gather_rows(value[None]), 0)

    loss.adapt(target[:, 0] if sharded else distributed.gather_rows(target[:, 0]), log_negatives)
