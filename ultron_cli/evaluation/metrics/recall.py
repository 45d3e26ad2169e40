"""Metrics of recall: whether, and how much of, what is to be found is among the first k."""

from dataclasses import dataclass

from ultron_cli.evaluation.metrics.ranked import QueryMetric, RankedQuery


@dataclass(frozen=True)
class RecallAt(QueryMetric):
    """Recall@k of metric learning and place recognition: 1 where a positive is among the first k, else 0. It is
    success@k elsewhere; at k 1 it is the top-1 accuracy of the nearest neighbour."""

    k: int

    @property
    def name(self) -> str:
        return f"recall@{self.k}"

    def of_query(self, query: RankedQuery) -> float:
        return float((query.ranks < self.k).any())


@dataclass(frozen=True)
class OracleAt(QueryMetric):
    """The oracle of ILIAS: the share of all positives that is among the first k, which is mAP@k of the best re-ranking
    of them where there are no more positives than k; recall@k of information retrieval."""

    k: int

    @property
    def name(self) -> str:
        return f"oracle@{self.k}"

    def of_query(self, query: RankedQuery) -> float:
        return int((query.ranks < self.k).sum()) / query.n_positives
