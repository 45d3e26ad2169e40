"""Photos of equal score: how much their order is worth. Rankings have them by row of the database, which may flatter or
hurt a score; the best and the worst order bound it."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli.evaluation.evaluate import ranking_against
from ultron_cli.retrieval.rankings import Ranking

Ties = Literal["row", "best", "worst"]


def with_ties(ranking: Ranking, gnd: Path, ties: Ties) -> Ranking:
    """The ranking with photos of exactly equal score in another order: positives of any protocol first (best) or last
    (worst), else by their place.

    Raises ValueError without scores, and UltronError if ranking and ground truth do not belong together.
    """
    if ranking.scores is None:
        raise ValueError("the order of equal scores needs scores; found a ranking of rows alone")
    if ties == "row":
        return ranking
    truth, rows_of_truth = ranking_against(ranking, gnd)
    rows, scores = ranking.rows.copy(), ranking.scores.copy()
    for query, ranked in enumerate(rows_of_truth.query_rows):
        is_positive = np.isin(rows_of_truth[query], truth.queries[query].rows(("easy", "hard")))
        block = np.concatenate([[0], np.cumsum(scores[ranked][1:] != scores[ranked][:-1])])
        order = np.lexsort((~is_positive if ties == "best" else is_positive, block))
        rows[ranked], scores[ranked] = rows[ranked][order], scores[ranked][order]
    return replace(ranking, rows=rows, scores=scores, inliers=None, origin=replace(ranking.origin, ties=ties))
