"""Partial-FC (An et al., CVPR 2022): each process holds a shard of the class weights, and a step may compare with a
sample of them only.

Symbols: G descriptors of all processes together when the weights are sharded (else this process's), S classes compared
with on this process.
"""

import math

import torch
from torch import nn

from ultron_cli import distributed
from ultron_cli.errors import UltronError
from ultron_cli.training.losses.base import ClassSettings, LossResult, Margin, MarginLoss


def sample_classes(batch_classes: torch.Tensor, n_classes: int, sample_rate: float) -> torch.Tensor:
    """(S,) int64, ascending: `batch_classes`, filled up at random to sample_rate x n_classes (more if the batch has
    more classes)."""
    n_wanted = max(1, round(sample_rate * n_classes))
    priority = torch.rand(n_classes, device=batch_classes.device)
    priority[batch_classes] = 2.0
    n_batch_classes = int((priority == 2.0).sum())
    return priority.topk(max(n_wanted, n_batch_classes)).indices.sort().values


class PartialFcLoss(MarginLoss):
    """A margin loss whose class weights may be sampled or spread over the processes, as its settings say."""

    def __init__(self, n_classes: int, dim: int, settings: ClassSettings) -> None:
        super().__init__(n_classes, dim, settings)
        if settings.sharded:
            first, last = self._shard()
            self.first_class = first
            # Cut from the weights of all classes, which every process draws alike.
            self.weight = nn.Parameter(self.weight.detach()[first * self.n_centres : last * self.n_centres].clone())

    def _shard(self) -> tuple[int, int]:
        """First class of this process's shard, and the first class behind it."""
        n_processes = distributed.n_processes()
        if self.n_classes < n_processes:
            raise UltronError(
                f"loss.sharded needs a class per process; found {self.n_classes} classes for "
                f"{n_processes} processes; use `loss.sharded=false`"
            )
        process = distributed.process_index()
        return (
            round(process * self.n_classes / n_processes),
            round((process + 1) * self.n_classes / n_processes),
        )

    def classify(self, descriptors: torch.Tensor, labels: torch.Tensor) -> LossResult:
        """The classification loss. Sharded: that of the global batch, equal on every process.

        The optimiser still moves the weights of classes that were not sampled by its momentum and decay, unlike in the
        paper.
        """
        if self.settings.sample_rate == 1.0 and not self.settings.sharded:
            return super().classify(descriptors, labels)
        is_spread = self.settings.sharded and distributed.n_processes() > 1
        batch_descriptors = distributed.gather_with_gradient(descriptors) if is_spread else descriptors
        batch_labels = distributed.gather_rows(labels) if is_spread else labels
        n_local = self.n_local_classes
        is_local = (batch_labels >= self.first_class) & (batch_labels < self.first_class + n_local)
        column = batch_labels - self.first_class
        classes = None
        if self.settings.sample_rate < 1.0:
            classes = sample_classes(column[is_local], n_local, self.settings.sample_rate)
            column = torch.searchsorted(classes, column.clamp(0, n_local - 1))
        cosines = self.cosines(batch_descriptors, classes)  # (G, S)
        column = torch.where(is_local, column, 0)[:, None]
        target = torch.where(is_local[:, None], cosines.gather(1, column), 0.0)
        target = distributed.sum_with_gradient(target) if is_spread else target
        with torch.no_grad():
            margin = self._margin_of_parts(cosines, column, is_local, target, is_spread)
            best = cosines.amax(1)
            best = distributed.max_over_processes(best) if is_spread else best
            n_right = (target[:, 0] >= best).sum()
            if is_spread:  # of the global batch: this process reports its part
                n_right = n_right / distributed.n_processes()
        with_margin = self.with_margin(target, margin.margin)
        others = self.others(cosines, target, margin.margin)
        logits = margin.scale * torch.where(is_local[:, None], others.scatter(1, column, with_margin), others)
        highest = logits.detach().amax(1, keepdim=True)
        highest = distributed.max_over_processes(highest) if is_spread else highest
        total = (logits - highest).exp().sum(1, keepdim=True)
        total = distributed.sum_with_gradient(total) if is_spread else total
        loss = (highest + total.log() - margin.scale * with_margin).mean()
        return LossResult(loss=loss, n_right=n_right, margin=margin.margin, scale=margin.scale)

    def _margin_of_parts(
        self,
        cosines: torch.Tensor,
        column: torch.Tensor,
        is_local: torch.Tensor,
        target: torch.Tensor,
        is_spread: bool,
    ) -> Margin:
        """Margin and scale from the target cosines of all processes, whose classes are in parts.

        cosines: (G, S). column: (G, 1), the target's, where it is_local (G,). target: (G, 1).
        """

        def log_negatives(row: int, scale: float) -> torch.Tensor:
            process, local_row = (distributed.process_index(), row) if is_spread else divmod(row, len(cosines))
            value = cosines.new_full((), -math.inf)
            if process == distributed.process_index():
                values = scale * cosines[local_row]
                if is_local[local_row]:
                    values = values.index_fill(0, column[local_row], -math.inf)
                value = torch.logsumexp(values, 0)
            return torch.logsumexp(distributed.gather_rows(value[None]), 0)

        targets = target[:, 0] if is_spread else distributed.gather_rows(target[:, 0])
        return self.margin_of(targets, log_negatives)
