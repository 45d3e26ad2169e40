"""What the pictures of a model's inside need: photos at the model's size, places on them, its name for the title."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ultron_cli.console import log, progress
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import LoadedModel


def _numbers(text: str, form: str, flag: str) -> list[float]:
    """`3,4.5` as numbers, as many as form has (`X,Y`). Raises UltronError for anything else."""
    n = form.count(",") + 1
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != n or not np.isfinite(values).all():
        raise UltronError(
            f"{flag} takes {form}, {n} numbers with commas between, in pixels of the whole photo; found {text!r}"
        )
    return values


def point_of(text: str, flag: str) -> tuple[float, float]:
    """A point from the command line. Raises UltronError for anything but `X,Y`."""
    x, y = _numbers(text, "X,Y", flag)
    return x, y


def box_of(text: str, flag: str) -> Box:
    """A box from the command line. Raises UltronError for anything but `X1,Y1,X2,Y2`."""
    x1, y1, x2, y2 = _numbers(text, "X1,Y1,X2,Y2", flag)
    return x1, y1, x2, y2


def photo_paths(dataset: Dataset, names: Sequence[str], most: int) -> list[tuple[str, Path]]:
    """(name, file) of the photos named, queries too, or of `most` of the database, evenly spread. Raises UltronError
    for an unknown name."""
    n = len(dataset.database_names)
    if not names and n > most:
        log.info("taking %d of %d photos, evenly spread; more with `photos`", most, n)
    spread_names = [dataset.database_names[i * n // min(most, n)] for i in range(min(most, n))]
    return [(name, dataset.photo_path(name)) for name in names or spread_names]


def load_photos(
    model: RetrievalModel, photos: Sequence[tuple[str, Path]], max_side_px: int, what: str
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (H, W, 3) uint8) of each photo, its longest side at most max_side_px."""
    shape = PhotoShape(
        max_side_px=max_side_px,
        resize="down",
        interpolation=model.preprocessing.interpolation,
        min_side_px=model.min_side_px,
    )
    for name, path in progress(photos, what=what):
        yield name, load_photo(path, None, shape)


def model_title(loaded: LoadedModel) -> str:
    """`ultron-t`, with a word where its weights are random."""
    return f"untrained {loaded.model.label}" if loaded.source.get("kind") == "untrained" else loaded.model.label
