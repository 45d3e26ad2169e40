"""Which photos form which batch: drawn from (seed, epoch) alone, so that every process and every resumed run draws the
same."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Width over height of the shapes that group_sizes trains on; a photo goes to the nearest.
ASPECTS = (0.5, 2 / 3, 0.75, 1.0, 4 / 3, 1.5, 2.0)
SHAPE_STEP_PX = 32


class PhotoDraw(NamedTuple):
    """One photo of a batch: its row, the seed of its augmentation, and the number of its shape."""

    row: int
    seed: int
    shape: int


def training_shapes(side_px: int, group_sizes: bool) -> list[tuple[int, int]]:
    """(height, width) in pixels of the shapes to train on, all of about side_px squared."""
    if not group_sizes:
        return [(side_px, side_px)]

    def rounded(value: float) -> int:
        return max(SHAPE_STEP_PX, round(value / SHAPE_STEP_PX) * SHAPE_STEP_PX)

    return [(rounded(side_px / aspect**0.5), rounded(side_px * aspect**0.5)) for aspect in ASPECTS]


def shape_groups(aspects: np.ndarray) -> np.ndarray:
    """(N,) float aspects -> (N,) int64 numbers of the nearest of ASPECTS, on a logarithmic scale."""
    return np.abs(np.log(aspects)[:, None] - np.log(ASPECTS)).argmin(1)


class EpochBatches:
    """The batches of all epochs for one process, as a batch sampler; `set_start` says with which epoch and batch to
    begin.

    Epoch follows epoch without a pause, so that no step waits for the first photos of an epoch. The photos that fill no
    batch are left out of their epoch; the next is drawn in another order.

    groups: (N,) shape numbers, or None for one shape. batch_size: photos over all processes; a process takes an equal
    part of each batch.
    """

    def __init__(
        self,
        n_photos: int,
        batch_size: int,
        seed: int,
        n_epochs: int = 1,
        groups: np.ndarray | None = None,
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        self.n_photos = n_photos
        self.batch_size = batch_size
        self.seed = seed
        self.n_epochs = n_epochs
        self.groups = np.zeros(n_photos, np.int64) if groups is None else groups
        self.process = process
        self.n_processes = n_processes
        self.n_batches = int(sum(n // batch_size for n in np.bincount(self.groups)))
        self.epoch = 0
        self.first_batch = 0

    def set_start(self, epoch: int, first_batch: int) -> None:
        """Says where the next iteration begins. epoch: from 0."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self) -> int:
        return (self.n_epochs - self.epoch) * self.n_batches - self.first_batch

    def epoch_rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(batches, batch_size) int64 rows and seeds of an epoch, in order."""
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = draws.permutation(self.n_photos)
        seeds = draws.integers(0, 2**62, self.n_photos)
        batches = []
        for group in range(int(self.groups.max(initial=0)) + 1):
            places = np.flatnonzero(self.groups[order] == group)
            batches.append(places[: len(places) // self.batch_size * self.batch_size].reshape(-1, self.batch_size))
        places = np.concatenate(batches)
        if len(batches) > 1:
            places = places[draws.permutation(len(places))]
        return order[places], seeds[places]

    def __iter__(self) -> Iterator[list[PhotoDraw]]:
        n_local = self.batch_size // self.n_processes
        local_part = slice(self.process * n_local, (self.process + 1) * n_local)
        for epoch in range(self.epoch, self.n_epochs):
            rows, seeds = self.epoch_rows(epoch)
            for batch in range(self.first_batch if epoch == self.epoch else 0, self.n_batches):
                pairs = zip(rows[batch, local_part].tolist(), seeds[batch, local_part].tolist(), strict=True)
                yield [PhotoDraw(row, seed, int(self.groups[row])) for row, seed in pairs]
