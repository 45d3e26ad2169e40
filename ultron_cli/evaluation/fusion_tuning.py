"""Settings of a fusion (weights, or lambda and temperature) tuned by mAP, on other queries than they are used for.

Queries are dealt into folds, whole landmarks at a time: queries of one landmark share positives, so that one of them
would tell what is right for another. Each fold gets the settings that are best on average over the queries of all other
folds. Tuned on the evaluated queries themselves, settings fit their noise: even random scores then help.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import RowsOfTruth, ranking_against
from ultron_cli.evaluation.landmarks import landmarks_of
from ultron_cli.evaluation.metrics.revisited import QueryScores
from ultron_cli.retrieval.fusion.rankings import QueryFusion
from ultron_cli.retrieval.origin import TuningRecord


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """How settings are tuned."""

    protocol: Protocol
    folds: int = 5
    seed: int = 0
    optimistic: bool = False  # on the evaluated queries themselves

    def __post_init__(self) -> None:
        if self.folds < 2 and not self.optimistic:
            raise UltronError(
                f"weights tuned on the queries that they are evaluated on make scores too high; `folds` must be at "
                f"least 2, found {self.folds}",
                "have them all the same with `optimistic`",
            )
        within("seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class TunedFold:
    """Queries and the settings that were tuned without them."""

    queries: list[str]
    settings: tuple[float, ...]
    mAP: float  # of those settings on the queries that they were tuned on, a fraction


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings of every query."""

    settings: np.ndarray  # (Q, s) in the order of the rankings
    folds: list[TunedFold]
    record: TuningRecord


def tune(fusion: QueryFusion, gnd: Path | GroundTruth, config: TuningConfig) -> Tuned:
    """The best settings of each fold of the queries by mAP. Raises UltronError if ranking and ground truth do not
    belong together, or there are too few landmarks for two folds."""
    truth, rows = ranking_against(fusion.header, gnd)
    candidates = fusion.candidates()
    ap = _ap_of_candidates(fusion, candidates, truth, rows, config.protocol)
    fold_of = np.zeros(len(truth.queries), np.int64) if config.optimistic else _folds(truth, config)
    best = _best_of_all(ap)
    settings = np.tile(candidates[best], (len(fusion.header.query_names), 1))  # of queries without a ground truth too
    folds = []
    for fold in range(int(fold_of.max()) + 1):
        members = np.flatnonzero(fold_of == fold)
        others = members if config.optimistic else np.flatnonzero(fold_of != fold)
        best = _best_of_all(ap[others])
        settings[rows.query_rows[members]] = candidates[best]
        folds.append(
            TunedFold(
                queries=[truth.query_names[i] for i in members.tolist()],
                settings=tuple(candidates[best].tolist()),
                mAP=float(np.nanmean(ap[others, best])),
            )
        )
    record = TuningRecord(
        protocol=config.protocol,
        settings=tuple(fold.settings for fold in folds),
        n_candidates=len(candidates),
        seed=config.seed,
        optimistic=config.optimistic,
    )
    return Tuned(settings=settings, folds=folds, record=record)


def _best_of_all(ap: np.ndarray) -> int:
    """The candidate of the highest mean AP, the first of equal ones. ap: (q, C), NaN for queries without positives."""
    used = ap[~np.isnan(ap[:, 0])]
    if not len(used):
        raise UltronError("no query to tune on has positives under this protocol; name another with `tune`")
    return int(used.mean(axis=0).round(12).argmax())


def _ap_of_candidates(
    fusion: QueryFusion, candidates: np.ndarray, truth: GroundTruth, rows: RowsOfTruth, protocol: Protocol
) -> np.ndarray:
    """(q, C) AP of the ground truth's queries with each candidate; NaN for a query without positives."""
    results = [QueryScores(len(truth.queries)) for _ in candidates]
    for query, row in enumerate(rows.query_rows.tolist()):
        ranked = fusion.of_query(row)
        for result, settings in zip(results, candidates, strict=True):
            ranking = rows.truth_rows[ranked(settings).rows]
            result.add(query, truth, protocol, lambda photos, ranking=ranking: np.flatnonzero(np.isin(ranking, photos)))
    return np.stack([result.ap for result in results], axis=1)


def _folds(truth: GroundTruth, config: TuningConfig) -> np.ndarray:
    """(q,) int64: the fold of each query, whole landmarks in one; queries without positives are in the first."""
    groups = [landmark.queries for landmark in landmarks_of(truth)]
    if len(groups) < 2:
        raise UltronError(
            f"settings are tuned on queries of other landmarks; found {counted(len(groups), 'landmark')} among "
            f"{counted(len(truth.queries), 'query', 'queries')}; give `weights` that were tuned on other photos"
        )
    n_folds = min(config.folds, len(groups))
    if n_folds < config.folds:
        log.info("%s for %d folds, so there are %d", counted(len(groups), "landmark"), config.folds, n_folds)
    fold_of = np.zeros(len(truth.queries), np.int64)
    order = np.random.default_rng(config.seed).permutation(len(groups))
    sizes = np.zeros(n_folds, np.int64)
    for group in order.tolist():
        fold = int(sizes.argmin())
        fold_of[list(groups[group])] = fold
        sizes[fold] += len(groups[group])
    return fold_of
