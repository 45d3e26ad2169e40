"""Ground truth of the revisited protocols: queries, their boxes, and which photos are positive or ignored.

Radenovic et al., Revisiting Oxford and Paris, CVPR 2018. Rows are indices into `database_names`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.texts import fit_file, read_json
from ultron_cli.schema.values import shown

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright photo
Protocol = Literal["easy", "medium", "hard"]
# protocol -> (labels that count as positive, labels that leave the ranking before AP)
PROTOCOLS: dict[Protocol, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
LABELS = ("easy", "hard", "junk")
CORRECT = "correct the ground truth"


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
    # Names of parts of the queries that its authors score apart, for example Private -> query names.
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    names_are_ids: bool = False  # the last part of a photo's path, without suffix
    metrics: tuple[str, ...] = ()  # what its authors score with, beside mAP

    def split(self, query: int, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the positives and of the ignored photos of one query under a protocol, (n,) int64 each."""
        positive, ignored = PROTOCOLS[protocol]
        return self.queries[query].rows(positive), self.queries[query].rows(ignored)


def check_box(value: object, where: str) -> Box | None:
    """A box (x1, y1, x2, y2) in pixels, or None for none. Raises UltronError if it is malformed, negative or
    inverted."""
    if value is None:
        return None
    box = np.asarray(value) if isinstance(value, (list, tuple, np.ndarray)) else np.empty(0)
    if box.shape != (4,) or box.dtype.kind not in "iuf" or not np.isfinite(box).all():
        raise UltronError(f"{where}: bbx must be four numbers x1, y1, x2, y2; found {shown(value)}; {CORRECT}")
    x1, y1, x2, y2 = (float(number) for number in box)
    if x2 <= x1 or y2 <= y1:
        raise UltronError(
            f"{where}: bbx is inverted or empty, x1 < x2 and y1 < y2 must hold; found {[x1, y1, x2, y2]}; {CORRECT}"
        )
    return x1, y1, x2, y2


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A query's entry of `gnd`."""

    easy: list[int] | None
    hard: list[int] | None
    junk: list[int] | None = None
    bbx: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class _Content:
    """A ground truth as it is published."""

    imlist: list[str]
    qimlist: list[str]
    gnd: list[_Entry]


def _without_arrays(content: object) -> object:
    """The content of a pickle with lists in place of numpy arrays, where a ground truth may have them. What Oxford5k
    and Paris6k called ok, before there were easy and hard photos, is easy."""
    if isinstance(content, np.ndarray):
        return content.tolist() if content.size else []
    if not isinstance(content, dict):
        return content
    if "ok" in content and not {"easy", "hard"} & set(content):
        content = content | {"easy": content["ok"], "hard": []}
    plain = {key: _without_arrays(value) for key, value in content.items()}
    entries = plain.get("gnd")
    if isinstance(entries, (list, tuple)):
        plain["gnd"] = [_without_arrays(entry) for entry in entries]
    return plain


def _refuse_repeated(names: list[str], key: str, path: Path) -> None:
    name, n_times = Counter(names).most_common(1)[0] if names else ("", 1)
    if n_times > 1:
        raise UltronError(
            f"{path}: {key} names {shown(name)} {n_times} times; every photo may stand there once; {CORRECT}"
        )


def _rows(values: list[int] | None, n_database: int, where: str) -> np.ndarray:
    try:
        rows = np.array(values or [], np.int64)
    except OverflowError:
        rows = np.array([-1])  # over 64 bits, of a pickle
    outside = rows[(rows < 0) | (rows >= n_database)]
    if outside.size:
        raise UltronError(
            f"{where} holds index {outside[0]}, but imlist has {n_database} photos (0 to {n_database - 1}); {CORRECT}"
        )
    return rows


def parse_ground_truth(content: object, path: Path) -> GroundTruth:
    """Checks the published layout {"imlist", "qimlist", "gnd"} in every part. Raises UltronError that names the
    place."""
    content = _without_arrays(content)
    missing = [key for key in ("imlist", "qimlist", "gnd") if not isinstance(content, dict) or key not in content]
    if missing:
        raise UltronError(
            f"{path} lacks {', '.join(missing)}; a ground truth is a dictionary of imlist, qimlist and gnd"
        )
    truth = fit_file(content, _Content, path, "ground truth", CORRECT)
    for key, names in (("imlist", truth.imlist), ("qimlist", truth.qimlist)):
        _refuse_repeated(names, key, path)
    if len(truth.gnd) != len(truth.qimlist):
        raise UltronError(
            f"{path}: gnd has {len(truth.gnd)} entries for {len(truth.qimlist)} queries in qimlist; they "
            "must be equal in number"
        )
    queries = []
    for i, entry in enumerate(truth.gnd):
        where = f"{path}: gnd[{i}]"
        rows = {label: _rows(getattr(entry, label), len(truth.imlist), f"{where}.{label}") for label in LABELS}
        queries.append(QueryTruth(bbx=check_box(entry.bbx, where), **rows))
    return GroundTruth(database_names=truth.imlist, query_names=truth.qimlist, queries=queries)


def _warn_of_repeated_rows(truth: GroundTruth, path: Path) -> None:
    """A photo that stands twice among a query's labels counts twice, or is a positive that leaves the ranking."""
    rows_by_query = [query.rows(LABELS) for query in truth.queries]
    queries = np.repeat(np.arange(len(rows_by_query)), [len(rows) for rows in rows_by_query])
    pairs = np.sort(queries * len(truth.database_names) + np.concatenate([np.empty(0, np.int64), *rows_by_query]))
    repeated = pairs[1:][pairs[1:] == pairs[:-1]] // max(1, len(truth.database_names))
    if repeated.size:
        log.warning(
            "%s: %s repeated among easy, hard and junk of %s (the first is gnd[%d]), which changes AP; %s",
            path,
            counted(repeated.size, "photo is", "photos are"),
            counted(len(np.unique(repeated)), "query", "queries"),
            repeated[0],
            CORRECT,
        )


def _read_solution(path: Path) -> GroundTruth:
    """The published solution of GLDv2's retrieval (`id,images,Usage`) or recognition (`id,landmarks,Usage`), several
    with blanks between them; what is to be found is easy. Those that the authors ignore are no queries.

    Of recognition, the database is of landmarks. Raises UltronError.
    """
    answers: dict[str, list[str]] = {}
    parts: dict[str, set[str]] = {}
    metrics: tuple[str, ...] = ()
    columns = [["id", "images", "usage"], ["id", "landmarks", "usage"]]
    for number, values in csv_rows(path, "the solution", required=columns, optional=(), if_unreadable=CORRECT):
        metrics = ("GAP",) if "landmarks" in values else ("mAP@100",)
        if values["usage"].lower() == "ignored":
            continue
        if values["id"] in answers:
            raise UltronError(f"{path}, line {number}: {shown(values['id'])} stands there before; {CORRECT}")
        answers[values["id"]] = values.get("images", values.get("landmarks", "")).split()
        parts.setdefault(values["usage"], set()).add(values["id"])
    if not answers:
        raise UltronError(f"{path} has no query; {CORRECT}")
    names = sorted({name for right in answers.values() for name in right})
    row_of = {name: row for row, name in enumerate(names)}
    nothing = np.empty(0, np.int64)
    return GroundTruth(
        database_names=names,
        query_names=list(answers),
        queries=[
            QueryTruth(bbx=None, easy=np.array([row_of[name] for name in right], np.int64), hard=nothing, junk=nothing)
            for right in answers.values()
        ],
        parts={part: frozenset(members) for part, members in parts.items()},
        names_are_ids=True,
        metrics=metrics,
    )


def load_ground_truth(path: Path) -> GroundTruth:
    """Reads gnd_*.json or gnd_*.pkl (the latter without running anything in it), or a solution of GLDv2 (CSV). Raises
    UltronError if it is unsound."""
    if not path.exists():
        raise UltronError(f"ground truth {path} does not exist; check the path")
    if path.suffix == ".csv":
        truth = _read_solution(path)
        _warn_of_repeated_rows(truth, path)
        return truth
    if path.suffix == ".json":
        content = read_json(path, "ground truth", advice=CORRECT, most_bytes=MOST_LIST_BYTES)
    else:
        content = load_plain_pickle(path)
    truth = parse_ground_truth(content, path)
    _warn_of_repeated_rows(truth, path)
    return truth
