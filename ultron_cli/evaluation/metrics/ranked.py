"""What a metric is, and what it sees of a search: the ranks of each query's positives under one protocol."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.evaluation.metrics.revisited import RankTable, is_repeat
from ultron_cli.user_code import blaming


@dataclass(frozen=True, kw_only=True)
class RankedQuery:
    """The ranking of one query. Photos that the protocol ignores have left it, and each photo counts at its first
    place; a repeat of it holds a place, as in GLDv2."""

    name: str
    ranks: np.ndarray = field(repr=False)  # (P,) int64, places of the positives that it holds, ascending, from 0
    n_positives: int  # ranked or not
    best_score: float | None  # of its first photo; None where it has none, or scores are not known


class Metric(ABC):
    """A score of a search between 0 and 1. Of METRICS, or of a file of your own."""

    needs_scores = False  # whether it looks at similarity scores

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name with its k, as tables show it."""


class QueryMetric(Metric):
    """A metric that is the mean over the queries that have positives, with an interval and comparisons."""

    @abstractmethod
    def of_query(self, query: RankedQuery) -> float:
        """The score of a query that has positives."""


class OverallMetric(Metric):
    """A metric of all queries together, those without positives too."""

    @abstractmethod
    def of_all(self, queries: Sequence[RankedQuery]) -> float:
        """The score; NaN where no query has positives."""


def ranked_queries(
    ranks: RankTable,
    ground_truth: GroundTruth,
    protocol: Protocol,
    scores: np.ndarray | None = None,
    *,
    drop_repeats: bool = False,
) -> list[RankedQuery]:
    """What metrics see of rankings. ranks, ground_truth, protocol: as of revisited_map. scores: (Q, K) floats, of
    the photos in `ranks`. drop_repeats: whether those leave the ranking too."""
    queries = []
    for query, name in enumerate(ground_truth.query_names):
        positives, ignored = ground_truth.split(query, protocol)
        ranking = np.asarray(ranks[query])
        is_ignored = np.isin(ranking, ignored) | (drop_repeats & is_repeat(ranking))
        places = np.flatnonzero(np.isin(ranking, positives) & ~is_ignored)
        _, first = np.unique(ranking[places], return_index=True)
        places = places[np.sort(first)]
        counted_places = np.flatnonzero(~is_ignored & (ranking >= 0))
        best_score = None
        if scores is not None and len(counted_places):
            best_score = float(scores[query, counted_places[0]])
        queries.append(
            RankedQuery(
                name=name,
                ranks=places - np.searchsorted(np.flatnonzero(is_ignored), places),
                n_positives=len(np.setdiff1d(positives, ignored)),
                best_score=best_score,
            )
        )
    return queries


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """What a metric gives."""

    score: float  # NaN where no query has positives
    values: np.ndarray | None = field(repr=False)  # (Q,) float64, NaN without positives; None of an OverallMetric


def score_of(metric: Metric, queries: Sequence[RankedQuery], members: Collection[str] | None = None) -> MetricResult:
    """A metric of the queries of a search, or of those of them that are named. Raises UltronError, naming the place,
    if a user's gives no numbers."""
    with blaming(metric):
        return _scored(metric, queries, members)


def _scored(metric: Metric, queries: Sequence[RankedQuery], members: Collection[str] | None) -> MetricResult:
    is_member = [members is None or query.name in members for query in queries]
    if isinstance(metric, OverallMetric):
        chosen_queries = [query for query, belongs in zip(queries, is_member, strict=True) if belongs]
        return MetricResult(score=float(metric.of_all(chosen_queries)), values=None)
    assert isinstance(metric, QueryMetric)
    values = np.array(
        [
            metric.of_query(query) if belongs and query.n_positives else np.nan
            for query, belongs in zip(queries, is_member, strict=True)
        ],
        np.float64,
    )
    used = values[~np.isnan(values)]
    return MetricResult(score=float(used.mean()) if len(used) else float("nan"), values=values)
