"""Training photos: one folder per landmark, or the photos that a landmark list names (GLDv2, SfM-120k)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.bad_photos import BAD_PHOTOS_FILE, read_bad_photos
from ultron_cli.datasets.folder import list_photos
from ultron_cli.datasets.landmarks.cifar import cifar_photos
from ultron_cli.datasets.landmarks.gldv2 import find_gldv2, open_gldv2
from ultron_cli.datasets.landmarks.lists import LIST_FILE, ListedPaths, open_landmark_list
from ultron_cli.datasets.landmarks.path_table import (
    INDEX_FILE,
    LEAST_TO_CACHE,
    PathTable,
    Texts,
    read_index,
    write_index,
)
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json


@dataclass(frozen=True, kw_only=True)
class LandmarkPhotos:
    """Photo files with their landmark: labels (N,) int64 index landmark_names."""

    folder: Path
    paths: Sequence[Path] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    landmark_names: list[str] = field(repr=False)

    def take(self, rows: np.ndarray) -> "LandmarkPhotos":
        """The photos at `rows`; landmarks without a photo are gone, the others are numbered anew in the same order."""
        paths = self.paths.take(rows) if isinstance(self.paths, PathTable) else [self.paths[int(row)] for row in rows]
        present, labels = np.unique(self.labels[rows], return_inverse=True)
        names = [self.landmark_names[i] for i in present]
        return LandmarkPhotos(folder=self.folder, paths=paths, labels=labels.astype(np.int64), landmark_names=names)

    def relative(self, row: int) -> str:
        """Path of a photo below the folder, with forward slashes."""
        if isinstance(self.paths, PathTable):
            return self.paths.relative[row]
        return os.path.relpath(self.paths[row], self.folder).replace(os.sep, "/")

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the relative paths in order; tells whether a list of photos is the same as before."""
        texts = self.paths.relative if isinstance(self.paths, PathTable) else Texts.of(str(path) for path in self.paths)
        return texts.sha256()


def open_landmark_photos(folder: Path) -> LandmarkPhotos:
    """Reads the list of DIR/landmarks.json or of GLDv2's CSV, else DIR/train/LANDMARK/PHOTO or DIR/LANDMARK/PHOTO.

    CIFAR's published files are unpacked into photos beside them first. Photos in bad_photos.json are left out. Large
    lists are cached in the folder. Raises UltronError if there are fewer than two landmarks.
    """
    folder = cifar_photos(folder) or folder
    cached = read_index(folder / INDEX_FILE)
    if cached is None:
        paths, landmarks, sources = _list_all(folder)
        names = sorted(set(landmarks))
        number = {name: i for i, name in enumerate(names)}
        labels = np.fromiter((number[name] for name in landmarks), np.int64, len(landmarks))
        if len(labels) >= LEAST_TO_CACHE:
            write_index(folder / INDEX_FILE, paths, labels, names, sources)
    else:
        paths, labels, names = cached
    if len(names) < 2:
        raise UltronError(
            f"{paths.folder} has {len(names)} folders with photos; training takes one folder per landmark, two "
            "or more (LANDMARK/PHOTO.jpg)"
        )
    photos = LandmarkPhotos(folder=paths.folder, paths=paths, labels=labels, landmark_names=names)
    return _without_bad(photos, paths, {folder, folder.resolve(), paths.folder.parent})


def _list_all(folder: Path) -> tuple[PathTable, list[str], list[Path]]:
    """The photos of a dataset folder, the landmark of each, and the files and folders that this was read from."""
    listed: tuple[ListedPaths, list[str]] | None = None
    if (folder / LIST_FILE).is_file():
        listed = open_landmark_list(folder)
        sources = [folder / LIST_FILE, folder / read_json(folder / LIST_FILE, "description of a landmark list")["list"]]
    elif (list_file := find_gldv2(folder)) is not None:
        listed, sources = open_gldv2(list_file), [list_file]
    if listed is not None:
        ids, landmarks = listed
        return (
            PathTable(ids.folder, Texts.of(ids.relative(i) for i in range(len(ids)))),
            landmarks,
            [path.absolute() for path in sources],
        )
    root = folder / "train" if (folder / "train").is_dir() else folder
    relative = [name for name in list_photos(root) if "/" in name]
    folders = {"", *(name.rpartition("/")[0] for name in relative)}
    for inner in list(folders):  # a new landmark changes the folder above it
        while inner := inner.rpartition("/")[0]:
            folders.add(inner)
    sources = [(root / inner).absolute() for inner in sorted(folders)]
    return PathTable(root, Texts.of(relative)), [name.rsplit("/", 1)[0] for name in relative], sources


def _without_bad(photos: LandmarkPhotos, paths: PathTable, owners: set[Path]) -> LandmarkPhotos:
    """The photos without those that `ultron datasets verify` found bad."""
    bad: set[str] = set()
    for owner in owners:
        if (owner / BAD_PHOTOS_FILE).is_file():
            bad |= {
                os.path.relpath(path.absolute(), paths.folder.absolute()).replace(os.sep, "/")
                for path in read_bad_photos(owner)
            }
    if not bad:
        return photos
    kept = np.array([i for i, name in enumerate(paths.relative) if name not in bad], np.int64)
    if len(kept) == len(paths):
        return photos
    log.warning("leaving out %s that `ultron datasets verify` found bad", counted(len(paths) - len(kept), "photo"))
    return photos.take(kept)
