"""Training photos: one folder per landmark, or the photos that a landmark list names (GLDv2, SfM-120k).

Another way to lay them out is a function from the folder to a Listing and one line in LAYOUTS.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.bad_photos import BAD_PHOTOS_FILE, read_bad_photos
from ultron_cli.datasets.folder import list_photos
from ultron_cli.datasets.landmarks.cifar import cifar_photos
from ultron_cli.datasets.landmarks.lists import LandmarkList, find_landmark_list
from ultron_cli.datasets.landmarks.path_table import (
    LEAST_TO_CACHE,
    TABLE_FILE,
    PathTable,
    Texts,
    read_table,
    write_table,
)
from ultron_cli.datasets.photos import require_photo
from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class LandmarkPhotos:
    """Photo files with their landmark."""

    folder: Path
    paths: Sequence[Path] = field(repr=False)
    labels: np.ndarray = field(repr=False)  # (N,) int64, place of each photo's landmark in landmark_names
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


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The photos of a dataset folder, as its layout tells them."""

    paths: PathTable = field(repr=False)
    landmarks: list[str] = field(repr=False)  # of each photo
    sources: list[Path]  # absolute: the files and folders that this was read from; a change of one means to list again


def open_landmark_photos(folder: Path) -> LandmarkPhotos:
    """Lists the training photos of a dataset folder in the first of LAYOUTS that it has.

    Published files that are no photos (UNPACKERS) are unpacked beside themselves first. Photos in bad_photos.json are
    left out. Large lists are cached in the folder. Raises UltronError if there are fewer than two landmarks.
    """
    folder = next((photos for unpack in UNPACKERS.values() if (photos := unpack(folder)) is not None), folder)
    cached = read_table(folder / TABLE_FILE)
    if cached is None:
        listing = next(listing for layout in LAYOUTS.values() if (listing := layout(folder)) is not None)
        paths = listing.paths
        names = sorted(set(listing.landmarks))
        number = {name: i for i, name in enumerate(names)}
        labels = np.fromiter((number[name] for name in listing.landmarks), np.int64, len(listing.landmarks))
        if len(labels) >= LEAST_TO_CACHE:
            write_table(folder / TABLE_FILE, paths, labels, names, listing.sources)
    else:
        paths, labels, names = cached
    if len(names) < 2:
        raise UltronError(
            f"{paths.folder} has {len(names)} folders with photos; training takes one folder per landmark, two "
            "or more (LANDMARK/PHOTO.jpg)"
        )
    photos = LandmarkPhotos(folder=paths.folder, paths=paths, labels=labels, landmark_names=names)
    return _without_bad(photos, paths, {folder, folder.resolve(), paths.folder.parent})


def photos_by_landmark(paths: Mapping[str, Sequence[str | Path]]) -> LandmarkPhotos:
    """Photos that a program names: landmark -> paths. Raises UltronError if there are fewer than two landmarks, or a
    photo is not there."""
    names = sorted(name for name, photos in paths.items() if len(photos))
    files = [Path(path).absolute() for name in names for path in paths[name]]
    if len(names) < 2:
        raise UltronError(f"training takes photos of two landmarks or more; found {len(names)}")
    for path in files:
        require_photo(path)
    labels = np.repeat(np.arange(len(names)), [len(paths[name]) for name in names])
    folder = Path(os.path.commonpath({path.parent for path in files}))
    return LandmarkPhotos(folder=folder, paths=files, labels=labels, landmark_names=names)


def _listed(folder: Path) -> Listing | None:
    """DIR/landmarks.json and the list that it names, or DIR/train_clean.csv or DIR/train.csv, as Google Landmarks v2 is
    published."""
    landmark_list = find_landmark_list(folder)
    return _listing(landmark_list) if landmark_list is not None else None


def _listing(landmark_list: LandmarkList) -> Listing:
    paths = landmark_list.paths
    return Listing(
        paths=PathTable(paths.folder, Texts.of(paths.relative(i) for i in range(len(paths)))),
        landmarks=landmark_list.landmarks,
        sources=[path.absolute() for path in landmark_list.sources],
    )


def _folder_per_landmark(folder: Path) -> Listing:
    """DIR/train/LANDMARK/PHOTO or DIR/LANDMARK/PHOTO; photos outside a folder are left out."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    relative = [name for name in list_photos(root) if "/" in name]
    folders = {"", *(name.rpartition("/")[0] for name in relative)}
    for inner in list(folders):  # a new landmark changes the folder above it
        while inner := inner.rpartition("/")[0]:
            folders.add(inner)
    return Listing(
        paths=PathTable(root, Texts.of(relative)),
        landmarks=[name.rsplit("/", 1)[0] for name in relative],
        sources=[(root / inner).absolute() for inner in sorted(folders)],
    )


def _without_bad(photos: LandmarkPhotos, paths: PathTable, dataset_folders: set[Path]) -> LandmarkPhotos:
    """The photos without those that `ultron datasets verify` found bad in any of the dataset folders."""
    bad: set[str] = set()
    for dataset_folder in dataset_folders:
        if (dataset_folder / BAD_PHOTOS_FILE).is_file():
            bad |= {
                os.path.relpath(path.absolute(), paths.folder.absolute()).replace(os.sep, "/")
                for path in read_bad_photos(dataset_folder)
            }
    if not bad:
        return photos
    sound_rows = np.array([i for i, name in enumerate(paths.relative) if name not in bad], np.int64)
    n_bad = len(paths) - len(sound_rows)
    if not n_bad:
        return photos
    log.warning("leaving out %s that `ultron datasets verify` found bad", counted(n_bad, "photo"))
    return photos.take(sound_rows)


# Published files -> the folder of photos that is made of them, or None where the dataset folder holds none of them.
UNPACKERS: dict[str, Callable[[Path], Path | None]] = {"cifar": cifar_photos}
# Layout -> the photos of a folder that has it, or None; the first one that a folder has counts.
LAYOUTS: dict[str, Callable[[Path], Listing | None]] = {
    "listed": _listed,
    "folder per landmark": _folder_per_landmark,
}
