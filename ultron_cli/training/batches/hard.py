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
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.validation import RetrievalValidation

FILE = "hard_examples.npy"


def hard_examples(
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
    if is_new:
        known = None
        if config.loss.get("hard_negatives", True):
            if class_weights is None:
                log.warning(
                    "without class weights of these landmarks no negative is known to be hard: all are drawn at random"
                )
            else:
                known = taken_for(photos, learner, class_weights, config)
                n_wrong = int(((known != photos.labels) & (known >= 0)).sum())
                log.info(
                    "hard negatives: %s of %d taken for another landmark by the weights it starts from",
                    counted(n_wrong, "photo"),
                    len(known),
                )
        if distributed.process_index() == 0:
            _write(folder / FILE, known)
        distributed.wait_for_processes()
        return known
    return _read(folder / FILE, photos)


def taken_for(photos: LandmarkPhotos, learner: Learner, class_weights: torch.Tensor, config: TrainConfig) -> np.ndarray:
    """(N,) int64, by photos of at most side_px, as they are."""
    own_rows = np.arange(distributed.process_index(), len(photos.labels), distributed.n_processes())
    nearest = torch.full((len(photos.labels),), -1, dtype=torch.int64)
    unit = torch.nn.functional.normalize(class_weights, dim=1)
    with learner.best_weights() as model:
        part = RetrievalValidation(
            photos.take(own_rows), config.side_px, config.workers, what="the search for hard negatives"
        )
        for rows, descriptors in part.described(model, learner.device):
            nearest[own_rows[rows]] = ((descriptors @ unit.T).argmax(1) // learner.loss.n_centres).cpu()
    return distributed.max_over_processes(nearest.to(learner.device)).cpu().numpy()


def _write(path: Path, known: np.ndarray | None) -> None:
    with whole_file(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, np.empty(0, np.int64) if known is None else known)


def _read(path: Path, photos: LandmarkPhotos) -> np.ndarray | None:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UltronError(
            f"{path} is gone or damaged ({error}), and the run draws its batches by it; start a new run"
        ) from error
    if len(known) and (known.shape != photos.labels.shape or known.dtype != np.int64):
        raise UltronError(
            f"{path} must hold {len(photos.labels)} whole numbers, found {known.dtype} of shape {known.shape}; "
            "start a new run"
        )
    return known if len(known) else None
