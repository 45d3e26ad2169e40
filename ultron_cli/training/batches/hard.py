"""Which photos are hard. Either, once: the landmark that each training photo is taken for by the weights that a run
starts from, kept in the run's folder, so that it resumes exactly. Or for every epoch: the photos of other landmarks
nearest to its anchors."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ultron_cli import distributed
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.schema.arrays import read_npy
from ultron_cli.training.batches.mined import MinedBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner

FILE = "hard_examples.npy"


def nearest_landmarks(
    folder: Path,
    config: TrainConfig,
    photos: LandmarkPhotos,
    learner: Learner,
    class_weights: torch.Tensor | None,
    is_new: bool,
) -> np.ndarray | None:
    """(N,) int64, the landmark of the nearest of the (classes, D) class weights, -1 for a photo that cannot be read;
    None if nothing is known.

    A new run works it out, each process a part, and writes it; a resumed one reads it. Raises UltronError if what it
    reads does not fit.
    """
    if not is_new:
        return _read(folder / FILE, photos)
    nearest = None
    if config.tuple_settings and config.tuple_settings.hard_negatives:
        if class_weights is None:
            log.warning(
                "without class weights of these landmarks no negative is known to be hard: all are drawn at random"
            )
        else:
            nearest = _search(photos, learner, class_weights, config)
            n_wrong = int(((nearest != photos.labels) & (nearest >= 0)).sum())
            log.info(
                "hard negatives: %s of %d taken for another landmark by the weights it starts from",
                counted(n_wrong, "photo"),
                len(nearest),
            )
    if distributed.process_index() == 0:
        _write(folder / FILE, nearest)
    distributed.wait_for_processes()
    return nearest


def _search(photos: LandmarkPhotos, learner: Learner, class_weights: torch.Tensor, config: TrainConfig) -> np.ndarray:
    """nearest_landmarks of a new run, by photos of at most side_px, as they are."""
    nearest = torch.full((len(photos.labels),), -1, dtype=torch.int64)
    unit = torch.nn.functional.normalize(class_weights, dim=1)
    n_centres = len(class_weights) // len(photos.landmark_names)
    for rows, descriptors in _described(np.arange(len(photos.labels)), photos, learner, config):
        nearest[rows] = ((descriptors @ unit.T).argmax(1) // n_centres).cpu()
    return distributed.max_over_processes(nearest.to(learner.device)).cpu().numpy()


class HardestNegatives:
    """The nearest photos to each of A anchors, each of another landmark than the anchor's and the others', while photos
    come in parts: it holds A x n of them, whatever their number.

    anchors: (A, D) unit descriptors. labels: (A,) int64 of the anchors.
    """

    def __init__(self, anchors: torch.Tensor, labels: torch.Tensor, n: int) -> None:
        self.anchors = anchors
        self.labels = labels
        self.n = n
        shape, device = (len(anchors), n), anchors.device
        self.scores = torch.full(shape, -math.inf, device=device)  # cosines, descending
        self.rows = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.landmarks = torch.full(shape, -1, dtype=torch.int64, device=device)

    def add(self, descriptors: torch.Tensor, rows: torch.Tensor, landmarks: torch.Tensor) -> None:
        """Takes in (B, D) unit descriptors, and the (B,) rows and labels of their photos."""
        n_anchors = len(self.anchors)
        self.merge(self.anchors @ descriptors.T, rows.expand(n_anchors, -1), landmarks.expand(n_anchors, -1))

    def merge(self, scores: torch.Tensor, rows: torch.Tensor, landmarks: torch.Tensor) -> None:
        """Takes in (A, C) candidates of each anchor, and leaves the best n of different landmarks; of equal ones the
        lower row."""
        scores = scores.masked_fill(landmarks == self.labels[:, None], -math.inf)
        table = [torch.cat([self.rows, rows], 1), torch.cat([self.landmarks, landmarks], 1)]
        scores = torch.cat([self.scores, scores], 1)
        order = table[0].argsort(dim=1, stable=True)
        order = order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
        scores, rows, landmarks = (values.gather(1, order) for values in (scores, *table))
        is_same = landmarks[:, :, None] == landmarks[:, None, :]
        is_second = is_same.tril(-1).any(2)  # a better photo of its landmark stands before it
        scores = scores.masked_fill(is_second, -math.inf)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, : self.n]
        self.scores, self.rows, self.landmarks = (values.gather(1, best) for values in (scores, rows, landmarks))


@torch.no_grad()
def mine_negatives(
    batches: MinedBatches, epoch: int, photos: LandmarkPhotos, learner: Learner, config: TrainConfig
) -> np.ndarray:
    """(A, n) int64 rows of the hardest negatives of an epoch's anchors by the present weights, nearest first, each
    process searching a part of the photos. Raises UltronError if there are too few that can be read.

    In memory are the descriptors of the anchors alone; those of the photos come and go batch by batch.
    """
    settings = config.loss_settings.of_batches
    started_s = time.perf_counter()
    anchor_rows = batches.pairs(epoch)[:, 0]
    distinct, place = np.unique(anchor_rows, return_inverse=True)
    labels = torch.from_numpy(photos.labels).to(learner.device)
    described = torch.zeros(len(distinct), learner.model.descriptor_dim, device=learner.device)
    for rows, descriptors in _described(distinct, photos, learner, config):
        described[torch.from_numpy(np.searchsorted(distinct, rows)).to(learner.device)] = descriptors
    anchors = distributed.sum_over_processes(described)[torch.from_numpy(place).to(learner.device)]
    hardest = HardestNegatives(anchors, labels[torch.from_numpy(anchor_rows).to(learner.device)], batches.n_negatives)
    pool = batches.pool(epoch, settings.pool if settings else None)
    for rows, descriptors in _described(pool, photos, learner, config):
        row_numbers = torch.from_numpy(rows).to(learner.device)
        hardest.add(descriptors, row_numbers, labels[row_numbers])
    if distributed.n_processes() > 1:
        parts = [distributed.gather_rows(values[None]) for values in (hardest.scores, hardest.rows, hardest.landmarks)]
        for scores, part_rows, landmarks in list(zip(*parts, strict=True)):
            hardest.merge(scores, part_rows, landmarks)
    if not bool(hardest.scores.isfinite().all()):
        raise UltronError(
            f"too few photos of other landmarks can be read for {batches.n_negatives} negatives; find those that are "
            "bad with `ultron datasets verify`, or use a smaller loss.negatives"
        )
    log.info(
        "hard negatives of epoch %d: of %s, cosine %.3f to their anchors in the mean, %.0f s",
        epoch + 1,
        counted(len(pool), "photo"),
        hardest.scores.mean().item(),
        time.perf_counter() - started_s,
    )
    return hardest.rows.cpu().numpy()


def _described(
    rows: np.ndarray, photos: LandmarkPhotos, learner: Learner, config: TrainConfig
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """This process's part of `rows`, with their (B, D) unit descriptors by the present weights, of photos of at most
    side_px, as they are."""
    local_rows = rows[distributed.process_index() :: distributed.n_processes()]
    with learner.best_weights() as model:
        reader = learner.reader(photos.take(local_rows), "the search for hard negatives")
        for places, descriptors in reader.described(model, learner.device):
            yield local_rows[places], descriptors


def _write(path: Path, nearest: np.ndarray | None) -> None:
    with whole_file(path) as output:
        np.save(output, np.empty(0, np.int64) if nearest is None else nearest)


def _read(path: Path, photos: LandmarkPhotos) -> np.ndarray | None:
    nearest = read_npy(path, "nearest landmarks", "int64", advice="the run draws its batches by them: start a new run")
    if nearest.size and nearest.shape != photos.labels.shape:
        raise UltronError(
            f"{path} must hold {len(photos.labels)} whole numbers, found shape {nearest.shape}; start a new run"
        )
    return nearest if nearest.size else None
