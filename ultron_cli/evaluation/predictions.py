"""Submissions to GLDv2's challenges as rankings: per query its photos, or its landmark with a score."""

from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.protocols import GroundTruth
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import PADDING, Ranking
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.values import shown

CORRECT = "correct the line"


def read_predictions(path: Path, truth: GroundTruth) -> Ranking:
    """A CSV of `id,images` (several, the best first) or `id,landmarks` (a landmark and its score) as a ranking.

    Queries of the ground truth that it leaves out have empty rankings, as do those with an empty field. Raises
    UltronError for a line that is none, a query that stands there twice, or none of the queries.
    """
    answers: dict[str, list[str]] = {}
    scores: dict[str, float] = {}
    known = set(truth.query_names)
    n_strange, is_recognition = 0, False
    columns = [["id", "images"], ["id", "landmarks"]]
    for number, values in csv_rows(path, "the predictions", required=columns, optional=()):
        is_recognition = "landmarks" in values
        name = values["id"]
        if name in answers:
            raise UltronError(f"{path}, line {number}: {shown(name)} stands there before; keep one line of a query")
        answers[name] = values.get("images", values.get("landmarks", "")).split()
        if is_recognition and answers[name]:
            answers[name], scores[name] = _landmark(answers[name], f"{path}, line {number}")
        if name not in known:
            n_strange += 1
            del answers[name]
    if not answers:
        raise UltronError(f"{path} has predictions for none of the {len(known):,} queries; name those of this solution")
    if n_strange:
        log.info("%s of no query that is scored, passed over", counted(n_strange, "line is", "lines are"))
    names = list(dict.fromkeys([*truth.database_names, *(name for row in answers.values() for name in row)]))
    row_of = {name: row for row, name in enumerate(names)}
    k = max(len(row) for row in answers.values())
    rows = np.full((len(truth.query_names), k), PADDING, np.int64)
    for query, name in enumerate(truth.query_names):
        ranked = [row_of[photo] for photo in answers.get(name, ())]
        rows[query, : len(ranked)] = ranked
    return Ranking(
        query_names=truth.query_names,
        database_names=names,
        rows=rows,
        scores=np.array([[scores.get(name, -np.inf)] for name in truth.query_names]) if is_recognition and k else None,
        origin=Origin(other={"predictions": str(path)}),
    )


def _landmark(words: list[str], where: str) -> tuple[list[str], float]:
    """A landmark and its score. Raises UltronError."""
    try:
        landmark, text = words
        score = float(text)
    except ValueError:
        raise UltronError(
            f"{where}: landmarks must be a landmark and its score; found {shown(' '.join(words))}; {CORRECT}"
        ) from None
    if not np.isfinite(score):
        raise UltronError(f"{where}: a score must be finite; found {text}; {CORRECT}")
    return [landmark], score
