"""Training photos named by a list: landmarks.json in a dataset folder says which CSV names the landmarks and where the
photos lie.

{"format": "ultron-landmarks", "version": 1, "list": "train_clean.csv", "photos": "../gldv2-train/train", "paths":
"gldv2"}

The list is a CSV as Google Landmarks v2 has it: `landmark_id,images` (photo ids, spaces between) or
`id,...,landmark_id` (one photo per line).
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json, write_text

LIST_FILE = "landmarks.json"


def write_landmark_list(folder: Path, list_file: str, photos: str, paths: str) -> None:
    """Writes landmarks.json. photos: their folder, relative to `folder`."""
    write_text(
        folder / LIST_FILE,
        json.dumps(
            {"format": "ultron-landmarks", "version": 1, "list": list_file, "photos": photos, "paths": paths}, indent=1
        ),
    )


class ListedPaths(Sequence[Path]):
    """Files of photos known by id; a path is made when it is asked for, as there are millions."""

    def __init__(self, folder: Path, ids: list[str], path_of_id: Callable[[str], str]) -> None:
        self.folder, self.ids, self._path_of_id = folder, ids, path_of_id

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


def open_landmark_list(folder: Path) -> tuple[ListedPaths, list[str]]:
    """The photos of a list and the landmark of each. Raises UltronError if the list, a column or the photos' folder is
    missing."""
    description = read_json(folder / LIST_FILE, "description of a landmark list")
    missing = [
        key
        for key in ("list", "photos", "paths")
        if not isinstance(description, dict) or not isinstance(description.get(key), str)
    ]
    if missing:
        raise UltronError(
            f"{folder / LIST_FILE} lacks {', '.join(missing)}; it must name list, photos and paths "
            "(docs/file-formats.md)"
        )
    one_of(f"{folder / LIST_FILE}: paths", description["paths"], list(PATHS))
    photo_folder = (folder / description["photos"]).resolve()
    if not photo_folder.is_dir():
        owner = photo_folder.parent.name
        raise UltronError(
            f"the photos of {folder.name} lie in {photo_folder}, which is not there; run `ultron datasets "
            f"download {owner}`"
        )
    ids: list[str] = []
    landmarks: list[str] = []
    for landmark, photo in read_rows(folder / description["list"]):
        ids.append(photo)
        landmarks.append(landmark)
    if not ids:
        raise UltronError(f"{folder / description['list']} names no photo; download it again")
    return ListedPaths(photo_folder, ids, PATHS[description["paths"]]), landmarks


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """(landmark, photo id) of every photo in a list. Raises UltronError for unknown columns."""
    csv.field_size_limit(sys.maxsize)  # a landmark may have thousands of photos in one field
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            columns = set(reader.fieldnames or ())
            if not ({"landmark_id", "images"} <= columns or {"landmark_id", "id"} <= columns):
                has = ", ".join(map(str, columns)) or "none"
                raise UltronError(
                    f"{path} must have the columns landmark_id and images, or id and landmark_id; it has {has[:80]}"
                )
            for row in reader:
                for photo in (row["images"] or "").split() if "images" in columns else [row["id"]]:
                    if not photo.replace("_", "").replace("-", "").isalnum():
                        raise UltronError(
                            f"{path}, line {reader.line_num}: {photo[:40]!r} is no photo id (letters, digits, - and _)"
                        )
                    yield sys.intern(str(row["landmark_id"])), photo
    except FileNotFoundError:
        raise UltronError(
            f"the list {path} does not exist; run `ultron datasets download {path.parent.name}`"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UltronError(f"{path} is not a CSV in UTF-8 ({error}); download it again") from error


def _gldv2_path(photo: str) -> str:
    return f"{photo[0]}/{photo[1:2]}/{photo[2:3]}/{photo}.jpg"


def _sfm120k_path(photo: str) -> str:
    return f"{photo[-2:]}/{photo[-4:-2]}/{photo[-6:-4]}/{photo}"


PATHS: dict[str, Callable[[str], str]] = {"gldv2": _gldv2_path, "sfm120k": _sfm120k_path}
