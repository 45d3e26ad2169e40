"""Which landmark photos are trained on, which are held out, and which are kept out by lists."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json, write_text

COLUMNS = ("landmark_id", "landmark", "id", "photo")  # of an exclusion list in CSV, the first that is there


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows (int64, ascending) of the photos to train on and of those held out, and how they were chosen."""

    train_rows: np.ndarray = field(repr=False)
    held_out_rows: np.ndarray = field(repr=False)
    by: str
    share: float
    seed: int


def split_photos(labels: np.ndarray, share: float, by: Literal["landmarks", "photos"], seed: int) -> Split:
    """Holds out a share of the landmarks, or of the photos so that each landmark keeps one; fewer than two landmarks:
    nothing.

    labels: (N,) int64. The same seed and labels give the same split on every machine.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    landmarks, sizes = np.unique(labels, return_counts=True)
    held = np.zeros(len(labels), bool)
    if by == "landmarks":
        chosen = draws.permutation(landmarks)[: round(share * len(landmarks))]
        if 2 <= len(chosen) <= len(landmarks) - 2:
            held = np.isin(labels, chosen)
    else:
        order = draws.permutation(len(labels))
        held[order[: round(share * len(labels))]] = True
        emptied = landmarks[np.bincount(np.searchsorted(landmarks, labels[held]), minlength=len(landmarks)) == sizes]
        _, first = np.unique(labels, return_index=True)
        held[first[np.isin(landmarks, emptied)]] = False
    return Split(train_rows=np.flatnonzero(~held), held_out_rows=np.flatnonzero(held), by=by, share=share, seed=seed)


def write_split(path: Path, split: Split, photos: LandmarkPhotos, excluded: list[dict[str, Any]]) -> None:
    """Stores the split: counts, the hash of the list of photos, and the held-out landmarks or photos by name."""
    held: dict[str, list[str]] = {}
    if split.by == "landmarks":
        held["held_out_landmarks"] = [photos.landmark_names[i] for i in np.unique(photos.labels[split.held_out_rows])]
    else:
        held["held_out_photos"] = [photos.relative(int(row)) for row in split.held_out_rows]
    content = {
        "by": split.by,
        "share": split.share,
        "seed": split.seed,
        "photos_sha256": photos.sha256(),
        "n_train": len(split.train_rows),
        "n_held_out": len(split.held_out_rows),
        "excluded": excluded,
        **held,
    }
    write_text(path, json.dumps(content, indent=1))


def require_same_photos(path: Path, photos: LandmarkPhotos) -> None:
    """Raises UltronError if the photos are no longer those that the stored split was made of."""
    if read_json(path, "split of the run")["photos_sha256"] != photos.sha256():
        raise UltronError(
            f"the photos of {photos.folder} are no longer those that {path.parent} was started with; restore "
            "them, or start a new run"
        )


def read_exclusions(path: Path) -> set[str]:
    """Landmarks, photo ids or relative paths, one per line, or in the first known column of a CSV. Raises UltronError
    if there are none."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = [row for row in csv.reader(handle) if row and row[0].strip() and not row[0].startswith("#")]
    except FileNotFoundError:
        raise UltronError(f"the exclusion list {path} does not exist; check `exclude`") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UltronError(f"{path} is not a list in UTF-8 ({error}); give one landmark or photo per line") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in COLUMNS if name in header), None)
    entries = {row[column or 0].strip() for row in rows[column is not None :] if len(row) > (column or 0)}
    if not entries:
        raise UltronError(
            f"{path} names no landmark and no photo; give one per line, or a CSV with a column {' or '.join(COLUMNS)}"
        )
    return entries


def exclude_photos(photos: LandmarkPhotos, lists: Sequence[str]) -> tuple[LandmarkPhotos, list[dict[str, Any]]]:
    """The photos without listed landmarks and photos, and per list what overlapped: landmarks, photos, and entries that
    named nothing."""
    kept = np.ones(len(photos.labels), bool)
    report = []
    for name in lists:
        entries = read_exclusions(Path(name).expanduser())
        by_landmark = np.array([landmark in entries for landmark in photos.landmark_names])
        hit = by_landmark[photos.labels]
        found = {landmark for landmark in photos.landmark_names if landmark in entries}
        wanted = entries - found
        for row in np.flatnonzero(~hit) if wanted else ():
            relative = photos.relative(int(row))
            name = relative.rpartition("/")[2]
            names = {relative, name, name.rpartition(".")[0] or name} & wanted
            if names:
                hit[row] = True
                found |= names
        report.append(
            {
                "list": str(name),
                "entries": len(entries),
                "landmarks": int(by_landmark.sum()),
                "photos": int((hit & kept).sum()),
                "unmatched": len(entries - found),
            }
        )
        log.info(
            "%s: %s of %s and %s kept out of training; %d of %s are not in this dataset",
            name,
            counted(int((hit & kept).sum()), "photo"),
            counted(int(by_landmark.sum()), "landmark"),
            "single photos",
            len(entries - found),
            counted(len(entries), "entry", "entries"),
        )
        kept &= ~hit
    if not kept.any():
        raise UltronError(f"the exclusion lists leave none of {counted(len(kept), 'photo')}; check `exclude`")
    return (photos, report) if kept.all() else (photos.take(np.flatnonzero(kept)), report)
