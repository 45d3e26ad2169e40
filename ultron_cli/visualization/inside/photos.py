"""Gathers what the pictures of a model's inside need: photos at the model's size, the model, and its name for the
title."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ultron_cli.console import log, progress
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photos import Box, PhotoShape, decode_photo, load_photo
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.visualization.drawing import title_of
from ultron_cli.visualization.inside.matching import (
    Chosen,
    Match,
    local_features,
    match_figure,
    match_map,
    region_feature,
    region_of,
)
from ultron_cli.visualization.scene import Scene, open_view

DRAWN = PhotoShape(max_side_px=640, min_side_px=1)  # a panel is about half as large, in a PDF larger


def numbers(text: str, n: int, flag: str) -> tuple[float, ...]:
    """`3,4.5` as n numbers. Raises UltronError for anything else."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != n or not np.isfinite(values).all():
        wanted = "X,Y" if n == 2 else "X1,Y1,X2,Y2"
        raise UltronError(
            f"{flag} takes {wanted}, {n} numbers with commas between, in pixels of the whole photo; found {text!r}"
        )
    return values


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of a photo, upright."""
    image: Image.Image = decode_photo(path)
    return image.width, image.height


def draw_match(
    scene: Scene,
    row: int,
    k: int,
    protocol: Protocol,
    names: list[str],
    at: tuple[float, ...] | None,
    box: Box | None,
    out: Path,
    device_name: str,
    weights: Path | None,
    layer: str | None = None,
) -> dict[str, Any]:
    """The figure of which places of database photos match a place of a query.

    Returns its path, and per photo the best place in pixels of the whole photo with its cosine. Raises UltronError.
    """
    query = scene.query_photo(row)
    query_path = Path(str(query.path_or_pixels))
    region = region_of(at, box, query.bbx, size_of(query_path))  # type: ignore[arg-type]
    photos = scene.chosen(row, k, protocol, names)
    view = open_view(scene, device_name, weights)
    features = local_features(view.model, view.load(query_path, query.bbx), layer)
    feature = region_feature(features, region)
    matches, found = [], []
    for photo in progress(photos, what="match"):
        path = Path(str(photo.path_or_pixels))
        match = Match(
            photo,
            load_photo(path, None, DRAWN),
            match_map(feature, local_features(view.model, view.load(path, None), layer)),
        )
        matches.append(match)
        (x, y, cosine), (width, height) = match.best, size_of(path)
        place = [round(x * width, 1), round(y * height, 1)]
        found.append(
            {"rank": photo.rank, "name": photo.name, "verdict": photo.verdict, "best_px": place, "cosine": cosine}
        )
    chosen = Chosen(query.name, load_photo(query_path, query.bbx, DRAWN), region, match_map(feature, features))
    title = (
        f"Matches of a {'box' if box else 'point'} of the query: {title_of(scene.model, scene.dataset_name, protocol)}"
    )
    match_figure(chosen, matches, title, out, layer=layer)
    place = ",".join(f"{side:g}" for side in (box or at or ()))
    return {"query": query.name, "place": place, "figure": str(out), "grid": list(features.shape[1:]), "photos": found}


def photo_paths(dataset: Dataset, names: Sequence[str], most: int) -> list[tuple[str, Path]]:
    """(name, file) of the photos named, queries too, or of `most` of the database, evenly spread. Raises UltronError
    for an unknown name."""
    n = len(dataset.database_names)
    chosen = list(names) or [dataset.database_names[i * n // min(most, n)] for i in range(min(most, n))]
    if not names and n > most:
        log.info("taking %d of %d photos, evenly spread; more with --photos", most, n)
    return [(name, dataset.photo_path(name)) for name in chosen]


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
