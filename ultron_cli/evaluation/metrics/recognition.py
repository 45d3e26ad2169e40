"""Recognition by the nearest neighbour: whether the first photo of each query is of its landmark, surest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ultron_cli.evaluation.metrics.ranked import OverallMetric, RankedQuery


@dataclass(frozen=True)
class GlobalAp(OverallMetric):
    """GAP, or micro-AP, of GLDv2's recognition (Weyand et al., CVPR 2020, equation 1): all queries are ordered by the
    score of their first photo, equal ones by name, and precision is summed at each right one, over the queries that
    have positives. A query without positives that is answered at all lowers it."""

    needs_scores = True

    @property
    def name(self) -> str:
        return "GAP"

    def of_all(self, queries: Sequence[RankedQuery]) -> float:
        n_answerable = sum(query.n_positives > 0 for query in queries)
        if not n_answerable:
            return float("nan")
        answers = sorted(
            (-query.best_score, query.name, bool(len(query.ranks)) and query.ranks[0] == 0)
            for query in queries
            if query.best_score is not None
        )
        total, n_right = 0.0, 0
        for place, (_, _, is_right) in enumerate(answers, start=1):
            if is_right:
                n_right += 1
                total += n_right / place
        return total / n_answerable
