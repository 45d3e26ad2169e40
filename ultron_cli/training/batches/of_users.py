"""Batches that a user makes: a class by import path, `loss.batches=my.py:Balanced`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.training.batches.draws import EpochBatches

if TYPE_CHECKING:
    from ultron_cli.datasets.landmarks.photos import LandmarkPhotos

KINDS = ("landmarks", "mined", "shuffled")  # of ultron, whose names no class may bear
SETTINGS = "loss.batches_settings."


class UserSampler(Protocol):
    """What says which photos form which batch: an object of a class that is made of the photos (their `labels` (N,)
    int64, `paths` and `landmark_names`), the batch's size and its settings.

    It keeps nothing from one epoch for the next, so that every process and every resumed run draws the same.
    """

    def __call__(self, epoch: int, draws: np.random.Generator) -> np.ndarray:
        """(batches, batch_size) rows of photos, integers, as many batches in every epoch, which counts from 0. draws:
        of the seed and the epoch; whatever is random is drawn from it."""
        ...


def user_sampler(name: str) -> user_code.UserPart:
    """The class of an import path. Raises UltronError, naming the place, if it makes no batches."""
    part = user_code.load(name, "kind of batches", KINDS)
    part.require_method("__call__(epoch, draws)", UserSampler)
    return part


class UserBatches(EpochBatches):
    """EpochBatches of a UserSampler."""

    def __init__(
        self,
        photos: LandmarkPhotos,
        batch_size: int,
        seed: int,
        n_epochs: int,
        name: str,
        settings: Mapping[str, object],
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        """name: the import path. Raises UltronError, naming the place, if it makes no batches."""
        super().__init__(len(photos.labels), batch_size, seed, n_epochs, None, process, n_processes)
        self.part = user_sampler(name)
        self.sampler: UserSampler = self.part.made(photos, batch_size, settings=settings, prefix=SETTINGS)
        self.n_batches = len(self._rows(0))

    def _rows(self, epoch: int) -> np.ndarray:
        """(batches, batch_size) int64, checked."""
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, 0]))
        with user_code.blaming(self.sampler, "__call__"):
            rows = np.asarray(self.sampler(epoch, draws))
        is_table = rows.ndim == 2 and rows.shape[1] == self.batch_size and len(rows) and rows.dtype.kind in "iu"
        if not is_table or not 0 <= rows.min() <= rows.max() < self.n_photos:
            values = f" from {rows.min()} to {rows.max()}" if rows.size and rows.dtype.kind in "iuf" else ""
            raise UltronError(
                f"{self.part.place('__call__')}: {self.part.name} must give rows (batches, {self.batch_size}) of "
                f"{self.n_photos} photos, integers from 0; found {rows.dtype} {rows.shape}{values}"
            )
        return rows.astype(np.int64)

    def epoch_rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(batches, batch_size) int64 rows and seeds of an epoch."""
        rows = self._rows(epoch)
        if len(rows) != self.n_batches:
            raise UltronError(
                f"{self.part.place('__call__')}: {self.part.name} must give as many batches in every epoch; found "
                f"{self.n_batches} in epoch 0 and {len(rows)} in epoch {epoch}"
            )
        seeds = np.random.Generator(np.random.PCG64([self.seed, epoch, 1]))
        return rows, seeds.integers(0, 2**62, rows.shape)
