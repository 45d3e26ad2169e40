"""Training photos named by a list: a CSV as Google Landmarks v2 has it (Weyand et al., CVPR 2020), with the columns
`landmark_id,images` (photo ids, spaces between) or `id,...,landmark_id` (one photo per line).

A folder holds such a list in one of two ways. As published, train.csv or train_clean.csv lies above photos
a/b/c/abc....jpg. Else landmarks.json says which CSV names the landmarks and where the photos lie:

{"format": "ultron-landmarks", "version": 1, "list": "train_clean.csv", "photos": "../gldv2-train/train", "paths":
"gldv2"}
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from ultron_cli.configs import one_of
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.texts import read_json

LIST_FILE = "landmarks.json"
GLDV2_LISTS = ("train_clean.csv", "train.csv")  # the clean list, where there is one, is the one to train on


def write_landmark_list(folder: Path, list_file: str, photos: str, paths: str) -> None:
    """Writes landmarks.json.

    list_file: the CSV in `folder`; photos: their folder, relative to `folder`; paths: a key of PATHS.
    """
    write_text(
        folder / LIST_FILE,
        json.dumps(
            {"format": "ultron-landmarks", "version": 1, "list": list_file, "photos": photos, "paths": paths}, indent=1
        ),
    )


class ListedPaths(Sequence[Path]):
    """Files of photos known by id; a path is made when it is asked for, as there are millions."""

    def __init__(self, folder: Path, ids: list[str], path_of_id: Callable[[str], str]) -> None:
        self.folder = folder
        self.ids = ids
        self._path_of_id = path_of_id

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> "ListedPaths": ...
    def __getitem__(self, i: int | slice) -> "Path | ListedPaths":
        if isinstance(i, slice):
            return ListedPaths(self.folder, self.ids[i], self._path_of_id)
        return self.folder / self._path_of_id(self.ids[i])

    def relative(self, i: int) -> str:
        """Path of photo i below its folder, with forward slashes."""
        return self._path_of_id(self.ids[i])


@dataclass(frozen=True, kw_only=True)
class LandmarkList:
    """The photos that a list names."""

    paths: ListedPaths = field(repr=False)
    landmarks: list[str] = field(repr=False)  # of each photo
    sources: list[Path]  # the files that this was read from


@dataclass(frozen=True, kw_only=True)
class _Description:
    """landmarks.json."""

    list: str
    photos: str
    paths: str


def open_landmark_list(folder: Path) -> LandmarkList:
    """The photos that landmarks.json describes. Raises UltronError if the list, a column or the photos' folder is
    missing."""
    description = read_json(
        folder / LIST_FILE,
        "description of a landmark list",
        _Description,
        advice="it must name list, photos and paths (docs/file-formats.md)",
    )
    one_of(f"{folder / LIST_FILE}: paths", description.paths, list(PATHS))
    # Path's own methods raise for a name of thousands of characters.
    photo_folder = Path(os.path.realpath(folder / description.photos))
    if not os.path.isdir(photo_folder):
        owner = photo_folder.parent.name
        raise UltronError(
            f"the photos of {folder.name} lie in {photo_folder}, which is not there; run `ultron datasets "
            f"download {owner}`"
        )
    list_file = folder / description.list
    ids, landmarks = _read_list(list_file)
    return LandmarkList(
        paths=ListedPaths(photo_folder, ids, PATHS[description.paths]),
        landmarks=landmarks,
        sources=[folder / LIST_FILE, list_file],
    )


def find_landmark_list(folder: Path) -> LandmarkList | None:
    """The photos of the list that a folder holds, in one of the two ways; None where it holds none. Raises as
    open_landmark_list and open_gldv2."""
    if (folder / LIST_FILE).is_file():
        return open_landmark_list(folder)
    list_file = find_gldv2(folder)
    return open_gldv2(list_file) if list_file is not None else None


def find_gldv2(folder: Path) -> Path | None:
    """The list in a folder laid out as Google Landmarks v2 is published, or None."""
    return next((folder / name for name in GLDV2_LISTS if (folder / name).is_file()), None)


def open_gldv2(list_file: Path) -> LandmarkList:
    """The photos of a published list, which lie beside it or in train/ beside it. Raises UltronError if they do not."""
    ids, landmarks = _read_list(list_file)
    folder = list_file.parent
    first_letters = {photo[0] for photo in ids}
    photo_folder = next(
        (place for place in (folder / "train", folder) if any((place / letter).is_dir() for letter in first_letters)),
        None,
    )
    if photo_folder is None:
        first = PATHS["gldv2"](ids[0])
        raise UltronError(
            f"the photos of {list_file} must lie in {folder / 'train'} or {folder} as {first}; neither has a "
            f"folder {first[0]}/"
        )
    return LandmarkList(paths=ListedPaths(photo_folder, ids, PATHS["gldv2"]), landmarks=landmarks, sources=[list_file])


def _read_list(path: Path) -> tuple[list[str], list[str]]:
    """The ids of a list's photos, and the landmark of each. Raises UltronError if it names none."""
    ids: list[str] = []
    landmarks: list[str] = []
    for landmark, photo in _rows(path):
        ids.append(photo)
        landmarks.append(landmark)
    if not ids:
        raise UltronError(f"{path} names no photo; download it again")
    with open(path, "rb") as handle:
        handle.seek(-1, os.SEEK_END)
        if handle.read(1) not in b"\r\n":
            log.warning("the last line of %s has no end: if the file was cut off, its last photo is wrong", path)
    return ids, landmarks


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """(landmark, photo id) of every photo in a list. Raises UltronError for unknown columns."""
    rows = csv_rows(
        path,
        "the list",
        required=[("landmark_id", "images"), ("landmark_id", "id")],
        if_absent=f"run `ultron datasets download {path.parent.name}`",
        if_unreadable="download it again",
    )
    for number, row in rows:
        if not row["landmark_id"]:
            raise UltronError(f"{path}, line {number} names no landmark; download the list again or delete the line")
        for photo in row["images"].split() if "images" in row else [row["id"]]:
            if not photo.replace("_", "").replace("-", "").isalnum():
                raise UltronError(
                    f"{path}, line {number}: {photo[:40]!r} is no photo id (letters, digits, - and _); download the "
                    "list again or delete the line"
                )
            yield sys.intern(row["landmark_id"]), photo


def _gldv2_path(photo: str) -> str:
    return f"{photo[0]}/{photo[1:2]}/{photo[2:3]}/{photo}.jpg"


def _sfm120k_path(photo: str) -> str:
    return f"{photo[-2:]}/{photo[-4:-2]}/{photo[-6:-4]}/{photo}"


# name -> the path of a photo id below the photos' folder
PATHS: dict[str, Callable[[str], str]] = {"gldv2": _gldv2_path, "sfm120k": _sfm120k_path}
