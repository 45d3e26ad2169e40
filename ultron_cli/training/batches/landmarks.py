"""Batches of P landmarks with K photos of each, for losses that compare the photos of a batch with each other."""

from collections import deque

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.draws import EpochBatches

LOOK_AHEAD = 8  # batches: how far a group is searched whose landmark is not in the batch yet


class LandmarkBatches(EpochBatches):
    """EpochBatches of groups of photos of one landmark, drawn from (seed, epoch) alone.

    Every photo is in one group of an epoch. A landmark's last group is filled up with other photos of it, with the same
    again (in another crop) where it has fewer than a group. The groups of a batch are of different landmarks as far as
    there are enough.

    labels: (N,) int64. batch_size: a multiple of processes x per_landmark. n_parts: parts of a batch that a loss sees
    one after the other (`accumulate`).
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        n_epochs: int,
        per_landmark: int,
        process: int = 0,
        n_processes: int = 1,
        n_parts: int = 1,
    ) -> None:
        super().__init__(len(labels), batch_size, seed, n_epochs, None, process, n_processes)
        self.per_landmark = per_landmark
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        self.rows_of = [rows for rows in np.split(order, np.cumsum(sizes)[:-1]) if len(rows)]
        n_groups = sum(-(-len(rows) // per_landmark) for rows in self.rows_of)
        self.n_batches = n_groups * per_landmark // batch_size
        if len(self.rows_of) < 2 or batch_size // n_parts < 2 * per_landmark:
            raise UltronError(
                f"a loss without class weights compares photos of two landmarks at least, {per_landmark} of each; "
                f"found {len(self.rows_of)} landmarks, and {batch_size // n_parts} photos in batch_size / accumulate; "
                f"use more photos, `batch_size={2 * per_landmark * n_parts * n_processes}` or a smaller "
                "loss.per_landmark"
            )

    def epoch_rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(batches, batch_size) int64 rows and seeds of an epoch, group after group."""
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, self.per_landmark]))
        groups: list[np.ndarray] = []
        landmarks: list[int] = []
        for landmark, rows in enumerate(self.rows_of):
            parts = self._groups_of(rows, draws)
            groups += parts
            landmarks += [landmark] * len(parts)
        order = draws.permutation(len(groups))
        n_groups = self.batch_size // self.per_landmark
        places = spread(np.array(landmarks)[order].tolist(), n_groups)[: self.n_batches * n_groups]
        rows = np.stack([groups[order[place]] for place in places]).reshape(-1, self.batch_size)
        return rows, draws.integers(0, 2**62, rows.shape)

    def _groups_of(self, rows: np.ndarray, draws: np.random.Generator) -> list[np.ndarray]:
        """The photos of a landmark in groups of per_landmark, the last filled up."""
        rows = draws.permutation(rows)
        n_missing = -len(rows) % self.per_landmark
        last = rows[len(rows) - len(rows) % self.per_landmark :]
        others = np.concatenate([rows[: len(rows) - len(last)], last])  # those of the last group come last
        return np.split(
            np.concatenate([rows, np.resize(others, n_missing)]), (len(rows) + n_missing) // self.per_landmark
        )


def spread(landmarks: list[int], n_groups: int) -> list[int]:
    """Places of `landmarks` in an order in which each n_groups one after the other are of different landmarks where the
    next LOOK_AHEAD x n_groups have as many, and otherwise as they come."""
    order: list[int] = []
    waiting = deque(range(len(landmarks)))
    while waiting:
        batch: list[int] = []
        put_off: list[int] = []
        taken: set[int] = set()
        while waiting and len(batch) < n_groups and len(put_off) < LOOK_AHEAD * n_groups:
            place = waiting.popleft()
            (put_off if landmarks[place] in taken else batch).append(place)
            taken.add(landmarks[place])
        n_missing = n_groups - len(batch)
        order += batch + put_off[:n_missing]
        waiting.extendleft(reversed(put_off[n_missing:]))
    return order
