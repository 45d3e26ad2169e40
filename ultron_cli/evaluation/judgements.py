"""What a protocol says of a ranking's photos, for tools that know positives and nothing else: such a tool counts an
ignored photo as wrong."""

from pathlib import Path

import numpy as np

from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.evaluation.evaluate import ranking_against
from ultron_cli.retrieval.rankings import Ranking


def without_ignored(ranking: Ranking, gnd: Path | GroundTruth, protocol: Protocol) -> Ranking:
    """The ranking without the photos that the protocol ignores. Raises UltronError if ranking and ground truth do not
    belong together."""
    truth, _ = ranking_against(ranking, gnd)
    row_of = {name: row for row, name in enumerate(ranking.database_names)}
    query_of = {name: query for query, name in enumerate(ranking.query_names)}
    ignored_rows = {}
    for i, name in enumerate(truth.query_names):
        ignored = truth.split(i, protocol)[1]
        rows = [row_of.get(truth.database_names[photo], -1) for photo in ignored.tolist()]
        ignored_rows[query_of[name]] = np.array(sorted({row for row in rows if row >= 0}), np.int64)
    return ranking.without_own_rows(ignored_rows)


def positives_of(ranking: Ranking, gnd: Path | GroundTruth, protocol: Protocol) -> list[tuple[str, list[str]]]:
    """(query, its positives) of the queries that were searched and have some. Raises UltronError as without_ignored."""
    truth, _ = ranking_against(ranking, gnd)
    positives = [
        (name, [truth.database_names[row] for row in np.unique(truth.split(i, protocol)[0]).tolist()])
        for i, name in enumerate(truth.query_names)
    ]
    return [(name, photos) for name, photos in positives if photos]
