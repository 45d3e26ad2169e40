"""Stored descriptors to train on: the photos that a descriptor file is of, with their landmarks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.label_tables import Spelled, read_labels, spellings
from ultron_cli.datasets.landmarks.path_table import PathTable, Texts
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.checkpoints import SOURCES, FrozenBase
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, Descriptors

NAME_LABELS = "name a CSV of photo,landmark with `labels`"


@dataclass(frozen=True, kw_only=True)
class DescribedPhotos(LandmarkPhotos):
    """Photos of a descriptor file with their landmarks; `paths` are what their names stand for."""

    source: Descriptors = field(repr=False)
    rows: np.ndarray = field(repr=False)  # (N,) int64, of the photos in `source`

    def take(self, rows: np.ndarray) -> "DescribedPhotos":
        photos = super().take(rows)
        return DescribedPhotos(
            folder=photos.folder,
            paths=photos.paths,
            labels=photos.labels,
            landmark_names=photos.landmark_names,
            source=self.source,
            rows=self.rows[rows],
        )

    def descriptors(self, rows: np.ndarray | slice) -> np.ndarray:
        """(n, D) float32 unit descriptors of the photos at `rows`."""
        return self.source.take(self.rows[rows])


class DescribedRows(Descriptors):
    """The descriptors of some photos, as descriptors by themselves."""

    def __init__(self, photos: DescribedPhotos) -> None:
        self.photos = photos
        self.label = photos.source.label
        self.info = photos.source.info
        self.n, self.dim = len(photos.rows), photos.source.dim

    @property
    def names(self) -> list[str]:
        return [self.photos.relative(row) for row in range(self.n)]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.photos.descriptors(slice(start, stop))

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.photos.descriptors(rows)


def open_described(path: Path, labels: Path | None) -> DescribedPhotos:
    """The photos of a descriptor file that have a landmark: by a CSV of photo,landmark, or without one as the dataset
    that was described has them.

    Raises UltronError if the file does not hold what a network alone gave, the dataset is gone, or the photos are of
    fewer than two landmarks.
    """
    source = DescriptorFile(path)
    base_of(source.info, path)
    names = source.names
    landmarks = _landmarks_of_table(names, labels) if labels else _landmarks_of_dataset(names, source.info, path)
    rows = np.array([row for row, landmark in enumerate(landmarks) if landmark], np.int64)
    landmark_names = sorted({landmarks[row] for row in rows})
    if len(landmark_names) < 2:
        raise UltronError(
            f"{path}: {counted(len(rows), 'photo')} of {len(names):,} with {counted(len(landmark_names), 'landmark')}; "
            f"training takes two landmarks or more; {NAME_LABELS}"
        )
    if len(rows) < len(names):
        log.warning("%s of %s without a landmark, and left out", counted(len(names) - len(rows), "photo"), path)
    number = {name: i for i, name in enumerate(landmark_names)}
    return DescribedPhotos(
        folder=Path(source.info.provenance.dataset_folder or path.parent),
        paths=PathTable(Path(), Texts.of(names[row] for row in rows)),
        labels=np.fromiter((number[landmarks[row]] for row in rows), np.int64, len(rows)),
        landmark_names=landmark_names,
        source=source,
        rows=rows,
    )


def base_of(info: DescriptorInfo, path: Path) -> FrozenBase:
    """The network that made the descriptors. Raises UltronError if they are not what a network alone gave, or nobody
    could load it again."""
    extraction = info.extraction
    kind = info.provenance.weights.kind if info.provenance.weights else None
    if extraction.model_name is None or kind not in SOURCES:
        place = "was in a program's memory" if extraction.model_name else "is not recorded"
        raise UltronError(
            f"{path}: the network that made these descriptors {place}, and a head needs it at extraction; extract them "
            "with a network that has a file"
        )
    if extraction.whitening:
        raise UltronError(
            f"{path} is whitened ({extraction.whitening}), and a head stands on the network itself; name the raw "
            "descriptors"
        )
    assert info.provenance.weights is not None
    return FrozenBase(
        label=info.model,
        model=cast(dict[str, object], extraction.stored["model"]),
        extraction=dict(extraction.stored),
        weights=dict(info.provenance.weights.stored),
        weights_sha256=info.weights_sha256,
    )


def _landmarks_of_table(names: Sequence[str], labels: Path) -> list[str]:
    """The landmark of each photo; empty where the table has none."""
    landmark_of = {
        label.photo: label.landmark for label in read_labels(labels, Spelled(spellings(names), may_lack=True))
    }
    return [landmark_of.get(name, "") for name in names]


def _landmarks_of_dataset(names: Sequence[str], info: DescriptorInfo, path: Path) -> list[str]:
    """The landmark of each photo in the dataset that was described; empty where it has none."""
    recorded = info.provenance.dataset_folder
    if recorded is None or not os.path.isdir(recorded):
        raise UltronError(f"{path}: the photos, whose folders say their landmarks, were in {recorded}; {NAME_LABELS}")
    photos = open_landmark_photos(Path(recorded))
    landmark_of = {photos.relative(row): photos.landmark_names[label] for row, label in enumerate(photos.labels)}
    photo_folder = Dataset(name="", folder=Path(recorded)).photo_folder.resolve()
    # Names are paths below one folder, landmarks' paths below another, which may lie in it.
    inner = os.path.relpath(photos.folder.resolve(), photo_folder).replace(os.sep, "/")
    if inner == ".":
        return [landmark_of.get(name, "") for name in names]
    if inner == ".." or inner.startswith("../"):
        outer = os.path.relpath(photo_folder, photos.folder.resolve()).replace(os.sep, "/")
        return [landmark_of.get(f"{outer}/{name}", "") for name in names]
    return [landmark_of.get(name.removeprefix(f"{inner}/"), "") for name in names]
