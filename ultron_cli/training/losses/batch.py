"""The base of the losses without class weights: they compare the photos of a batch with each other, and with those of
earlier batches that a memory holds.

Symbols: B photos of the batch over all processes, R references: the batch, then the memory. D descriptor dimensions.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ultron_cli import distributed
from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.training.losses.base import Loss, LossResult, LossSettings, at_least_float32, nearest_is_right


@dataclass(frozen=True, kw_only=True)
class BatchSettings(LossSettings):
    """Settings of every loss without class weights: what its batches are made of, and what a photo is compared with."""

    # "landmarks": so many photos of each of some landmarks (batches/landmarks.py). "mined": tuples of an anchor, a
    # positive and the anchor's nearest photos of other landmarks, searched anew for every epoch (batches/mined.py).
    # Or an import path (batches/of_users.py).
    batches: str = "landmarks"
    # Of batches="landmarks": photos of a landmark in a batch.
    per_landmark: int = 4
    # Of batches="mined": negatives of a tuple; tuples of an epoch, at most; photos that are searched for negatives,
    # drawn anew for every epoch, None: all. cirtorch's are 5, 2000 and 20000.
    negatives: int = 5
    anchors: int = 2000
    pool: int | None = None
    # Photos of the latest steps whose descriptors, as they were then, are compared with too (cross-batch memory, Wang
    # et al., CVPR 2020). 0: none.
    memory: int = 0

    @property
    def kinds_of_batches(self) -> tuple[str, ...]:
        return ("landmarks", "mined")

    @property
    def photos_together(self) -> int:
        return {"landmarks": self.per_landmark, "mined": 2 + self.negatives}.get(self.batches, 1)

    @property
    def together_text(self) -> str:
        return {"landmarks": "loss.per_landmark", "mined": "(2 + loss.negatives)"}.get(self.batches, "")

    @property
    def of_batches(self) -> "BatchSettings":
        return self

    def __post_init__(self) -> None:
        within("loss.per_landmark", self.per_landmark, 2, 1024)
        within("loss.negatives", self.negatives, 1, 1022)
        within("loss.anchors", self.anchors, 1, 10**7)
        within("loss.pool", self.pool or 2, 2, 10**9)
        within("loss.memory", self.memory, 0, 2**20)


class Memory(nn.Module):
    """Descriptors and labels of the latest photos, the oldest replaced first."""

    descriptors: torch.Tensor
    labels: torch.Tensor
    n_stored: torch.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("descriptors", torch.zeros(size, dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("n_stored", torch.zeros((), dtype=torch.int64))  # since the run began

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the (M, D) descriptors and (M,) labels that are stored, M at most `size`."""
        n_rows = min(int(self.n_stored), self.size)
        return self.descriptors[:n_rows].clone(), self.labels[:n_rows].clone()

    @torch.no_grad()
    def store(self, descriptors: torch.Tensor, labels: torch.Tensor) -> None:
        """Takes in (B, D) descriptors and their (B,) labels."""
        places = (int(self.n_stored) + torch.arange(len(labels), device=labels.device))[-self.size :] % self.size
        self.descriptors[places] = descriptors[-self.size :].to(self.descriptors.dtype)
        self.labels[places] = labels[-self.size :]
        self.n_stored += len(labels)


class BatchLoss(Loss):
    """Base of the losses without class weights. A subclass defines `of_batch`.

    With several processes every process computes the loss of the global batch from the descriptors of all, so that it
    and its gradient are those of one process with the same batch.
    """

    settings: BatchSettings
    settings_base = BatchSettings
    memory: Memory | None

    def __init__(self, n_classes: int, dim: int, settings: BatchSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.memory = Memory(settings.memory, dim) if settings.memory else None

    def of_batch(
        self,
        descriptors: torch.Tensor,
        labels: torch.Tensor,
        references: torch.Tensor,
        reference_labels: torch.Tensor,
    ) -> torch.Tensor:
        """The scalar loss of (B, D) unit descriptors and (B,) labels against (R, D) references and (R,) labels.

        The first B references are the descriptors themselves: a photo is never compared with itself. Without anything
        to compare the loss is 0, with a gradient of zeros.
        """
        raise NotImplementedError

    def result(self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None) -> LossResult:
        with torch.autocast(descriptors.device.type, enabled=False):
            batch = distributed.gather_batch(at_least_float32(descriptors))
            batch_labels = distributed.gather_rows(labels)
            references, reference_labels = batch, batch_labels
            if self.memory is not None:
                old_descriptors, old_labels = self.memory.rows()
                references = torch.cat([batch, old_descriptors.to(batch.dtype)])
                reference_labels = torch.cat([batch_labels, old_labels])
                if self.training:
                    self.memory.store(batch, batch_labels)
            loss = self.of_batch(batch, batch_labels, references, reference_labels)
            n_right = nearest_is_right(batch.detach(), batch_labels).sum() / distributed.n_processes()
        return LossResult(
            loss=loss,
            n_right=n_right,
            margin=float(getattr(self.settings, "margin", 0.0)),
            scale=1.0 / float(getattr(self.settings, "temperature", 1.0)),
        )

    def chance(self, n_photos: int) -> float:
        settings = self.settings
        n_others = max(1, n_photos - 1)
        if settings.batches == "landmarks":
            return (settings.per_landmark - 1) / n_others
        if settings.batches == "mined":
            return 2.0 / settings.photos_together / n_others  # anchor and positive alone have a photo of their landmark
        return 1.0 / n_others  # of a user's batches no more is known than that there is such a photo


def without_memory(name: str, settings: BatchSettings) -> None:
    """Raises UltronError if a memory is asked of a loss that cannot use it."""
    if settings.memory:
        raise UltronError(
            f"loss {name} ranks the photos of one batch; found loss.memory={settings.memory}; add `loss.memory=0`"
        )
