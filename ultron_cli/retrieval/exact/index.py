"""Exact search as an index."""

from dataclasses import dataclass, field

import numpy as np

from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.exact.search import exact_search
from ultron_cli.retrieval.index.base import Index
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.origin import SearchRecord
from ultron_cli.retrieval.rankings import RankedRows


@dataclass(frozen=True, kw_only=True)
class ExactIndex(Index):
    """Exact search of open descriptors."""

    descriptors: Descriptors = field(repr=False)
    device: str = "cpu"

    @classmethod
    def over(cls, descriptors: Descriptors, device: str = "cpu") -> "ExactIndex":
        """The exact search of these descriptors."""
        return cls(
            kind="exact",
            n=descriptors.n,
            dim=descriptors.dim,
            names=descriptors.names,
            descriptors=descriptors,
            device=device,
        )

    @property
    def is_exact(self) -> bool:
        return True

    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> RankedRows:
        """The k rows of largest inner product, equal scores by row; there is nothing to set. Raises as exact_search."""
        return exact_search(query_descriptors, self.descriptors, k, device=self.device)

    def record(self) -> SearchRecord:
        return SearchRecord(method="exact")
