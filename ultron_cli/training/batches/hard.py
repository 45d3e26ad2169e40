"""Which landmark each training photo is taken for by the weights that a run starts from; kept in the run's folder, so
that it resumes exactly."""

from pathlib import Path

import numpy as np
import torch

from ultron_cli import distributed
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.schema.arrays import read_npy
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.validation import RetrievalValidation

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
    local_rows = np.arange(distributed.process_index(), len(photos.labels), distributed.n_processes())
    nearest = torch.full((len(photos.labels),), -1, dtype=torch.int64)
    unit = torch.nn.functional.normalize(class_weights, dim=1)
    n_centres = len(class_weights) // len(photos.landmark_names)
    with learner.best_weights() as model:
        validation = RetrievalValidation(
            photos.take(local_rows), config.side_px, config.workers, what="the search for hard negatives"
        )
        for rows, descriptors in validation.described(model, learner.device):
            nearest[local_rows[rows]] = ((descriptors @ unit.T).argmax(1) // n_centres).cpu()
    return distributed.max_over_processes(nearest.to(learner.device)).cpu().numpy()


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
