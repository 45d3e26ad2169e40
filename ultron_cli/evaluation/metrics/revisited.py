"""Average precision of Revisited Oxford and Paris, from rankings or straight from scores.

Definition: Radenovic et al., Revisiting Oxford and Paris, CVPR 2018, and its reference program revisitop. The numbers
are revisitop's on every ranking: full or partial, with or without repeats.
  - The photos a protocol ignores leave the ranking first; each positive moves up by the number of them above it.
  - AP is the area under precision over recall by the trapezoid rule, recall counted over all positives, found or not.
  - mP@k: positives among the first k, over k, where k is cut at the place of the last positive found.
  - A query without positives has AP NaN and is left out of the means; with no query left the means are NaN.
Where revisitop itself stops with an error, because a partial ranking holds no positive at all, AP and P@k are 0.
"""

import typing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, Protocol, QueryTruth
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.machine import n_cores

PRECISION_AT = (1, 5, 10)  # the k of mP@k that papers report
Duplicates = Literal["count", "first"]


class RankTable(typing.Protocol):
    """(Q, K) integers that give one query's row by index: an array, an HDF5 dataset, rows that are made when they are
    asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, query: int | slice, /) -> np.ndarray: ...


T = TypeVar("T", bound=RankTable)
Places = Callable[[np.ndarray], np.ndarray]  # database rows -> their places in one ranking, ascending, from 0


@dataclass(frozen=True, kw_only=True, eq=False)
class RevisitedResult:
    """The scores of all queries under one protocol, as fractions; AP can pass 1 where a ranking repeats photos.

    NaN in `ap` and `precision` marks a query without positives; NaN in mAP and mP means that no query had any.
    """

    mAP: float
    mP: dict[int, float]  # k -> mean precision at k
    queries_used: int  # queries with positives
    ap: np.ndarray = field(repr=False)  # (Q,) float64
    precision: np.ndarray = field(repr=False)  # (Q, 3) float64, at the k of PRECISION_AT


def average_precision(positive_ranks: np.ndarray, n_positives: int) -> float:
    """Average precision of one query by the trapezoid rule of revisitop (Radenovic et al. 2018).

    positive_ranks: (P,) integers, ascending, from 0, ignored photos already taken out. n_positives: at least 1, found
    or not. Raises ValueError if n_positives < 1.
    """
    if n_positives < 1:
        raise ValueError(
            f"n_positives must be at least 1, found {n_positives}; a query without positives has no average precision"
        )
    ranks = np.asarray(positive_ranks, np.float64)
    n_found_before = np.arange(len(ranks))
    # Precision just above the positive, 1 by definition at the very top, and precision with it.
    above = np.divide(n_found_before, ranks, out=np.ones(len(ranks)), where=ranks > 0)
    including = (n_found_before + 1) / (ranks + 1)
    return float((above + including).sum() / (2 * n_positives))


def precision_at(positive_ranks: np.ndarray, cuts: Sequence[int] = PRECISION_AT) -> np.ndarray:
    """(len(cuts),) float64: precision at each cut, the cut being lowered to the place of the last positive found.

    positive_ranks: (P,) integers, ascending, from 0, ignored photos already taken out; none gives zeros.
    """
    if len(positive_ranks) == 0:
        return np.zeros(len(cuts))
    places = np.asarray(positive_ranks) + 1
    lowered = np.minimum(cuts, places[-1])
    return np.searchsorted(places, lowered, side="right") / lowered


def revisited_map(
    ranks: RankTable, ground_truth: GroundTruth, protocol: Protocol, *, duplicates: Duplicates = "count"
) -> RevisitedResult:
    """mAP and mP@k of rankings under one protocol.

    ranks: (Q, K) integers, database rows, best first. K may be smaller than the database. Rows beyond database_names
    are distractors and count as negatives. -1 means no photo and pads the end of a row; in front of a photo it keeps
    its place, as in revisitop.
    duplicates: what to do with a photo that a ranking shows again: "count" every time, as revisitop does (AP can then
    pass 1), or take the "first" place and drop the later ones before scoring.
    Raises UltronError if there is not one row per query, the rows are not whole numbers, or the protocol is unknown.
    """
    _check_protocol(protocol)
    if duplicates not in ("count", "first"):
        raise UltronError(f"duplicates must be count or first; found {duplicates!r}")
    table = _checked_table(ranks, ground_truth, "ranks", kinds="iu", what="whole numbers, the rows of database photos")
    results = QueryScores(len(ground_truth.queries))
    for query in range(len(ground_truth.queries)):
        ranking = np.asarray(table[query])
        if duplicates == "first":
            ranking = _without_repeats(ranking)
        results.add(
            query, ground_truth, protocol, lambda photos, ranking=ranking: np.flatnonzero(np.isin(ranking, photos))
        )
    return results.summary()


def rankings_with_repeats(ranks: RankTable) -> np.ndarray:
    """(n,) int64: the queries whose ranking shows a photo more than once. ranks: (Q, K) integers; -1, no photo, may
    repeat."""
    table = ranks if hasattr(ranks, "shape") else np.asarray(ranks)
    return np.array(
        [query for query in range(table.shape[0]) if _has_repeats(np.asarray(table[query]))], dtype=np.int64
    )


def map_from_scores(
    scores: np.ndarray, ground_truth: GroundTruth, protocols: Sequence[Protocol] = tuple(PROTOCOLS)
) -> dict[str, RevisitedResult]:
    """The results of several protocols straight from similarity scores. No ranking is made: only labelled photos are
    placed.

    scores: (Q, N) floats, higher is better, N the database with its distractors after it (an array, or anything with a
    shape that gives one query's scores by index, such as a memory map).
    The results equal those of revisited_map on the full ranking by score in which equal scores stand by row. Queries
    are shared among the CPU cores; beside `scores` a core needs about 8 bytes per photo.
    Raises UltronError if a score is NaN, there is not one row per query, or N is less than the database.
    """
    for protocol in protocols:
        _check_protocol(protocol)
    table = _checked_table(scores, ground_truth, "scores", kinds="f", what="floating-point numbers, one per photo")
    n_database = len(ground_truth.database_names)
    if table.shape[1] < n_database:
        raise UltronError(
            f"scores must cover the database of {n_database} photos, distractors after it; found "
            f"{table.shape[1]}; score all of it"
        )
    results: dict[Protocol, QueryScores] = {protocol: QueryScores(len(ground_truth.queries)) for protocol in protocols}

    def score(query: int) -> None:
        query_scores = np.asarray(table[query])
        try:
            photos = _photos_that_matter(query_scores, ground_truth.queries[query])
            places = places_by_score(query_scores, photos)
        except NotANumber as error:
            name = ground_truth.query_names[query]
            raise UltronError(
                f"scores must be numbers; found NaN for query {name} at row {error}; make its descriptors again"
            ) from None

        def places_of(labelled: np.ndarray) -> np.ndarray:
            slots = np.searchsorted(photos, labelled).clip(max=len(photos) - 1)
            return np.unique(places[slots[photos[slots] == labelled]])

        for protocol, result in results.items():
            result.add(query, ground_truth, protocol, places_of)

    with ThreadPoolExecutor(n_cores()) as pool:  # NumPy sorts and compares without holding the interpreter's lock
        list(pool.map(score, range(len(ground_truth.queries))))
    return {protocol: result.summary() for protocol, result in results.items()}


class NotANumber(ValueError):
    """A score is NaN; the message is its row."""


def places_by_score(scores: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """(P,) int64: the places, from 0, of some photos among all, the highest score first, equal scores by row.

    scores: (N,) floats. photos: (P,) integers, rows of `scores`. Raises NotANumber if a score is NaN.

    Only scores are sorted, not rows, and only those from the lowest of `photos` upwards: NumPy 2 partitions and sorts
    float32 with vector instructions, many times faster than argsort (benchmarks/evaluate.py has the figures). Binary
    search then gives the number of higher scores, and rows are looked at only where a photo shares its score.
    """
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)  # exact, and compared faster
    if scores.size and np.isnan(scores.max()):
        raise NotANumber(int(np.flatnonzero(np.isnan(scores))[0]))
    if len(photos) == 0:
        return np.empty(0, np.int64)
    photo_scores = scores[photos]
    n_below = np.count_nonzero(scores < photo_scores.min())
    # Leaving out less than a fifth costs more than it saves.
    ascending = np.partition(scores, n_below)[n_below:] if n_below > len(scores) // 5 else scores.copy()
    ascending.sort()
    first = np.searchsorted(ascending, photo_scores, side="left")
    stop = np.searchsorted(ascending, photo_scores, side="right")
    places = len(ascending) - stop
    tied = np.flatnonzero(stop - first > 1)
    if tied.size:
        places[tied] += _equal_scores_before(scores, photos[tied])
    return places


def _photos_that_matter(scores: np.ndarray, truth: QueryTruth) -> np.ndarray:
    """(P,) int64, unique rows: the positives of any protocol, and the junk that does not score below all of them."""
    positives = truth.rows(("easy", "hard"))
    if len(positives) == 0:
        return np.empty(0, np.int64)
    junk = truth.junk[scores[truth.junk] >= scores[positives].min()]
    return np.unique(np.concatenate([positives, junk]))


def _equal_scores_before(scores: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """(P,) int64: for each photo, how many lower rows have exactly its score."""
    head = scores[: photos.max()]  # later rows stand after every one of these photos
    values = np.unique(scores[photos])
    nearest = np.minimum(np.searchsorted(values, head), len(values) - 1)
    sharing = np.flatnonzero(values[nearest] == head)
    # One key per row that shares a score: the scores in blocks, rows ascending inside a block.
    keys = np.sort(nearest[sharing] * len(scores) + sharing)
    block = np.searchsorted(values, scores[photos]) * len(scores)
    return np.searchsorted(keys, block + photos) - np.searchsorted(keys, block)


class QueryScores:
    """AP and P@k of the queries of one protocol while they are being filled in."""

    def __init__(self, n_queries: int) -> None:
        self.ap = np.full(n_queries, np.nan)
        self.precision = np.full((n_queries, len(PRECISION_AT)), np.nan)

    def add(self, query: int, ground_truth: GroundTruth, protocol: Protocol, places_of: Places) -> None:
        """Scores one query. `places_of` gives the places of database photos in its ranking; photos outside the ranking
        are left out."""
        positives, ignored = ground_truth.split(query, protocol)
        if len(positives) == 0:
            return
        positive_places = places_of(positives)
        # Ignored photos leave the ranking before AP; counted as negatives they would lower it.
        positive_ranks = positive_places - np.searchsorted(places_of(ignored), positive_places)
        self.ap[query] = average_precision(positive_ranks, len(positives))
        self.precision[query] = precision_at(positive_ranks)

    def summary(self) -> RevisitedResult:
        """The means over the queries that have positives."""
        used = ~np.isnan(self.ap)
        n_used = int(used.sum())
        means = self.precision[used].mean(axis=0) if n_used else np.full(len(PRECISION_AT), np.nan)
        return RevisitedResult(
            mAP=float(self.ap[used].mean()) if n_used else float("nan"),
            mP=dict(zip(PRECISION_AT, means.tolist(), strict=True)),
            queries_used=n_used,
            ap=self.ap,
            precision=self.precision,
        )


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise UltronError(
            f"a protocol must be one of {', '.join(PROTOCOLS)}; found {protocol!r}{nearest_names(protocol, PROTOCOLS)}"
        )


def _checked_table(values: T, ground_truth: GroundTruth, name: str, *, kinds: str, what: str) -> T | np.ndarray:
    """`values` itself, or an array of it where it is a list. Raises UltronError if it is not one row of
    numbers per query."""
    table = values if hasattr(values, "shape") else np.asarray(values)
    n_queries = len(ground_truth.queries)
    shape = tuple(table.shape)
    if len(shape) != 2 or shape[0] != n_queries:
        is_turned = len(shape) == 2 and shape[1] == n_queries
        advice = (
            "it looks turned, pass its transpose" if is_turned else "use the queries of this ground truth, in its order"
        )
        raise UltronError(
            f"{name} must have one row for each of the {n_queries} queries; found shape {shape}; {advice}"
        )
    dtype = np.asarray(table[:0]).dtype
    if dtype.kind not in kinds:
        raise UltronError(f"{name} must hold {what}; found {dtype}; convert them first")
    return table


def _has_repeats(ranking: np.ndarray) -> bool:
    ordered = np.sort(ranking)
    return bool(np.any((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)))


def _without_repeats(ranking: np.ndarray) -> np.ndarray:
    return ranking[~is_repeat(ranking)] if _has_repeats(ranking) else ranking


def is_repeat(ranking: np.ndarray) -> np.ndarray:
    """(K,) bool: whether a photo of a ranking stands before that place too; -1, no photo, may repeat."""
    repeats = ranking >= 0
    repeats[np.unique(ranking, return_index=True)[1]] = False
    return repeats
