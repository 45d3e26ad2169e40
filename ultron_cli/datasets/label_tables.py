"""Reads what people say of their own photos from CSV files: labels (which photo shows which landmark), pairs (which
photo answers which query) and boxes.

Fields are parted by commas, semicolons or tabs; the text is UTF-8 with or without mark. Every error names the file and
the line.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.values import shown

BOX_COLUMNS = ("x1", "y1", "x2", "y2")
PAIR_LABELS = ("easy", "hard", "junk")
ROLES = ("query", "database", "")


@dataclass(frozen=True, kw_only=True)
class PhotoLabel:
    """What a table says of one photo."""

    photo: str  # relative path
    landmark: str  # empty: none of them
    label: str = "easy"  # as an answer: easy, hard or junk
    role: str = ""  # query, database, or empty: chosen by rule
    box: Box | None = None
    where: str = field(default="", compare=False)  # file and line, for messages


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One answer to one query: photo is easy, hard or junk for query."""

    query: str
    photo: str
    label: str
    where: str = field(default="", compare=False)  # file and line, for messages


@dataclass(frozen=True)
class _Row:
    where: str  # file and line, for messages
    values: dict[str, str]  # by column


def _rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[_Row]:
    """Rows of a CSV by column. Raises UltronError for a missing or an unknown column."""
    for number, values in csv_rows(path, "the table", required=[required], optional=optional, delimiters=",;\t"):
        if any(values.values()):
            yield _Row(f"{path}, line {number}", values)


def _choice(row: _Row, column: str, choices: Sequence[str], otherwise: str) -> str:
    """The field of a column, `otherwise` where it is empty. Raises UltronError if it is none of the choices."""
    value = row.values.get(column, "").lower() or otherwise
    if value not in choices:
        raise UltronError(
            f"{row.where}: {column} must be one of {', '.join(filter(None, choices))}; found {shown(value)}"
        )
    return value


def spellings(photos: Sequence[str]) -> dict[str, str]:
    """Every spelling that means one of the photos: its path; its path without suffix, where no other photo has the
    same; and its name with .jpg, which names in a ground truth stand without."""
    stems = Counter(os.path.splitext(photo)[0] for photo in photos)
    by_stem = {stem: photo for photo in photos if stems[stem := os.path.splitext(photo)[0]] == 1}
    return {f"{photo}.jpg": photo for photo in photos} | by_stem | {photo: photo for photo in photos}


@dataclass(frozen=True)
class Spelled:
    """The photos that a table may name, each in several spellings."""

    photo_of: Mapping[str, str]  # spelling -> photo
    may_lack: bool = False  # whether a line of another photo is passed over, or is an error

    def photo(self, row: _Row, column: str) -> str | None:
        """The photo in a column of a row; None for one to pass over. Raises UltronError if there is no such photo."""
        value = row.values[column].replace("\\", "/").removeprefix("./")
        if not value:
            raise UltronError(f"{row.where}: {column} is empty; name a photo")
        if value not in self.photo_of and not self.may_lack:
            raise UltronError(
                f"{row.where}: {shown(value)} is no photo of the folder (paths are relative to it)"
                f"{nearest_names(value[:255], self.photo_of) or '; correct the line'}"
            )
        return self.photo_of.get(value)


def _box(row: _Row) -> Box | None:
    """The box of a row, or None where all its columns are empty. Raises UltronError if it is malformed, negative or
    inverted."""
    texts = [row.values.get(column, "") for column in BOX_COLUMNS]
    if not any(texts):
        return None
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except ValueError:
        raise UltronError(
            f"{row.where}: a box is four numbers x1, y1, x2, y2 in pixels, or nothing; found {shown(', '.join(texts))}"
        ) from None
    if not (0 <= x1 < x2 < float("inf") and 0 <= y1 < y2 < float("inf")):
        raise UltronError(
            f"{row.where}: 0 <= x1 < x2 and 0 <= y1 < y2 must hold for a box; found {shown(', '.join(texts))}"
        )
    return x1, y1, x2, y2


def read_labels(path: Path, spelled: Spelled) -> list[PhotoLabel]:
    """`photo,landmark` and, if wanted, `label` (easy, hard, junk), `role` (query, database) and `x1,y1,x2,y2`. Raises
    UltronError."""
    labels: dict[str, PhotoLabel] = {}
    for row in _rows(path, ("photo", "landmark"), ("label", "role", *BOX_COLUMNS)):
        photo = spelled.photo(row, "photo")
        if photo is None:
            continue
        label = PhotoLabel(
            photo=photo,
            landmark=row.values["landmark"],
            label=_choice(row, "label", PAIR_LABELS, "easy"),
            role=_choice(row, "role", ROLES, ""),
            box=_box(row),
            where=row.where,
        )
        if photo in labels and labels[photo] != label:
            raise UltronError(
                f"{row.where}: {photo} stands there before with other values; a photo has one line, keep one",
                "for several landmarks in one photo use `pairs`",
            )
        labels[photo] = label
    return list(labels.values())


def read_pairs(path: Path, spelled: Spelled) -> list[Pair]:
    """`query,photo` and, if wanted, `label` (easy, hard, junk; easy). Raises UltronError, also for a pair with two
    labels."""
    pairs: dict[tuple[str, str], Pair] = {}
    for row in _rows(path, ("query", "photo"), ("label",)):
        query, photo = spelled.photo(row, "query"), spelled.photo(row, "photo")
        if query is None or photo is None:
            continue
        pair = Pair(query=query, photo=photo, label=_choice(row, "label", PAIR_LABELS, "easy"), where=row.where)
        earlier = pairs.setdefault((pair.query, pair.photo), pair)
        if earlier != pair:
            raise UltronError(
                f"{row.where}: {pair.photo} is {pair.label} for {pair.query} here and {earlier.label} before; keep one"
            )
        if pair.query == pair.photo:
            raise UltronError(
                f"{row.where}: {pair.query} is an answer to itself; a query is searched among the other "
                "photos, remove the line"
            )
    return list(pairs.values())


def read_boxes(path: Path, spelled: Spelled) -> list[PhotoLabel]:
    """`photo,x1,y1,x2,y2`: boxes in pixels of the upright photo, as labels without landmark. Raises UltronError."""
    boxes: dict[str, PhotoLabel] = {}
    for row in _rows(path, ("photo", *BOX_COLUMNS), ()):
        photo = spelled.photo(row, "photo")
        if photo is None:
            continue
        label = PhotoLabel(photo=photo, landmark="", box=_box(row), where=row.where)
        if label.box is not None and boxes.setdefault(label.photo, label) != label:
            raise UltronError(f"{row.where}: {label.photo} has another box before; keep one")
    return list(boxes.values())
