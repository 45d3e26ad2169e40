"""Metrics of precision: average precision as datasets beside Revisited Oxford and Paris define it, precision at k."""

from dataclasses import dataclass

import numpy as np

from ultron_cli.evaluation.metrics.ranked import QueryMetric, RankedQuery


def _precision_sum(query: RankedQuery, k: int) -> float:
    """The sum of the precision at each positive among the first k."""
    ranks = query.ranks[query.ranks < k]
    return float((np.arange(1, len(ranks) + 1) / (ranks + 1)).sum())


@dataclass(frozen=True)
class MeanApAt(QueryMetric):
    """mAP@k of GLDv2 (k 100; Weyand et al., CVPR 2020, equation 2) and ILIAS (k 1000; Kordopatis-Zilos et al., CVPR
    2025): precision at each positive among the first k, over the positives or k, whichever is less.

    It is a sum of rectangles where revisitop's is one of trapezoids: the two differ on a whole ranking too.
    """

    k: int

    @property
    def name(self) -> str:
        return f"mAP@{self.k}"

    def of_query(self, query: RankedQuery) -> float:
        return _precision_sum(query, self.k) / min(query.n_positives, self.k)


@dataclass(frozen=True)
class MeanApAtR(QueryMetric):
    """mAP@R of metric learning (Musgrave et al., A metric learning reality check, ECCV 2020): mAP@k where k is the
    number of the query's positives."""

    @property
    def name(self) -> str:
        return "mAP@R"

    def of_query(self, query: RankedQuery) -> float:
        return _precision_sum(query, query.n_positives) / query.n_positives


@dataclass(frozen=True)
class PrecisionAt(QueryMetric):
    """Positives among the first k, over k. revisitop's mP@k lowers k to the place of the last positive."""

    k: int

    @property
    def name(self) -> str:
        return f"P@{self.k}"

    def of_query(self, query: RankedQuery) -> float:
        return int((query.ranks < self.k).sum()) / self.k


@dataclass(frozen=True)
class NdcgAt(QueryMetric):
    """Normalised discounted cumulative gain of the first k (Jaervelin and Kekaelaeinen, ACM TOIS 2002) with gain 1 for
    each positive and discount log2(1 + rank)."""

    k: int

    @property
    def name(self) -> str:
        return f"nDCG@{self.k}"

    def of_query(self, query: RankedQuery) -> float:
        gain = (1 / np.log2(2 + query.ranks[query.ranks < self.k])).sum()
        return float(gain / (1 / np.log2(2 + np.arange(min(query.n_positives, self.k)))).sum())
