"""Searching for photos by path: described by the model that made the database, then searched as stored queries are."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ultron_cli.datasets.photo_marks import PhotoMarks, read_with_mark
from ultron_cli.datasets.photos import require_photo
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.machine import resolve_device
from ultron_cli.retrieval.descriptors import Crop, DescriptorFile, DescriptorInfo, Descriptors
from ultron_cli.retrieval.extraction.describe import Describer
from ultron_cli.retrieval.local_features.detection import Detection
from ultron_cli.retrieval.local_features.files import LocalFeatureFile
from ultron_cli.retrieval.local_features.source import LocalSource
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.searching import (
    PLAIN,
    Searcher,
    SearchOptions,
    open_database,
    open_index_of,
    origin_of,
    whitening_for,
)
from ultron_cli.retrieval.whitening import stored_whitening


def search_photos(
    photos: Sequence[Path],
    database: Path | Descriptors,
    k: int | None,
    device_name: str,
    *,
    bbx: Box | None = None,
    weights: Path | None = None,
    options: SearchOptions = PLAIN,
) -> Ranking:
    """Searches for photos by path, described by the model, scales, size and whitening that made the database.

    bbx: part of the photo to search for, pixels of the upright photo (one photo only). weights: the model's, if they
    have moved. k: None ranks the whole database.
    """
    for path in photos:
        require_photo(path)  # before the seconds in which a model is loaded
    index = open_index_of(options)
    requested = whitening_for(index, options)
    with contextlib.ExitStack() as files:
        if isinstance(database, Path):
            with DescriptorFile(database) as raw:
                stored = stored_whitening(raw.info, requested)
            database = files.enter_context(open_database(database, options, None if stored else requested))
        else:
            stored = stored_whitening(database.info, requested)
        device = resolve_device(device_name)
        describer = describer_of(database.info, device, crop="bbx" if bbx else "none", weights_path=weights)
        described = [read_with_mark(path, partial(describer.describe_photo, path, bbx)) for path in photos]
        descriptors = np.stack([descriptor for descriptor, _ in described])
        whitening = stored or requested
        searcher = Searcher(database, index, str(device))
        names = [str(path) for path in photos]
        detect = partial(_detected, photos, bbx)
        local = LocalSource.of_photos(names, detect, database, options.local_features)
        queries = whitening.apply(descriptors) if whitening else descriptors
        ranked, record = searcher.search(queries, k, options.steps, local)
        return Ranking(
            query_names=names,
            database_names=searcher.names,
            rows=ranked.rows,
            scores=ranked.scores,
            inliers=ranked.inliers,
            origin=replace(origin_of(database.info), search=replace(record, query_box=bbx)),
            query_marks=PhotoMarks.of([mark for _, mark in described]),
            database_marks=database.marks,
        )


def _detected(photos: Sequence[Path], bbx: Box | None, file: LocalFeatureFile) -> list[LocalFeatures]:
    """The local features of photos, found as those of a file were."""
    detection = Detection.like(file)
    return [detection.of_photo(path, bbx) for path in photos]


def describer_of(
    info: DescriptorInfo, device: torch.device, *, crop: Crop = "none", weights_path: Path | None = None
) -> Describer:
    """The model that made a database, ready to describe queries. Raises UltronError if its weights are gone, or nobody
    recorded which it was."""
    if not info.extraction or info.extraction.imported:
        raise UltronError(
            "these descriptors do not say which network made them; describe the photos with it, and search with their "
            "descriptors"
        )
    return Describer.reopened(
        info.extraction,
        info.provenance.weights,
        info.weights_sha256,
        device,
        weights_path=weights_path,
        scales=tuple(info.scales),
        role="query",
        crop=crop,
    )
