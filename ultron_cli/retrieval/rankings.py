"""Rankings, their order, and the only code that reads or writes rank files (HDF5). The searches are in exact.py and
index.py.

Layout (a contract, see docs/file-formats.md): attributes format, version, created, ultron_version, provenance (JSON);
datasets /ranks (Q, K) int64, /scores (Q, K) float32, /query_names (Q,) and /database_names (N,) UTF-8.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ultron_cli import __version__
from ultron_cli.console import chunks
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.retrieval.descriptors import open_h5

FORMAT, VERSION = "ultron-ranks", 1
PADDING = -1  # the row where an approximate index found fewer than K
EMPTY = np.uint64(2**64 - 1)  # sorts after the key of every finite score


@dataclass(frozen=True)
class Ranking:
    """Database rows per query, best first, equal scores by row.

    rows: (Q, K) int64, -1 where nothing was found. scores: (Q, K) float32, -infinity where nothing was found.
    """

    rows: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RankFile:
    """What a rank file holds. provenance: whatever its writer said of the search (index, re-ranking, descriptor
    files)."""

    path: Path
    ranking: Ranking
    query_names: list[str]
    database_names: list[str]
    provenance: dict[str, Any]
    created: str
    ultron_version: str


def write_ranks(
    path: Path,
    ranking: Ranking,
    query_names: Sequence[str],
    database_names: Sequence[str],
    *,
    provenance: dict[str, Any],
) -> None:
    """Writes a rank file atomically. Raises ValueError if the ranking does not fit the names."""
    fault = fault_in(ranking, len(query_names), len(database_names))
    if fault:
        raise ValueError(f"cannot write {path}: {fault}")
    with whole_file(path) as temporary, h5py.File(temporary, "w") as handle:
        handle["ranks"], handle["scores"] = ranking.rows, ranking.scores
        for name, values in (("query_names", query_names), ("database_names", database_names)):
            handle[name] = np.array(list(values), dtype=h5py.string_dtype("utf-8"))
        handle.attrs["format"], handle.attrs["version"] = FORMAT, VERSION
        handle.attrs["provenance"] = json.dumps(provenance)
        handle.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        handle.attrs["ultron_version"] = __version__


def read_ranks(path: Path) -> RankFile:
    """Reads a rank file whole. Raises UltronError if it is absent, damaged, too new, or its contents contradict each
    other."""
    with open_h5(path, FORMAT, VERSION, "rank file") as handle:
        try:
            ranking = Ranking(handle["ranks"][:], handle["scores"][:])
            names = {key: [str(name) for name in handle[key].asstr()[:]] for key in ("query_names", "database_names")}
            provenance = json.loads(handle.attrs.get("provenance", "{}"))
            written = {key: str(handle.attrs.get(key, "")) for key in ("created", "ultron_version")}
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise UltronError(
                f"{path} lacks a readable part of a rank file ({error}); run `ultron search --out {path}` again"
            ) from error
    fault = fault_in(ranking, len(names["query_names"]), len(names["database_names"]))
    if fault:
        raise UltronError(f"{path}: {fault}; run `ultron search --out {path}` again")
    return RankFile(path=path, ranking=ranking, provenance=provenance, **names, **written)


def fault_in(ranking: Ranking, n_queries: int, n_database: int) -> str | None:
    """What is wrong with a ranking for that many queries and database rows: the rule and what was found; None if
    nothing is."""
    rows, scores = ranking.rows, ranking.scores
    if (
        rows.ndim != 2
        or rows.dtype != np.int64
        or scores.dtype != np.float32
        or scores.shape != rows.shape
        or len(rows) != n_queries
    ):
        return (
            "ranks must be (Q, K) int64 and scores (Q, K) float32 with one name per query, found ranks "
            f"{rows.shape} {rows.dtype}, "
            f"scores {scores.shape} {scores.dtype} and {n_queries} query names"
        )
    for start, stop in chunks(n_queries, max(1, (1 << 22) // max(1, rows.shape[1]))):
        block = rows[start:stop]
        wrong = (block < PADDING) | (block >= n_database)
        if wrong.any():
            query, place = (int(at[0]) for at in np.nonzero(wrong))
            return (
                f"ranks must be rows of the {n_database} database names or -1, found {block[query, place]} for "
                f"query {start + query}"
            )
        gaps = ((block[:, :-1] == PADDING) & (block[:, 1:] != PADDING)).any(axis=1)
        if gaps.any():
            return (
                f"-1 must fill only the end of a row of ranks, query {start + int(np.flatnonzero(gaps)[0])} has a "
                "row after it"
            )
        nans = np.isnan(scores[start:stop]).any(axis=1)
        if nans.any():
            return f"scores must not be NaN, found one for query {start + int(np.flatnonzero(nans)[0])}"
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
        raise UltronError(f"k must be between 1 and the {n} rows of the database, found {k}; choose another with -k")
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


def unpacked(keys: np.ndarray) -> Ranking:
    """The ranking in (Q, K) sorted keys, C-contiguous, whose memory becomes its rows."""
    scores, flat_keys = np.empty(keys.shape, np.float32), keys.reshape(-1)
    flat_scores = scores.reshape(-1)
    for start, stop in chunks(keys.size, 1 << 18):
        flat_scores[start:stop] = key_scores(flat_keys[start:stop])
        flat_keys[start:stop] &= np.uint64(2**32 - 1)
    return Ranking(keys.view(np.int64), scores)
