"""Rankings, their order, and the only code that reads or writes rank files (HDF5). The searches are in exact/,
index/ and milvus/.

Layout (a contract, see docs/file-formats.md): attributes format, version, created, ultron_version, provenance (JSON);
datasets /ranks (Q, K) int64, /scores (Q, K) float32, /query_names (Q,) and /database_names (N,) UTF-8; of a ranking
that was verified, /inliers (Q, K) int32; and, where they are known, the marks of their photos
(datasets/photo_marks.py): /query_states, /query_digests, /database_states, /database_digests.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NotRequired, Self, TypedDict

import h5py
import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.console import counted
from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.hdf5 import (
    TEXT,
    H5Layout,
    H5Part,
    damage_said,
    mark_parts,
    new_h5,
    open_h5,
    read_h5_marks,
    write_h5_header,
    write_h5_marks,
    write_h5_names,
)
from ultron_cli.retrieval.origin import Origin

FORMAT = "ultron-ranks"
VERSION = 1
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="rank file",
    parts={
        "ranks": H5Part(axes="(Q, K)", types=("int64",)),
        "scores": H5Part(axes="(Q, K)", types=("float32",)),
        "inliers": H5Part(axes="(Q, K)", types=("int32",), may_lack=True),
        "query_names": H5Part(axes="(Q,)", types=(TEXT,)),
        "database_names": H5Part(axes="(N,)", types=(TEXT,)),
        **mark_parts("query", "Q"),
        **mark_parts("database"),
    },
    attributes={"provenance": str},
    defaults={"provenance": "{}"},
    again="run `ultron search` again",
)
SHOWN_QUERIES = 3  # of a ranking as text or in a notebook
SHOWN_IN_TEXT = 3  # photos of each
SHOWN_PHOTOS = 8  # of each in a notebook
PADDING = -1  # the row where an approximate index found fewer than K
UNVERIFIED = -1  # in place of inliers
EMPTY = np.uint64(2**64 - 1)  # sorts after the key of every finite score


# Query row -> the database rows, (n,) int64, that are the query itself.
OwnRows = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class RankedRows:
    """Database rows per query, best first, equal scores by row: what a search of arrays gives."""

    rows: np.ndarray  # (Q, K) int64, -1 where fewer were found
    scores: np.ndarray  # (Q, K) float32, -infinity where fewer were found
    inliers: np.ndarray | None = None  # as of a Ranking


class RankedPhoto(TypedDict):
    """A database photo in a query's ranking."""

    rank: int  # from 1
    name: str
    score: float
    # Of a ranking that was verified: the inliers that count, None where the photo was not looked at; and whether so
    # many put it in front.
    inliers: NotRequired[int | None]
    promoted: NotRequired[bool]


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranking:
    """Ranked database photos of named queries, and what made them: what a search returns and a rank file holds. As text
    and in a notebook it shows the best photos of its first queries."""

    query_names: list[str]
    database_names: list[str]
    rows: np.ndarray  # (Q, K) integers into database_names, best first, equal scores by row, -1 where fewer were found
    scores: np.ndarray | None  # (Q, K) float32; None where only the order was asked for
    origin: Origin
    # (Q, K) int32, inliers that count, -1 where geometry did not verify a photo; None where it verified none.
    inliers: np.ndarray | None = field(default=None, repr=False)
    # Where queries are in the database themselves; None where it is not known, as in rank files.
    own_rows: OwnRows | None = field(default=None, repr=False)
    # What tells the photos from others of their names, as they were described; None where it is not recorded.
    query_marks: PhotoMarks | None = field(default=None, repr=False)
    database_marks: PhotoMarks | None = field(default=None, repr=False)

    def without_own_rows(self, own_rows: OwnRows, k: int | None = None) -> "Ranking":
        """The ranking in which no query finds itself, cut to k; rows end in -1 for as many as left. own_rows: of the
        queries that are in the database themselves."""
        columns = {
            "rows": (self.rows, PADDING),
            "scores": (self.scores, -np.inf),
            "inliers": (self.inliers, UNVERIFIED),
        }
        cut: dict[str, np.ndarray | None] = {}
        for name, (values, padding) in columns.items():
            cut[name] = None
            if values is None:
                continue
            left = values.copy()
            for query, rows_of_self in own_rows.items():
                stays = ~np.isin(self.rows[query], rows_of_self)
                n_left = int(stays.sum())
                left[query, :n_left], left[query, n_left:] = values[query, stays], padding
            cut[name] = np.ascontiguousarray(left[:, :k])
        return replace(self, **cut)

    def with_scores(self) -> np.ndarray:
        """The (Q, K) float32 scores. Raises ValueError if only the order was asked for."""
        if self.scores is None:
            raise ValueError("this ranking was searched without scores")
        return self.scores

    def ranked_photos(self, query: int) -> list[RankedPhoto]:
        """The ranking of one query (its row) by name, best first."""
        pairs = zip(self.rows[query].tolist(), self.with_scores()[query].tolist(), strict=True)
        photos: list[RankedPhoto] = [
            {"rank": rank, "name": self.database_names[row], "score": score}
            for rank, (row, score) in enumerate(pairs, start=1)
            if row >= 0
        ]
        for photo, n_inliers in zip(photos, self.inliers_of(query), strict=False):
            photo["inliers"], photo["promoted"] = n_inliers, self.is_promoted(n_inliers)
        return photos

    def inliers_of(self, query: int) -> list[int | None]:
        """The inliers of the photos ranked for one query, None where a photo was not verified; empty where none was."""
        counts = [] if self.inliers is None else self.inliers[query].tolist()
        return [None if count < 0 else count for count in counts]

    def is_promoted(self, n_inliers: int | None) -> bool:
        """Whether so many inliers put a photo in front, as the search recorded it."""
        least = self.origin.search.promoting_inliers if self.origin.search else None
        return least is not None and n_inliers is not None and n_inliers >= least

    def names_of(self, query: int) -> list[str]:
        """Names of the photos ranked for one query (its row), best first."""
        return [self.database_names[row] for row in self.rows[query].tolist() if row >= 0]

    def _headline(self) -> str:
        n_queries = counted(len(self.query_names), "query", "queries")
        of_model = f" by {self.origin.model} on {self.origin.dataset}" if self.origin.model else ""
        return f"{n_queries} in {counted(len(self.database_names), 'photo')}{of_model}{self.origin.search_text()}"

    def _shown(self, query: int, n: int) -> list[tuple[str, str]]:
        """(name, score as text) of the n best photos of a query."""
        scores = [f"{score:.3f}" for score in self.scores[query, :n].tolist()] if self.scores is not None else [""] * n
        return [
            (self.database_names[row], score)
            for row, score in zip(self.rows[query, :n].tolist(), scores, strict=False)
            if row >= 0
        ]

    def __repr__(self) -> str:
        lists = []
        for query, name in enumerate(self.query_names[:SHOWN_QUERIES]):
            best = ", ".join(f"{photo} {score}".rstrip() for photo, score in self._shown(query, SHOWN_IN_TEXT))
            lists.append(f"  {name}: {best}" + " ..." * (self.rows.shape[1] > SHOWN_IN_TEXT))
        more = ["  ..."] if len(self.query_names) > SHOWN_QUERIES else []
        return "\n".join([self._headline(), *lists, *more])

    def _repr_html_(self) -> str:
        from ultron_cli.datasets.photo_strip import photo_paths, photo_strip  # loads Pillow

        origin = self.origin
        strips = []
        for query, name in enumerate(self.query_names[:SHOWN_QUERIES]):
            best = self._shown(query, SHOWN_PHOTOS)
            paths = [
                *photo_paths([name], origin.dataset_folder, origin.ground_truth),
                *photo_paths(
                    [photo for photo, _ in best], origin.database_folder or origin.dataset_folder, origin.ground_truth
                ),
            ]
            ranks = [f"{rank}. {photo} {score}".rstrip() for rank, (photo, score) in enumerate(best, start=1)]
            strips.append(photo_strip(list(zip(paths, [f"query: {name}", *ranks], strict=True))))
        return photo_strip([], self._headline()) + "".join(strips)


def write_ranks(path: Path, ranking: Ranking) -> None:
    """Writes a rank file atomically. Raises ValueError if the ranking does not fit its names."""
    ranked = RankedRows(ranking.rows, ranking.with_scores(), ranking.inliers)
    write_rank_blocks(path, ranking, lambda: [ranked], ranking.rows.shape[1])


def write_rank_blocks(
    path: Path,
    header: Ranking,
    blocks: Callable[[], Iterable[RankedRows]],
    k: int,
    origin: Callable[[], Origin] | None = None,
) -> None:
    """Writes a rank file atomically, some queries at a time.

    header: names, marks, and whether there are inliers; its rows are not looked at. blocks: makes the (q, k) rankings
    of consecutive queries. origin: makes what is recorded as their origin once all are written; None is the header's.
    Raises ValueError if they do not fit the names.
    """
    n_queries, n_database = len(header.query_names), len(header.database_names)
    with new_h5(path) as (handle, _):
        rows = handle.create_dataset("ranks", (n_queries, k), np.int64)
        scores = handle.create_dataset("scores", (n_queries, k), np.float32)
        inliers = None
        if header.inliers is not None:
            inliers = handle.create_dataset("inliers", (n_queries, k), np.int32)
        n_done = 0
        for block in blocks():
            stop = n_done + len(block.rows)
            fault = fault_in(block.rows, block.scores, len(block.rows), n_database, first_query=n_done)
            if fault or stop > n_queries or block.rows.shape[1] != k:
                raise ValueError(f"cannot write {path}: {fault or f'{block.rows.shape} of {(n_queries, k)} rankings'}")
            rows[n_done:stop], scores[n_done:stop] = block.rows, block.scores
            if inliers is not None and block.inliers is not None:
                inliers[n_done:stop] = block.inliers
            n_done = stop
        if n_done != n_queries:
            raise ValueError(f"cannot write {path}: ranks must have one row per query, found {n_done} for {n_queries}")
        for name, values in (("query_names", header.query_names), ("database_names", header.database_names)):
            write_h5_names(handle, name, values)
        write_h5_marks(handle, "query", header.query_marks)
        write_h5_marks(handle, "database", header.database_marks)
        write_h5_header(handle, FORMAT, VERSION)
        handle.attrs["provenance"] = json.dumps((origin() if origin else header.origin).to_json())


class StoredRanking:
    """A rank file opened for reading, some queries at a time; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises UltronError if the file is absent, damaged, too new, or its parts do not fit each other."""
        self.path = path
        self._file = open_h5(path, LAYOUT)
        try:
            self._rows, self._scores = self._file.dataset("ranks"), self._file.dataset("scores")
            query_names, database_names = self._file.texts("query_names"), self._file.texts("database_names")
            self._inliers = self._file.dataset("inliers") if self._file.has("inliers") else None
            fault = _misshapen(self._rows, self._scores, len(query_names), self._inliers)
            if fault:
                raise self._unsound(fault)
            # What a Ranking tells beside its rows, which are read when they are needed.
            self.header = Ranking(
                query_names=query_names,
                database_names=database_names,
                rows=np.empty((len(query_names), 0), np.int64),
                scores=np.empty((len(query_names), 0), np.float32),
                origin=Origin.from_json(self._file.json("provenance", dict)),
                query_marks=read_h5_marks(self._file, "query", len(query_names)),
                database_marks=read_h5_marks(self._file, "database", len(database_names)),
            )
        except UltronError:
            self._file.close()
            raise
        self.k = int(self._rows.shape[1])

    def read(self, start: int, stop: int) -> RankedRows:
        """The rankings of queries start..stop. Raises UltronError if they contradict the names."""
        with damage_said(self.path, LAYOUT.again):
            rows, scores = self._rows[start:stop], self._scores[start:stop]
            inliers = None if self._inliers is None else self._inliers[start:stop]
        fault = fault_in(rows, scores, len(rows), len(self.header.database_names), first_query=start)
        if fault:
            raise self._unsound(fault)
        return RankedRows(rows, scores, inliers)

    def _unsound(self, fault: str) -> UltronError:
        return UltronError(f"{self.path}: {fault}; run `ultron search --out {self.path}` again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def read_ranks(path: Path) -> Ranking:
    """Reads a rank file whole. Raises UltronError if it is absent, damaged, too new, or its contents contradict each
    other."""
    with StoredRanking(path) as stored:
        ranked = stored.read(0, len(stored.header.query_names))
    return replace(stored.header, rows=ranked.rows, scores=ranked.scores, inliers=ranked.inliers)


def _misshapen(
    rows: np.ndarray | h5py.Dataset,
    scores: np.ndarray | h5py.Dataset,
    n_queries: int,
    inliers: h5py.Dataset | None = None,
) -> str | None:
    """What is wrong with types and shapes of a ranking of that many queries; None if nothing is."""
    if inliers is not None and inliers.shape != rows.shape:
        return f"inliers must have the shape of ranks, {rows.shape}; found {inliers.shape}"
    has_types = rows.dtype == np.int64 and scores.dtype == np.float32
    if not has_types or rows.ndim != 2 or scores.shape != rows.shape or len(rows) != n_queries:
        return (
            "ranks must be (Q, K) int64 and scores (Q, K) float32 with one name per query, found ranks "
            f"{rows.shape} {rows.dtype}, scores {scores.shape} {scores.dtype} and {n_queries} query names"
        )
    return None


def fault_in(
    rows: np.ndarray, scores: np.ndarray, n_queries: int, n_database: int, *, first_query: int = 0
) -> str | None:
    """What is wrong with a ranking of that many queries and database rows: the rule and the value that breaks it. None
    if nothing is. first_query: the number of the first of them in the whole ranking."""
    fault = _misshapen(rows, scores, n_queries)
    if fault:
        return fault
    for start, stop in chunks(n_queries, max(1, (1 << 22) // max(1, rows.shape[1]))):
        block = rows[start:stop]
        is_no_row = (block < PADDING) | (block >= n_database)
        if is_no_row.any():
            query, column = np.argwhere(is_no_row)[0].tolist()
            return (
                f"ranks must be rows of the {n_database} database names or -1, found {block[query, column]} for "
                f"query {first_query + start + query}"
            )
        has_gap = ((block[:, :-1] == PADDING) & (block[:, 1:] != PADDING)).any(axis=1)
        if has_gap.any():
            query = first_query + start + int(np.flatnonzero(has_gap)[0])
            return f"-1 must fill only the end of a row of ranks, query {query} has a row after it"
        has_nan = np.isnan(scores[start:stop]).any(axis=1)
        if has_nan.any():
            return (
                f"scores must not be NaN, found one for query {first_query + start + int(np.flatnonzero(has_nan)[0])}"
            )
    return None


def check_search(query_descriptors: np.ndarray, n: int, dim: int, k: int) -> None:
    """Raises UltronError unless the queries are finite (Q, D) rows for a database of n rows of `dim` values, and k is
    1..n."""
    if query_descriptors.ndim != 2 or query_descriptors.shape[1] != dim:
        raise UltronError(
            f"queries must be (Q, {dim}) like the database, found {query_descriptors.shape}; "
            "extract both with one model (`ultron extract --overwrite`)"
        )
    if not 1 <= k <= n:
        raise UltronError(f"k must be between 1 and the {n} rows of the database, found {k}; choose another `k`")
    for start, stop in chunks(len(query_descriptors), 4096):
        bad = np.flatnonzero(~np.isfinite(query_descriptors[start:stop]).all(axis=1))
        if bad.size:
            row = start + int(bad[0])
            raise UltronError(
                f"query descriptors must be finite, row {row} has NaN or infinity; extract the queries again"
            )


def packed(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint64 keys that sort as (-score, row): the bits of a float32 score, made to descend, above 32 bits of row."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0: they are equal scores
    descending = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    return descending.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def key_scores(keys: np.ndarray) -> np.ndarray:
    """float32 scores of keys; NaN for EMPTY."""
    descending = (keys >> np.uint64(32)).astype(np.uint32)
    return np.where(descending >> 31, descending, descending ^ np.uint32(0x7FFFFFFF)).view(np.float32)


def unpacked(keys: np.ndarray) -> RankedRows:
    """The ranking in (Q, K) sorted keys, C-contiguous, whose memory becomes its rows."""
    scores = np.empty(keys.shape, np.float32)
    flat_keys = keys.reshape(-1)
    flat_scores = scores.reshape(-1)
    for start, stop in chunks(keys.size, 1 << 18):
        flat_scores[start:stop] = key_scores(flat_keys[start:stop])
        flat_keys[start:stop] &= np.uint64(2**32 - 1)
    return RankedRows(keys.view(np.int64), scores)
