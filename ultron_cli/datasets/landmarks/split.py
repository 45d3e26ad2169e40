"""Decides which landmark photos are trained on, which are held out, and which are kept out by lists."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.exclusions import read_exclusions
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import read_json


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which photos are trained on and which are held out, and how they were chosen."""

    train_rows: np.ndarray = field(repr=False)  # int64, ascending
    held_out_rows: np.ndarray = field(repr=False)  # int64, ascending
    by: Literal["landmarks", "photos"]
    share: float  # asked to be held out, 0 to 1
    seed: int


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """What one exclusion list kept out. The fields are the keys of an entry of `excluded` in split.json."""

    list: str  # the path of the list, as it was given
    entries: int
    landmarks: int  # kept out whole
    photos: int  # kept out that no earlier list had
    unmatched: int  # entries that name nothing in this dataset


def split_photos(labels: np.ndarray, share: float, by: Literal["landmarks", "photos"], seed: int) -> Split:
    """Holds out a share of the landmarks, or of the photos so that each landmark keeps one.

    labels: (N,) int64. Landmarks are held out only if two or more are on either side. The same seed and labels give the
    same split on every machine.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    landmarks, sizes = np.unique(labels, return_counts=True)
    is_held_out = np.zeros(len(labels), bool)
    if by == "landmarks":
        held_out_landmarks = draws.permutation(landmarks)[: round(share * len(landmarks))]
        if 2 <= len(held_out_landmarks) <= len(landmarks) - 2:
            is_held_out = np.isin(labels, held_out_landmarks)
    else:
        order = draws.permutation(len(labels))
        is_held_out[order[: round(share * len(labels))]] = True
        n_held_out = np.bincount(np.searchsorted(landmarks, labels[is_held_out]), minlength=len(landmarks))
        _, first_rows = np.unique(labels, return_index=True)
        is_held_out[first_rows[n_held_out == sizes]] = False
    return Split(
        train_rows=np.flatnonzero(~is_held_out),
        held_out_rows=np.flatnonzero(is_held_out),
        by=by,
        share=share,
        seed=seed,
    )


def write_split(path: Path, split: Split, photos: LandmarkPhotos, excluded: Sequence[Exclusion]) -> None:
    """Stores the split: counts, the hash of the list of photos, and the held-out landmarks or photos by name."""
    names: dict[str, list[str]] = {}
    if split.by == "landmarks":
        names["held_out_landmarks"] = [photos.landmark_names[i] for i in np.unique(photos.labels[split.held_out_rows])]
    else:
        names["held_out_photos"] = [photos.relative(int(row)) for row in split.held_out_rows]
    content = {
        "by": split.by,
        "share": split.share,
        "seed": split.seed,
        "photos_sha256": photos.sha256(),
        "n_train": len(split.train_rows),
        "n_held_out": len(split.held_out_rows),
        "excluded": [asdict(exclusion) for exclusion in excluded],
        **names,
    }
    write_text(path, json.dumps(content, indent=1))


@dataclass(frozen=True, kw_only=True)
class _StoredSplit:
    """split.json, as far as it is read."""

    photos_sha256: str


def require_same_photos(path: Path, photos: LandmarkPhotos) -> None:
    """Raises UltronError if the photos are no longer those that the stored split was made of."""
    stored = read_json(path, "split of the run", _StoredSplit, advice="start a new run", most_bytes=MOST_LIST_BYTES)
    if stored.photos_sha256 != photos.sha256():
        raise UltronError(
            f"the photos of {photos.folder} are no longer those that {path.parent} was started with; restore "
            "them, or start a new run"
        )


def exclude_photos(photos: LandmarkPhotos, lists: Sequence[str]) -> tuple[LandmarkPhotos, list[Exclusion]]:
    """The photos without the listed landmarks and photos, and what each list kept out. Raises UltronError if none are
    left."""
    is_left = np.ones(len(photos.labels), bool)
    exclusions = []
    for list_path in lists:
        entries = read_exclusions(Path(list_path).expanduser())
        is_listed, unmatched = _match(photos, entries)
        exclusion = Exclusion(
            list=str(list_path),
            entries=len(entries),
            landmarks=sum(landmark in entries for landmark in photos.landmark_names),
            photos=int((is_listed & is_left).sum()),
            unmatched=len(unmatched),
        )
        exclusions.append(exclusion)
        log.info(
            "%s: %s of %s and %s kept out of training; %d of %s are not in this dataset",
            list_path,
            counted(exclusion.photos, "photo"),
            counted(exclusion.landmarks, "landmark"),
            "single photos",
            exclusion.unmatched,
            counted(exclusion.entries, "entry", "entries"),
        )
        is_left &= ~is_listed
    if not is_left.any():
        raise UltronError(f"the exclusion lists leave none of {counted(len(is_left), 'photo')}; check `exclude`")
    return (photos, exclusions) if is_left.all() else (photos.take(np.flatnonzero(is_left)), exclusions)


def _match(photos: LandmarkPhotos, entries: set[str]) -> tuple[np.ndarray, set[str]]:
    """(N,) bool, whether an entry names a photo or its landmark, and the entries that name nothing.

    A photo goes by its relative path, its file name, and that without suffix.
    """
    matched = {landmark for landmark in photos.landmark_names if landmark in entries}
    is_listed = np.array([landmark in entries for landmark in photos.landmark_names])[photos.labels]
    photo_entries = entries - matched
    for row in np.flatnonzero(~is_listed) if photo_entries else ():
        relative = photos.relative(int(row))
        file_name = relative.rpartition("/")[2]
        names = {relative, file_name, file_name.rpartition(".")[0] or file_name} & photo_entries
        if names:
            is_listed[row] = True
            matched |= names
    return is_listed, entries - matched
