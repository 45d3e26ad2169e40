"""Retrieval among held-out photos during training: each searches the others, those of its landmark are right."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photos import PhotoReader, PhotoShape, batches_by_shape, read_photos
from ultron_cli.evaluation.metrics import average_precision
from ultron_cli.models.core import RetrievalModel, normalise_images

BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """How well held-out photos find each other."""

    mAP: float  # 0..1, over the queries that have a second photo of their landmark; NaN without such
    n_queries: int
    n_photos: int


def retrieval_map(descriptors: np.ndarray, labels: np.ndarray) -> ValidationResult:
    """(N, D) unit descriptors and (N,) labels -> mAP by the trapezoid rule, every photo a query to the N - 1 others;
    ties by row."""
    scores = descriptors.astype(np.float32) @ descriptors.astype(np.float32).T
    np.fill_diagonal(scores, -np.inf)  # a photo finds itself last, where it is no answer
    order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
    is_right = labels[order] == labels[:, None]
    values = [average_precision(np.flatnonzero(row), int(row.sum())) for row in is_right if row.any()]
    return ValidationResult(
        mAP=float(np.mean(values)) if values else float("nan"), n_queries=len(values), n_photos=len(labels)
    )


def choose_photos(photos: LandmarkPhotos, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most about `most` of `rows`: whole landmarks with two or more photos, drawn by the seed."""
    labels = photos.labels[rows]
    landmarks, sizes = np.unique(labels, return_counts=True)
    order = np.random.Generator(np.random.PCG64([seed, 1])).permutation(np.flatnonzero(sizes >= 2))
    n_taken = max(2, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))
    return rows[np.isin(labels, landmarks[order[:n_taken]])]


class UnreadablePhotos:
    """The photos that no round of a validation could read; of new ones it is said once, with their number."""

    def __init__(self) -> None:
        self._rows: set[int] = set()
        self._new_problems: list[str] = []

    def add(self, row: int, problem: str) -> None:
        """Notes a photo. problem: why it cannot be read, and after a semicolon what to do."""
        if row not in self._rows:
            self._rows.add(row)
            self._new_problems.append(problem.split("; ")[0])

    def warn(self, what: str, folder: Path) -> None:
        """Says how many there are since the last time, and the first. what: becomes of them; folder: of the photos."""
        if self._new_problems:
            log.warning(
                "%s: %s that cannot be read (%s); `ultron datasets verify %s` lists such photos",
                what,
                counted(len(self._new_problems), "photo"),
                self._new_problems[0],
                folder,
            )
            self._new_problems.clear()


class RetrievalValidation:
    """The held-out photos of a run, scored again and again. A photo that cannot be read is left out and said once."""

    def __init__(self, photos: LandmarkPhotos, side_px: int, n_workers: int, what: str = "validation") -> None:
        self.photos = photos
        self.side_px = side_px
        self.n_workers = n_workers
        self.what = what
        self._unreadable = UnreadablePhotos()

    def run(self, model: RetrievalModel, device: torch.device, unit_norm: bool = True) -> ValidationResult:
        """Scores a model in evaluation mode; the random state stays as it was. unit_norm: as of the model's forward."""
        rows: list[int] = []
        parts: list[np.ndarray] = []
        for batch_rows, descriptors in self.described(model, device, unit_norm):
            parts.append(descriptors.cpu().numpy())
            rows += batch_rows
        if not rows:
            return ValidationResult(mAP=float("nan"), n_queries=0, n_photos=0)
        order = np.argsort(rows)
        return retrieval_map(np.concatenate(parts)[order], self.photos.labels[np.array(rows)[order]])

    def described(
        self, model: RetrievalModel, device: torch.device, unit_norm: bool = True
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Rows and their (B, D) float32 descriptors on the device, batch by batch, in any order; those that cannot be
        read are left out."""
        shape = PhotoShape(
            max_side_px=self.side_px, interpolation=model.preprocessing.interpolation, min_side_px=model.min_side_px
        )
        n = len(self.photos.paths)
        reader = PhotoReader(list(range(n)), [self.photos.paths[i] for i in range(n)], [None] * n, shape)
        with torch.random.fork_rng(devices=[]):
            for batch in batches_by_shape(read_photos(reader, self.n_workers), BATCH_SIZE, 8 * BATCH_SIZE):
                if batch[0].pixels is None:
                    self._unreadable.add(batch[0].row, batch[0].problem)
                    continue
                pixels = torch.stack([photo.pixels for photo in batch if photo.pixels is not None]).to(device)
                with torch.inference_mode():
                    images = normalise_images(pixels, model.preprocessing)
                    descriptors = model(images, unit_norm=unit_norm).float()
                yield [photo.row for photo in batch], descriptors
        self._unreadable.warn(f"left out of {self.what}", self.photos.folder)
