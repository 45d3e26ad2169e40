"""The scores of somebody else's re-ranker, mixed with those of the search that it re-ranked.

Of a photo that the re-ranker scored: lambda * similarity + (1 - lambda) / (1 + exp(-temperature * score)), as AMES does
it (Suma et al., ECCV 2024; `rerank` in src/utils/metrics.py of github.com/pavelsuma/ames, commit c6af26e, whose authors
tuned lambda from 0.35 to 0.85 and temperature from 0.1 to 0.8 on GLDv2). The rest of the ranking stays behind as it
was.
"""

from dataclasses import replace

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.fusion.rankings import Ranked
from ultron_cli.retrieval.origin import FusionRecord, TuningRecord
from ultron_cli.retrieval.rankings import RankedRows
from ultron_cli.retrieval.rerank.state import put_in_front

LAMBDAS = tuple(round(0.1 * step, 1) for step in range(11))
TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.0, 5.0)


class RerankerMix:
    """A ranking, and scores for the first photos of it; its settings are lambda and temperature."""

    def __init__(self, joined: JoinedParts) -> None:
        """joined: the ranking, then the scores. Raises UltronError if there are others, or the scores stand in front of
        those of a search."""
        if len(joined.paths) != 2:
            raise UltronError(
                f"a re-ranker's scores are mixed with one ranking; found {len(joined.paths)} files; name two"
            )
        path, header = joined.paths[1], joined.headers[1]
        if any(record.n_first is not None for record in header.origin.imported):
            raise UltronError(
                f"{path} has the re-ranker's scores in front of those of a search, which cannot be told apart; import "
                f"them alone: ultron ranks import FILE --database {joined.paths[0]} --out {path}"
            )
        if header.database_names and len(joined.header.database_names) > len(joined.headers[0].database_names):
            raise UltronError(
                f"{path} scores photos that {joined.paths[0]} has not; a re-ranker orders the photos of a ranking"
            )
        base, scores = joined.headers
        ordering = tuple(replace(record, n_first=joined.most_of(1)) for record in scores.origin.imported)
        self.joined = joined
        self.header = replace(
            joined.header, origin=replace(base.origin, imported=(*base.origin.imported, *ordering), searched_by=None)
        )

    def candidates(self) -> np.ndarray:
        """(C, 2) lambda and temperature; the search alone first."""
        pairs = [(share, temperature) for share in reversed(LAMBDAS) for temperature in TEMPERATURES]
        return np.array([pair for pair in pairs if pair[0] < 1 or pair[1] == 1.0], np.float64)

    def of_query(self, query: int) -> Ranked:
        base, front = self.joined.ranked(0, query), self.joined.ranked(1, query)
        order = np.argsort(base.rows, kind="stable")
        places = np.searchsorted(base.rows, front.rows, sorter=order).clip(max=max(len(order) - 1, 0))
        places = order[places] if len(order) else places
        is_ranked = base.rows[places] == front.rows if len(base.rows) else np.zeros(len(front.rows), bool)
        if not is_ranked.all():
            name = self.joined.header.database_names[int(front.rows[~is_ranked][0])]
            raise UltronError(
                f"{self.joined.paths[1]} scores {name} for {self.joined.header.query_names[query]}, whose ranking in "
                f"{self.joined.paths[0]} is without it; search with a larger `k`"
            )
        similarities = base.scores[places].astype(np.float64)
        raw = front.scores.astype(np.float64)

        def ranked(settings: np.ndarray) -> RankedRows:
            share, temperature = settings
            with np.errstate(over="ignore"):  # to 0, as it must
                mixed = share * similarities + (1 - share) / (1 + np.exp(-temperature * raw))
            joined = put_in_front(RankedRows(base.rows[None], base.scores[None]), [(front.rows, mixed)])
            return RankedRows(joined.rows[0], joined.scores[0])

        return ranked

    def record(self, settings: np.ndarray | None, tuning: TuningRecord | None) -> FusionRecord:
        return FusionRecord(
            kind="reranker",
            method="mix",
            settings={} if settings is None else {"lambda": float(settings[0]), "temperature": float(settings[1])},
            parts=self.joined.records(None),
            tuning=tuning,
        )
