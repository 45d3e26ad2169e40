"""Rankings made one: the scores or places of several, joined query by query, so that of millions of photos the rankings
of one query are in memory."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ultron_cli.configs import one_of, within
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.run import n_not_falling
from ultron_cli.retrieval.fusion.methods import RRF_K, FusionMethod, fusion_method
from ultron_cli.retrieval.fusion.norms import NORMS
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.origin import FusionRecord, Origin, TuningRecord
from ultron_cli.retrieval.rankings import PADDING, RankedRows, Ranking, packed, unpacked, write_rank_blocks

Ranked = Callable[[np.ndarray], RankedRows]
MOST_CANDIDATES = 101  # of weights that are tried


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How rankings are joined."""

    method: str = "rrf"  # of METHODS, or an import path
    settings: Mapping[str, object] = field(default_factory=dict)  # of a method by import path
    norm: str | None = None  # of NORMS; None: minmax, or none for a method that looks at places
    rrf_k: int = RRF_K
    weights: tuple[float, ...] | None = None  # one per ranking; None: 1 each

    def __post_init__(self) -> None:
        if self.way.of_places is None:
            object.__setattr__(self, "norm", one_of("norm", self.norm or "minmax", NORMS))
        elif self.norm is not None:
            raise UltronError(f"`norm` is of scores, {self.method} looks at places; leave it out")
        if self.rrf_k != RRF_K and self.method != "rrf":
            raise UltronError(f"`rrf_k` belongs to rrf, found {self.method}; leave it out")
        within("rrf_k", self.rrf_k, 0)
        for weight in self.weights or ():
            within("weights", weight, 0)
        if self.weights is not None and not any(self.weights):
            raise UltronError("one of the `weights` must be above 0; found none")

    @cached_property
    def way(self) -> FusionMethod:
        """The method. Code that it is an import path of is run."""
        return fusion_method(self.method, self.settings)


class QueryFusion(Protocol):
    """A way of joining that has settings: weights, or lambda and temperature."""

    @property
    def joined(self) -> JoinedParts: ...

    @property
    def header(self) -> Ranking:
        """Names, marks and what the parts' origins share; rows are empty."""
        ...

    def candidates(self) -> np.ndarray:
        """(C, s) float64 settings to be tried, the plainest first."""
        ...

    def of_query(self, query: int) -> Ranked:
        """What gives a query's joined ranking, (n,) rows and float32 scores, for (s,) settings."""
        ...

    def record(self, settings: np.ndarray | None, tuning: TuningRecord | None) -> FusionRecord:
        """As an Origin holds it. settings: (s,) of all queries; None where they were tuned by folds."""
        ...


class ScoreFusion:
    """Rankings joined by a method of METHODS; its settings are weights."""

    def __init__(self, joined: JoinedParts, config: FusionConfig) -> None:
        n_parts = len(joined.paths)
        if config.weights is not None and len(config.weights) != n_parts:
            raise UltronError(f"`weights` must be given once per ranking; found {len(config.weights)} for {n_parts}")
        self.joined = joined
        self.config = config
        self._method = config.way
        self._row_of = np.empty(len(joined.header.database_names), np.int32)  # in the photos of the query at hand
        self._is_ranked = np.zeros(len(joined.header.database_names), bool)
        self._has_said_rising: set[int] = set()

    @property
    def weights(self) -> np.ndarray:
        """(m,) those of the configuration."""
        n_parts = len(self.joined.paths)
        return np.array(self.config.weights or (1.0,) * n_parts, np.float64)

    @property
    def header(self) -> Ranking:
        return self.joined.header

    def candidates(self) -> np.ndarray:
        return weight_candidates(len(self.joined.paths))

    def of_query(self, query: int) -> Ranked:
        rows, values = self.values(query)

        def ranked(weights: np.ndarray) -> RankedRows:
            return best_first(rows, self._method.combine(values, weights))

        return ranked

    def values(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """((n,) int64 rows of the photos that some part ranks, ascending; (m, n) float64 what each part gives them, NaN
        for nothing)."""
        parts = [self.joined.ranked(part, query) for part in range(len(self.joined.paths))]
        for part in parts:
            self._is_ranked[part.rows] = True
        rows = np.flatnonzero(self._is_ranked)
        self._is_ranked[rows] = False
        self._row_of[rows] = np.arange(len(rows))
        values = np.full((len(parts), len(rows)), np.nan)
        for i, part in enumerate(parts):
            # Backwards, so that of a photo that is repeated the first place stays.
            values[i, self._row_of[part.rows[::-1]]] = self._contribution(part.scores, i)[::-1]
        return rows, values

    def _contribution(self, scores: np.ndarray, part: int) -> np.ndarray:
        """(n,) float64 of (n,) float32 scores, best first."""
        if self._method.of_places is not None:
            return self._method.of_places(np.arange(len(scores)), self.config.rrf_k)
        if not len(scores):
            return scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise UltronError(
                f"{self.joined.paths[part]} has scores that are not finite, which {self.config.method} cannot add; "
                "join by places (rrf)"
            )
        if part not in self._has_said_rising and n_not_falling(scores[None], np.ones((1, len(scores)), bool))[1]:
            self._has_said_rising.add(part)
            log.warning(
                "%s has scores that rise from photo to photo, as behind re-ranked ones: %s orders by scores and not by "
                "its places, rrf and isr by places",
                self.joined.paths[part],
                self.config.method,
            )
        return NORMS[self.config.norm or "none"](scores.astype(np.float64))

    def record(self, settings: np.ndarray | None, tuning: TuningRecord | None) -> FusionRecord:
        of_method: dict[str, object] = {"rrf_k": self.config.rrf_k} if self.config.method == "rrf" else {}
        if self._method.part is not None:
            of_method = {**self.config.settings, "code_sha256": self._method.part.sha256}
        return FusionRecord(
            kind="rankings",
            method=self.config.method,
            norm=self.config.norm,
            settings=of_method,
            parts=self.joined.records(None if settings is None else settings.tolist()),
            tuning=tuning,
        )


def best_first(rows: np.ndarray, scores: np.ndarray) -> RankedRows:
    """(n,) int64 rows and float32 scores, the highest score first, equal ones by row."""
    ranked = unpacked(np.sort(packed(scores.astype(np.float32), rows))[None])
    return RankedRows(ranked.rows[0], ranked.scores[0])


def weight_candidates(n_parts: int) -> np.ndarray:
    """(C, m) weights that sum to 1, C at most MOST_CANDIDATES unless there are more parts: equal ones, then a grid in
    which steps are as fine as that allows."""
    n_steps = 1
    while n_steps < 20 and len(_compositions(n_steps + 1, n_parts, MOST_CANDIDATES)) <= MOST_CANDIDATES:
        n_steps += 1
    grid = np.array(_compositions(n_steps, n_parts, MOST_CANDIDATES), np.float64) / n_steps
    equal = np.full((1, n_parts), 1 / n_parts)
    # Of candidates that are equally good the one nearest to equal weights is taken.
    order = np.argsort(np.abs(grid - equal).sum(axis=1).round(9), kind="stable")
    return np.concatenate([equal, grid[order]])


def _compositions(total: int, n_parts: int, most: int) -> list[tuple[int, ...]]:
    """The ways to write a total as n_parts numbers from 0, in order; no more than most + 1 of them, or n_parts."""
    if n_parts == 1:
        return [(total,)]
    ways: list[tuple[int, ...]] = []
    for first in range(total, -1, -1):
        ways += [(first, *rest) for rest in _compositions(total - first, n_parts - 1, most)]
        if len(ways) > max(most, n_parts):
            break
    return ways


def write_fusion(
    path: Path,
    fusion: QueryFusion,
    settings: np.ndarray,
    *,
    k: int | None = None,
    tuning: TuningRecord | None = None,
    searched_by: dict[str, object] | None = None,
) -> Ranking:
    """Writes the joined ranking of every query. Gives what the file tells beside its rows.

    settings: (Q, s) of each query. k: photos per query; None: all that are ranked.
    """
    header = fusion.header
    n_ranked = fusion.joined.most_photos()
    n_stored = n_ranked if k is None else min(k, n_ranked)
    spent_s = 0.0

    def blocks() -> Iterator[RankedRows]:
        nonlocal spent_s
        for query in range(len(header.query_names)):
            started_s = time.perf_counter()
            ranked = fusion.of_query(query)(settings[query])
            rows = np.full((1, n_stored), PADDING, np.int64)
            scores = np.full((1, n_stored), -np.inf, np.float32)
            n = min(n_stored, len(ranked.rows))
            rows[0, :n], scores[0, :n] = ranked.rows[:n], ranked.scores[:n]
            spent_s += time.perf_counter() - started_s
            yield RankedRows(rows, scores)

    is_alike = bool(len(settings)) and bool((settings == settings[0]).all()) and tuning is None
    optimistic = tuning is not None and tuning.optimistic
    record = fusion.record(settings[0] if len(settings) and (is_alike or optimistic) else None, tuning)
    final: list[Origin] = []

    def origin() -> Origin:
        timed = replace(record, ms_per_query=spent_s * 1e3 / max(1, len(header.query_names)))
        final.append(replace(header.origin, fusion=timed, searched_by=searched_by))
        return final[-1]

    write_rank_blocks(path, header, blocks, n_stored, origin)
    return replace(header, origin=final[-1])


def same_for_all(values: Sequence[float] | np.ndarray, n_queries: int) -> np.ndarray:
    """(Q, s) settings that are those of every query."""
    return np.tile(np.asarray(values, np.float64), (n_queries, 1))
