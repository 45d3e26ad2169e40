"""Ground truth of the revisited protocols: queries, their boxes, and which photos are positive or ignored.

Radenovic et al., Revisiting Oxford and Paris, CVPR 2018. Rows are indices into `database_names`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright photo
Protocol = Literal["easy", "medium", "hard"]
# protocol -> (labels that count as positive, labels that leave the ranking before AP)
PROTOCOLS: dict[Protocol, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
LABELS = ("easy", "hard", "junk")


@dataclass(frozen=True, kw_only=True)
class QueryTruth:
    """One query: its box and its labelled photos, as rows of the database."""

    bbx: Box | None  # None: the whole photo
    easy: np.ndarray = field(repr=False)  # (n,) int64, as hard and junk
    hard: np.ndarray = field(repr=False)
    junk: np.ndarray = field(repr=False)

    def rows(self, labels: tuple[str, ...]) -> np.ndarray:
        """(n,) int64: the rows of several labels, one after the other."""
        return np.concatenate([getattr(self, label) for label in labels])


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Database and query photo names (imlist, qimlist) with one QueryTruth per query."""

    database_names: list[str] = field(repr=False)
    query_names: list[str] = field(repr=False)
    queries: list[QueryTruth] = field(repr=False)

    def split(self, query: int, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the positives and of the ignored photos of one query under a protocol, (n,) int64 each."""
        positive, ignored = PROTOCOLS[protocol]
        return self.queries[query].rows(positive), self.queries[query].rows(ignored)


def _rows(value: object, n_database: int, where: str) -> np.ndarray:
    rows = np.asarray(value if value is not None else [])
    if rows.size == 0:
        return np.empty(0, np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UltronError(
            f"{where} must be a list of whole numbers, indices into imlist; found {str(value)[:60]}; correct "
            "the ground truth"
        )
    outside = rows[(rows < 0) | (rows >= n_database)]
    if outside.size:
        raise UltronError(
            f"{where} holds index {outside[0]}, but imlist has {n_database} photos (0 to {n_database - 1}); "
            "correct the ground truth"
        )
    return rows.astype(np.int64)


def check_box(value: object, where: str) -> Box | None:
    """A box (x1, y1, x2, y2) in pixels, or None for none. Raises UltronError if it is malformed, negative or
    inverted."""
    if value is None:
        return None
    box = np.asarray(value)
    if box.shape != (4,) or box.dtype.kind not in "iuf" or not np.isfinite(box).all():
        raise UltronError(
            f"{where}: bbx must be four numbers x1, y1, x2, y2; found {str(value)[:60]}; correct the ground truth"
        )
    x1, y1, x2, y2 = (float(number) for number in box)
    if x2 <= x1 or y2 <= y1:
        raise UltronError(
            f"{where}: bbx is inverted or empty, x1 < x2 and y1 < y2 must hold; found {[x1, y1, x2, y2]}; "
            "correct the ground truth"
        )
    return x1, y1, x2, y2


def _names(value: object, key: str, path: Path) -> list[str]:
    if not isinstance(value, (list, tuple, np.ndarray)) or not all(isinstance(name, str) for name in value):
        raise UltronError(
            f"{path}: {key} must be a list of photo names; found {str(value)[:60]}; correct the ground truth"
        )
    names = [str(name) for name in value]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UltronError(
            f"{path}: {key} names {twice!r} more than once; every photo may stand there once; correct the ground truth"
        )
    return names


def parse_ground_truth(content: object, path: Path) -> GroundTruth:
    """Checks the published layout {"imlist", "qimlist", "gnd"} in every part. Raises UltronError that names the
    query."""
    missing = [key for key in ("imlist", "qimlist", "gnd") if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise UltronError(
            f"{path} lacks {', '.join(missing)}; a ground truth is a dictionary of imlist, qimlist and gnd"
        )
    database_names = _names(content["imlist"], "imlist", path)
    query_names = _names(content["qimlist"], "qimlist", path)
    if len(content["gnd"]) != len(query_names):
        raise UltronError(
            f"{path}: gnd has {len(content['gnd'])} entries for {len(query_names)} queries in qimlist; they "
            "must be equal in number"
        )
    queries = []
    for name, entry in zip(query_names, content["gnd"], strict=True):
        where = f"{path}, query {name}"
        if not isinstance(entry, dict) or not {"easy", "hard"} <= set(entry):
            raise UltronError(
                f"{where}: an entry of gnd must have easy and hard (junk and bbx may be absent); found "
                f"{str(entry)[:60]}"
            )
        rows = {label: _rows(entry.get(label), len(database_names), f"{where}: {label}") for label in LABELS}
        queries.append(QueryTruth(bbx=check_box(entry.get("bbx"), where), **rows))
    return GroundTruth(database_names=database_names, query_names=query_names, queries=queries)


def load_ground_truth(path: Path) -> GroundTruth:
    """Reads gnd_*.json or gnd_*.pkl (the latter without running anything in it). Raises UltronError if it is
    unsound."""
    if not path.is_file():
        raise UltronError(f"ground truth {path} does not exist; name one with `gnd`")
    content = read_json(path, "ground truth") if path.suffix == ".json" else load_plain_pickle(path)
    return parse_ground_truth(content, path)
