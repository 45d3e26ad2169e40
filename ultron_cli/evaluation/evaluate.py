"""Scores a search against a ground truth: rankings by name, results per protocol, and the whole provenance beside
them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, load_ground_truth
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics import PRECISION_AT, evaluation_report, rankings_with_repeats, revisited_map
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking


def find_gnd(named: Path | None, origin: Origin) -> Path:
    """The ground truth to score against: --gnd, else the one recorded at extraction. Raises UltronError if there is
    none."""
    if named:
        return named
    recorded = origin.ground_truth
    if not recorded:
        raise UltronError(
            "these descriptors were made from photos without a ground truth; name one with --gnd gnd_NAME.json"
        )
    if not Path(recorded).is_file():
        raise UltronError(f"the ground truth was at {recorded}, which is gone; name it with --gnd")
    return Path(recorded)


def _queries_present(
    truth: GroundTruth, query_names: Sequence[str], skipped: set[str]
) -> tuple[GroundTruth, list[int]]:
    """The ground truth cut down to the queries that were searched, and their rows in the ranking."""
    row_of = {name: row for row, name in enumerate(query_names)}
    absent = [name for name in truth.query_names if name not in row_of]
    unexplained = [name for name in absent if name not in skipped]
    if unexplained:
        raise UltronError(
            f"the ranking lacks {counted(len(unexplained), 'query', 'queries')} of the ground truth, for "
            f"example {unexplained[0]!r}"
            f"{nearest_names(unexplained[0], row_of)}; search with all queries, or name the right --gnd"
        )
    if absent:
        log.warning("%s left out at extraction: %s", counted(len(absent), "query", "queries"), ", ".join(absent[:5]))
    present = [i for i, name in enumerate(truth.query_names) if name in row_of]
    if not present:
        raise UltronError("not one query of the ground truth is in the ranking; name the right --gnd")
    cut = dataclasses.replace(
        truth, query_names=[truth.query_names[i] for i in present], queries=[truth.queries[i] for i in present]
    )
    return cut, [row_of[name] for name in cut.query_names]


def _rows_of_truth(ranking: Ranking, truth: GroundTruth, queries: list[int]) -> np.ndarray:
    """Some queries' rankings as rows of the ground truth's database; photos outside it (distractors) get numbers after
    it.

    (Q, K) int32 where the numbers fit, filled one query at a time: with a million distractors whole copies would be
    felt.
    """
    row_of = {name: row for row, name in enumerate(truth.database_names)}
    n_known = len(row_of)
    dtype = np.int32 if n_known + len(ranking.database_names) < 2**31 else np.int64
    mapped = np.array([row_of.get(name, n_known + i) for i, name in enumerate(ranking.database_names)], dtype)
    n_missing = n_known - int((mapped < n_known).sum())
    if n_missing == n_known:
        raise UltronError("not one photo of the ground truth is in the database; name the right --gnd")
    if n_missing:
        log.warning(
            "%s of the ground truth not in the database; as positives they count as not found",
            counted(n_missing, "photo"),
        )
    rows = np.empty((len(queries), ranking.rows.shape[1]), dtype)
    for i, query in enumerate(queries):
        ranked = ranking.rows[query]
        rows[i] = np.where(ranked >= 0, mapped[ranked], -1)
    return rows


def ranking_against(ranking: Ranking, gnd: Path) -> tuple[GroundTruth, np.ndarray]:
    """(the ground truth of the queries that were searched, their rankings (Q, K) as rows of it, photos outside it
    numbered after it).

    Raises UltronError if ranking and ground truth do not belong together.
    """
    truth = load_ground_truth(gnd)
    skipped = {photo.name for photo in ranking.origin.skipped}
    truth, query_rows = _queries_present(truth, ranking.query_names, skipped)
    return truth, _rows_of_truth(ranking, truth, query_rows)


def evaluate_ranking(
    ranking: Ranking,
    gnd: Path,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    duplicates: Literal["count", "first"] = "count",
) -> dict[str, Any]:
    """The Evaluation JSON of a ranking as plain data. Raises UltronError if ranking and ground truth do not belong
    together."""
    truth, rows = ranking_against(ranking, gnd)
    repeats = rankings_with_repeats(rows)
    if len(repeats):
        how = (
            "each repeat counts, as in revisitop (--duplicates first counts only the first)"
            if duplicates == "count"
            else "only the first counts"
        )
        log.warning(
            "%s a photo more than once, for example that of %s; %s",
            counted(len(repeats), "ranking names", "rankings name"),
            truth.query_names[repeats[0]],
            how,
        )
    results = {protocol: revisited_map(rows, truth, protocol, duplicates=duplicates) for protocol in protocols}
    origin = dataclasses.replace(
        ranking.origin,
        ground_truth=str(gnd),
        k=int(ranking.rows.shape[1]),
        duplicates=duplicates,
        evaluated_by=provenance(),
    )
    return evaluation_report(
        results,
        dataset=dataset_name(ranking.origin, gnd),
        query_names=truth.query_names,
        n_database=len(ranking.database_names),
        provenance=origin.to_json(),
    )


def dataset_name(origin: Origin, gnd: Path) -> str:
    """The name of what was searched: as recorded, else after the ground truth's file."""
    return origin.dataset or gnd.stem.removeprefix("gnd_")


def report_rows(report: dict[str, Any]) -> list[list[str]]:
    """Rows of the table on screen: protocol, mAP and mP@k in percent, queries used."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    return [
        [
            protocol,
            percent(part["mAP"]),
            *(percent(part["mP"][str(k)]) for k in PRECISION_AT),
            str(part["queries_used"]),
        ]
        for protocol, part in report["protocols"].items()
    ]
