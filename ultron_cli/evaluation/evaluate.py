"""Scores a search against a ground truth: photos are matched by name, and the scores keep the origin of the search."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.datasets.landmarks.exclusions import read_exclusions
from ultron_cli.datasets.protocols import LABELS, PROTOCOLS, GroundTruth, Protocol, QueryTruth, load_ground_truth
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics import (
    METRICS_OF_DATASET,
    Duplicates,
    RevisitedResult,
    metrics_of,
    rankings_with_repeats,
    revisited_map,
)
from ultron_cli.evaluation.metrics.ranked import MetricResult, ranked_queries, score_of
from ultron_cli.evaluation.result import Evaluation, percent
from ultron_cli.evaluation.soundness import weaknesses
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.arrays import is_array, to_numpy
from ultron_cli.retrieval.origin import Origin, SearchRecord
from ultron_cli.retrieval.overlap import own_rows_of, own_rows_problem
from ultron_cli.retrieval.rankings import OwnRows, Ranking

if TYPE_CHECKING:
    from ultron_cli.retrieval.arrays import Array

    Labels = Sequence[object] | Array

RIGHT_GND = "name the right `gnd`"


def find_gnd(gnd: Path | None, origin: Origin) -> Path:
    """The ground truth to score against: --gnd, else the one recorded at extraction. Raises UltronError if there is
    none."""
    if gnd:
        return gnd
    recorded = origin.ground_truth
    if not recorded:
        raise UltronError(
            "these descriptors were made from photos without a ground truth; extract with one (`ultron extract --gnd "
            "FILE`)",
            "name one with `gnd` FILE",
        )
    if not os.path.isfile(recorded):
        raise UltronError(f"the ground truth was at {recorded}, which is gone; put it back", "name it with `gnd`")
    return Path(recorded)


def _queries_present(
    truth: GroundTruth, query_names: Sequence[str], skipped_names: set[str]
) -> tuple[GroundTruth, list[int]]:
    """The ground truth cut down to the queries that were searched, and their rows in the ranking."""
    row_of = {name: row for row, name in enumerate(query_names)}
    absent_names = [name for name in truth.query_names if name not in row_of]
    unexplained = [name for name in absent_names if name not in skipped_names]
    if unexplained:
        raise UltronError(
            f"the ranking lacks {counted(len(unexplained), 'query', 'queries')} of the ground truth, for "
            f"example {unexplained[0]!r}"
            f"{nearest_names(unexplained[0], row_of)}; search with all queries",
            RIGHT_GND,
        )
    if absent_names:
        n_absent = counted(len(absent_names), "query", "queries")
        log.warning("%s left out at extraction: %s", n_absent, named(absent_names))
    positions = [i for i, name in enumerate(truth.query_names) if name in row_of]
    if not positions:
        raise UltronError(
            f"not one of {counted(len(truth.query_names), 'query', 'queries')} of the ground truth was searched; "
            "extract them again",
            RIGHT_GND,
        )
    searched_truth = replace(
        truth, query_names=[truth.query_names[i] for i in positions], queries=[truth.queries[i] for i in positions]
    )
    return searched_truth, [row_of[name] for name in searched_truth.query_names]


@dataclass(frozen=True)
class RowsOfTruth:
    """(Q, K) rankings as rows of a ground truth's database, each made when it is asked for: of millions of photos a
    second table would be felt."""

    ranked_rows: np.ndarray  # (q, K) of the ranking, -1 for no photo
    query_rows: np.ndarray  # (Q,) its queries, in the order of the ground truth
    truth_rows: np.ndarray  # (N + 1,) of each database photo of the ranking, int32 where they fit; -1 at the end

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query_rows), self.ranked_rows.shape[1]

    def __getitem__(self, query: int | slice) -> np.ndarray:
        return self.truth_rows[self.ranked_rows[self.query_rows[query]]]


def _rows_of_truth(ranking: Ranking, truth: GroundTruth, query_rows: list[int]) -> RowsOfTruth:
    """The rankings of some queries as rows of the ground truth's database; photos outside it (distractors) get numbers
    after it."""
    row_of = {name: row for row, name in enumerate(truth.database_names)}
    n_known = len(row_of)
    dtype = np.int32 if n_known + len(ranking.database_names) < 2**31 else np.int64
    n = len(ranking.database_names)
    numbers = (row_of.get(name, n_known + i) for i, name in enumerate(ranking.database_names))
    truth_rows = np.fromiter(chain(numbers, [-1]), dtype, n + 1)
    n_missing = n_known - int((truth_rows[:n] < n_known).sum())
    if n_missing == n_known:
        raise UltronError(
            f"not one of {counted(n_known, 'photo')} of the ground truth is in the database of "
            f"{len(ranking.database_names):,}; search the photos that it is of",
            RIGHT_GND,
        )
    if n_missing:
        log.warning(
            "%s of the ground truth not in the database; as positives they count as not found",
            counted(n_missing, "photo"),
        )
    return RowsOfTruth(ranking.rows, np.array(query_rows), truth_rows)


def ranking_against(ranking: Ranking, gnd: Path | GroundTruth) -> tuple[GroundTruth, RowsOfTruth]:
    """The ground truth (a file, or in memory) of the queries that were searched, and their rankings as its rows; photos
    outside it are numbered after it.

    Raises UltronError if ranking and ground truth do not belong together.
    """
    truth = gnd if isinstance(gnd, GroundTruth) else load_ground_truth(gnd)
    ranking = _named_as(truth, ranking)
    skipped_names = {photo.name for photo in ranking.origin.skipped}
    truth, query_rows = _queries_present(truth, ranking.query_names, skipped_names)
    return truth, _rows_of_truth(ranking, truth, query_rows)


def _named_as(truth: GroundTruth, ranking: Ranking) -> Ranking:
    """The ranking with the names that a ground truth has: where those are ids, the last part of each path, without its
    suffix."""
    if not truth.names_are_ids:
        return ranking
    names = (
        [os.path.splitext(name.rpartition("/")[2])[0] for name in part]
        for part in (ranking.query_names, ranking.database_names)
    )
    query_names, database_names = names
    return replace(ranking, query_names=query_names, database_names=database_names)


def _with_own_rows(
    truth: GroundTruth, ranking: Ranking, own_rows: OwnRows, *, are_left_out: bool
) -> tuple[GroundTruth, int]:
    """(the ground truth, in which no query is its own positive where queries leave their own rankings; the number of
    queries that count in their own rankings, as those do that are not junk there)."""
    own_of = {ranking.query_names[query]: rows for query, rows in own_rows.items()}
    row_of = {name: row for row, name in enumerate(truth.database_names)}
    queries = list(truth.queries)
    n_counted = 0
    for i, name in enumerate(truth.query_names):
        if name not in own_of:
            continue
        rows_of_self = np.array([row_of.get(ranking.database_names[row], -1) for row in own_of[name]], np.int64)
        if are_left_out:
            labels = {
                label: rows[~np.isin(rows, rows_of_self)] for label in LABELS for rows in [getattr(queries[i], label)]
            }
            queries[i] = replace(queries[i], **labels)
        elif not np.isin(rows_of_self, queries[i].junk).all():
            n_counted += 1
    return replace(truth, queries=queries), n_counted


def _repeats_problem(
    rows: RowsOfTruth, truth: GroundTruth, results: Mapping[str, RevisitedResult], duplicates: Duplicates
) -> UltronError | None:
    """That rankings show photos again, what that does to AP, and what to do; None if they do not."""
    repeating_queries = rankings_with_repeats(rows)
    if not len(repeating_queries):
        return None
    example = truth.query_names[repeating_queries[0]]
    n_rankings = counted(len(repeating_queries), "ranking names", "rankings name")
    problem = f"{n_rankings} a photo more than once, for example that of {example}"
    if duplicates == "first":
        return UltronError(f"{problem}; only the first counts")
    highest = max(float(np.nanmax(result.ap, initial=0)) for result in results.values())
    effect = f", which takes AP up to {percent(highest)} %" if highest > 1 else ""
    return UltronError(
        f"{problem}; each repeat counts, as in revisitop{effect}; name each photo once",
        "count only the first with `duplicates` first",
    )


def _further_metrics(
    names: Sequence[str],
    ranking: Ranking,
    rows: RowsOfTruth,
    truth: GroundTruth,
    protocols: Sequence[Protocol],
    duplicates: Duplicates,
) -> dict[str, dict[str, MetricResult]]:
    """protocol -> name -> what each metric gives, of all queries and of each part of them that the ground truth
    names."""
    metrics = metrics_of(names)
    if not metrics:
        return {}
    scores = None
    if any(metric.needs_scores for metric in metrics):
        if ranking.scores is None:
            needing = next(metric.name for metric in metrics if metric.needs_scores)
            raise UltronError(
                f"{needing} looks at similarity scores, which this ranking lacks; search with scores",
                f"name it with `metric` {needing}",
            )
        scores = ranking.scores[rows.query_rows]
    results: dict[str, dict[str, MetricResult]] = {}
    for protocol in protocols:
        queries = ranked_queries(rows, truth, protocol, scores, drop_repeats=duplicates == "first")
        results[protocol] = {metric.name: score_of(metric, queries) for metric in metrics}
        for part, members in truth.parts.items():
            results[protocol] |= {f"{metric.name} {part}": score_of(metric, queries, members) for metric in metrics}
    return results


@dataclass(frozen=True, kw_only=True)
class ScoredRanking:
    """A ranking beside its scores, for who wants to know where they come from."""

    ranking: Ranking
    truth: GroundTruth  # of the queries that were searched
    rows: RowsOfTruth
    results: Mapping[str, RevisitedResult]
    evaluation: Evaluation

    def photo_name(self, row: int) -> str:
        """The name of a photo by its number in `rows`."""
        n_known = len(self.truth.database_names)
        return self.truth.database_names[row] if row < n_known else self.ranking.database_names[row - n_known]


def evaluate_ranking(
    ranking: Ranking,
    gnd: Path | GroundTruth,
    protocols: Sequence[Protocol] = tuple(PROTOCOLS),
    duplicates: Duplicates = "count",
    *,
    leave_out_queries: bool = False,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """The scores of a ranking. Raises UltronError if ranking and ground truth do not belong together.

    leave_out_queries: a query that is in the database too leaves its own ranking, and is no positive of itself.
    metrics: further ones by name, of METRICS; none are those of the dataset's authors.
    """
    return score_ranking(
        ranking, gnd, protocols, duplicates, leave_out_queries=leave_out_queries, metrics=metrics
    ).evaluation


def score_ranking(
    ranking: Ranking,
    gnd: Path | GroundTruth,
    protocols: Sequence[Protocol] = tuple(PROTOCOLS),
    duplicates: Duplicates = "count",
    *,
    leave_out_queries: bool = False,
    metrics: Sequence[str] = (),
) -> ScoredRanking:
    """As evaluate_ranking, with what the scores were made from."""
    rows_of_self = own_rows_of(ranking)
    search = ranking.origin.search or SearchRecord()
    if leave_out_queries:
        ranking = ranking.without_own_rows(rows_of_self)
        search = replace(search, leaves_out_queries=True)
        ranking = replace(ranking, origin=replace(ranking.origin, search=search))
    truth = gnd if isinstance(gnd, GroundTruth) else load_ground_truth(gnd)
    ranking = _named_as(truth, ranking)
    truth, rows = ranking_against(ranking, truth)
    truth, n_counted = _with_own_rows(truth, ranking, rows_of_self, are_left_out=search.leaves_out_queries)
    results = {protocol: revisited_map(rows, truth, protocol, duplicates=duplicates) for protocol in protocols}
    origin = replace(
        ranking.origin,
        ground_truth=str(gnd) if isinstance(gnd, Path) else None,
        k=int(ranking.rows.shape[1]),
        duplicates=duplicates,
        evaluated_by=provenance(),
    )
    dataset = dataset_name(ranking.origin, gnd)
    warnings: list[str | UltronError] = [*weaknesses(truth, results, dataset, origin)]
    if n_counted:
        warnings.insert(0, own_rows_problem(n_counted, len(truth.query_names)))
    if problem := _repeats_problem(rows, truth, results, duplicates):
        warnings.insert(0, problem)
    for warning in warnings:
        log.warning("%s", warning)
    evaluation = Evaluation.of(
        results,
        dataset=dataset,
        query_names=truth.query_names,
        n_database=len(ranking.database_names),
        origin=origin,
        warnings=[str(warning) for warning in warnings],
        metrics=_further_metrics(
            metrics or truth.metrics or METRICS_OF_DATASET.get(dataset, ()), ranking, rows, truth, protocols, duplicates
        ),
    )
    return ScoredRanking(ranking=ranking, truth=truth, rows=rows, results=results, evaluation=evaluation)


def score_without(
    scored: ScoredRanking, lists: Sequence[Path], protocols: Sequence[Protocol], duplicates: Duplicates = "count"
) -> Evaluation:
    """The scores of a ranking without the queries that are on lists, one name per line, which may name more than there
    are. A query goes by its name, and by the last part of it, with its suffix and without. Raises UltronError if no
    query is listed, or none is left."""
    entries = set().union(*(read_exclusions(path) for path in lists))
    truth = scored.truth

    def is_listed(name: str) -> bool:
        file_name = name.rpartition("/")[2]
        return not entries.isdisjoint((name, file_name, os.path.splitext(file_name)[0]))

    rows = [row for row, name in enumerate(truth.query_names) if not is_listed(name)]
    where = named([str(path) for path in lists])
    if len(rows) == len(truth.query_names):
        raise UltronError(f"{where} names none of {counted(len(rows), 'query', 'queries')}; check `exclude`")
    if not rows:
        raise UltronError(
            f"{where} leaves none of {counted(len(truth.query_names), 'query', 'queries')}; check `exclude`"
        )
    truth = replace(
        truth, query_names=[truth.query_names[row] for row in rows], queries=[truth.queries[row] for row in rows]
    )
    rows_left = replace(scored.rows, query_rows=scored.rows.query_rows[rows])
    results = {protocol: revisited_map(rows_left, truth, protocol, duplicates=duplicates) for protocol in protocols}
    return Evaluation.of(
        results,
        dataset=scored.evaluation.dataset,
        query_names=truth.query_names,
        n_database=scored.evaluation.n_database,
        origin=scored.evaluation.origin,
    )


def dataset_name(origin: Origin, gnd: Path | GroundTruth) -> str:
    """The name of what was searched: as recorded, else after the ground truth's file; `memory` where both were in
    memory."""
    return origin.dataset or (gnd.stem.removeprefix("gnd_") if isinstance(gnd, Path) else "memory")


def truth_of_labels(query_labels: "Labels", database_labels: "Labels", ranking: Ranking) -> GroundTruth:
    """The ground truth of a ranking whose photos have labels: the photos of a query's label are its (easy) positives,
    without the query itself.

    query_labels: Q values, database_labels: N values, in the order of the ranking's names; equal values mean one
    landmark. Raises UltronError if there are more or fewer.
    """
    labels: dict[str, list[object]] = {
        what: to_numpy(values).tolist() if is_array(values) else list(values)
        for what, values in (("query", query_labels), ("database photo", database_labels))
    }
    for what, names in (("query", ranking.query_names), ("database photo", ranking.database_names)):
        if len(labels[what]) != len(names):
            raise UltronError(f"each {what} has one label; found {len(labels[what])} labels for {len(names)}")
    rows_of: dict[object, list[int]] = {}
    for row, label in enumerate(labels["database photo"]):
        rows_of.setdefault(label, []).append(row)
    own_of = own_rows_of(ranking)
    nothing = np.empty(0, np.int64)
    queries = []
    for query, label in enumerate(labels["query"]):
        rows_of_self = own_of.get(query, nothing)
        rows = np.array(rows_of.get(label, []), np.int64)
        positives = rows[~np.isin(rows, rows_of_self)]
        queries.append(QueryTruth(bbx=None, easy=positives, hard=nothing, junk=rows_of_self))
    return GroundTruth(database_names=ranking.database_names, query_names=ranking.query_names, queries=queries)
