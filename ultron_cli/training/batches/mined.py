"""Batches of tuples whose negatives are searched anew for every epoch, as cirtorch trains (Radenovic et al., TPAMI
2019): an anchor, a positive, and the photos of other landmarks that the present network has nearest to the anchor, each
of another landmark.

Ours: the positive is any photo of the landmark (cirtorch has pairs from reconstructions), and the whole set is searched
unless a pool is asked for. hard.py searches.
"""

import numpy as np
import torch

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.draws import EpochBatches


class MinedBatches(EpochBatches):
    """EpochBatches of tuples; of an epoch at a time, after `set_negatives`. Anchors and positives are drawn from (seed,
    epoch) alone.

    labels: (N,) int64. batch_size: a multiple of processes x (2 + n_negatives). An epoch has as many tuples as the
    photos make, at most most_anchors.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        n_epochs: int,
        n_negatives: int,
        most_anchors: int,
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        super().__init__(len(labels), batch_size, seed, n_epochs, None, process, n_processes)
        self.labels = labels
        self.n_negatives = n_negatives
        self.tuple_size = 2 + n_negatives
        self.n_batches = min(len(labels), most_anchors * self.tuple_size) // batch_size
        if not self.n_batches:
            raise UltronError(
                f"an epoch of loss.anchors={most_anchors} tuples of {self.tuple_size} photos has no batch of "
                f"{batch_size}; use `loss.anchors={-(-batch_size // self.tuple_size)}`"
            )
        sizes = np.bincount(labels)
        n_landmarks = int((sizes > 0).sum())
        if sizes.max() < 2 or n_landmarks <= n_negatives:
            raise UltronError(
                f"tuples with {n_negatives} negatives need a landmark with two photos and {n_negatives} other "
                f"landmarks, found {len(labels)} photos of {n_landmarks} landmarks; use more photos, or a smaller "
                "loss.negatives"
            )
        self.order = np.argsort(labels, kind="stable")  # rows, landmark after landmark
        self.sizes = sizes
        self.starts = np.cumsum(sizes) - sizes
        self.mined_epoch = -1
        self.negatives = np.empty((0, n_negatives), np.int64)

    @property
    def n_anchors(self) -> int:
        """Tuples of an epoch."""
        return self.n_batches * self.batch_size // self.tuple_size

    def pairs(self, epoch: int) -> np.ndarray:
        """(A, 2) rows of the anchors and positives of an epoch; no anchor twice while there are others."""
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, self.tuple_size]))
        places = np.flatnonzero(self.sizes[self.labels[self.order]] >= 2)
        rounds = [draws.permutation(places) for _ in range(-(-self.n_anchors // len(places)))]
        anchors = np.concatenate(rounds)[: self.n_anchors]
        landmarks = self.labels[self.order[anchors]]
        steps = 1 + draws.integers(0, self.sizes[landmarks] - 1)
        positives = self.starts[landmarks] + (anchors - self.starts[landmarks] + steps) % self.sizes[landmarks]
        return self.order[np.stack([anchors, positives], axis=1)]

    def pool(self, epoch: int, most: int | None) -> np.ndarray:
        """Rows of the photos that are searched for negatives in an epoch, ascending."""
        if most is None or most >= self.n_photos:
            return np.arange(self.n_photos)
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, self.tuple_size, 1]))
        return np.sort(draws.choice(self.n_photos, most, replace=False))

    def set_negatives(self, epoch: int, negatives: np.ndarray) -> None:
        """Gives an epoch its (A, n_negatives) rows, in the order of pairs(epoch)."""
        self.mined_epoch = epoch
        self.negatives = negatives

    def set_start(self, epoch: int, first_batch: int) -> None:
        super().set_start(epoch, first_batch)
        self.n_epochs = epoch + 1  # the negatives of the next are not known yet

    def epoch_rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(batches, batch_size) int64 rows and seeds of an epoch, tuple after tuple."""
        if epoch != self.mined_epoch:
            raise ValueError(f"epoch {epoch} has no negatives yet, the latest are of {self.mined_epoch}")
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, self.tuple_size, 2]))
        rows = np.concatenate([self.pairs(epoch), self.negatives], axis=1).reshape(-1, self.batch_size)
        return rows, draws.integers(0, 2**62, rows.shape)

    def state(self) -> dict[str, object]:
        """What a resumed run needs, as torch.save takes it."""
        return {"epoch": self.mined_epoch, "negatives": torch.from_numpy(self.negatives)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on from a state()."""
        self.set_negatives(int(state["epoch"]), state["negatives"].numpy())
