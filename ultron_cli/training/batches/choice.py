"""Which kind of batches a run's loss works on."""

from ultron_cli import distributed
from ultron_cli.console import counted
from ultron_cli.datasets.landmarks.aspects import photo_aspects
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.training.batches.draws import EpochBatches, shape_groups
from ultron_cli.training.batches.landmarks import LandmarkBatches
from ultron_cli.training.batches.mined import MinedBatches
from ultron_cli.training.batches.of_users import UserBatches
from ultron_cli.training.batches.tuples import TupleBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.user_code import is_import_path


def make_batches(config: TrainConfig, photos: LandmarkPhotos) -> EpochBatches:
    """A user's batches if they are named, batches of tuples or landmarks for a loss that works on them, else photos in
    any order, in groups of one shape if asked.

    Raises UltronError if the photos fill no batch, or a batch cannot be divided evenly.
    """
    _require_whole_groups(config, photos)
    labels = photos.labels
    plan = (config.batch_size, config.seed, config.epochs)
    processes = (distributed.process_index(), distributed.n_processes())
    settings = config.loss_settings
    if is_import_path(settings.batches):
        return UserBatches(photos, *plan, settings.batches, settings.batches_settings or {}, *processes)
    if settings.of_tuples:
        return TupleBatches(labels, *plan, settings.of_tuples.tuple_size, *processes)
    if settings.of_batches and settings.of_batches.batches == "mined":
        return MinedBatches(labels, *plan, settings.of_batches.negatives, settings.of_batches.anchors, *processes)
    if settings.of_batches:
        return LandmarkBatches(labels, *plan, settings.of_batches.per_landmark, *processes, config.accumulate)
    groups = shape_groups(photo_aspects(photos)) if config.group_sizes else None
    return EpochBatches(len(labels), *plan, groups, *processes)


def _require_whole_groups(config: TrainConfig, photos: LandmarkPhotos) -> None:
    n_photos = len(photos.labels)
    batch_size = config.batch_size
    if n_photos < batch_size:
        raise UltronError(
            f"{photos.folder} has {counted(n_photos, 'photo')}, fewer than a batch of {batch_size}; use "
            f"`batch_size={max(2, n_photos // 2)}`"
        )
    settings = config.loss_settings
    n_parts = config.accumulate * distributed.n_processes() * settings.photos_together
    if batch_size % n_parts:
        together = f" x {settings.together_text}" if settings.together_text else ""
        raise UltronError(
            f"batch_size must be a multiple of processes x accumulate{together} = {n_parts}; found "
            f"{batch_size}; use `batch_size={batch_size // n_parts * n_parts or n_parts}`"
        )
