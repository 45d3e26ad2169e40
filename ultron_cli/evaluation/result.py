"""What an evaluation gives: scores per protocol with the origin of the search, and the Evaluation JSON that stores
them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.evaluation.metrics import RevisitedResult
from ultron_cli.files import read_json
from ultron_cli.retrieval.origin import Origin


@dataclass(frozen=True, kw_only=True)
class ProtocolScores:
    """The scores under one protocol, as fractions; None is what no query, or this query, has for want of positives."""

    mAP: float | None
    mP: Mapping[int, float | None]  # k -> mean precision at k
    queries_used: int  # queries with positives, over which the means are
    ap: Mapping[str, float | None] = field(repr=False)  # query name -> average precision

    @classmethod
    def of(cls, result: RevisitedResult, query_names: Sequence[str]) -> "ProtocolScores":
        """Of a result of metrics.py, whose NaN becomes None. query_names: (Q,), in the result's order."""
        return cls(
            mAP=_number_or_none(result.mAP),
            mP={k: _number_or_none(value) for k, value in result.mP.items()},
            queries_used=result.queries_used,
            ap={name: _number_or_none(value) for name, value in zip(query_names, result.ap, strict=True)},
        )

    def to_json(self) -> dict[str, object]:
        """As the Evaluation JSON stores it; the k of mP are text there."""
        return {
            "mAP": self.mAP,
            "mP": {str(k): value for k, value in self.mP.items()},
            "queries_used": self.queries_used,
            "ap": dict(self.ap),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "ProtocolScores":
        """From a file. It must hold the AP of every query; means that it lacks are None or absent."""
        ap = _ap_of(content)
        mean = content.get("mAP")
        precisions = content.get("mP")
        n_used = content.get("queries_used")
        return cls(
            mAP=_float_or_none(mean),
            mP={int(k): _float_or_none(value) for k, value in precisions.items()}
            if isinstance(precisions, dict)
            else {},
            queries_used=n_used if isinstance(n_used, int) else sum(value is not None for value in ap.values()),
            ap=ap,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A search scored against a ground truth."""

    dataset: str
    n_queries: int
    n_database: int  # photos searched, distractors included
    protocols: Mapping[str, ProtocolScores]
    origin: Origin  # what made the ranking and the scores

    @classmethod
    def of(
        cls,
        results: Mapping[str, RevisitedResult],
        *,
        dataset: str,
        query_names: Sequence[str],
        n_database: int,
        origin: Origin,
    ) -> "Evaluation":
        """Of the results of metrics.py by protocol. query_names: (Q,), in the results' order."""
        return cls(
            dataset=dataset,
            n_queries=len(query_names),
            n_database=n_database,
            protocols={protocol: ProtocolScores.of(result, query_names) for protocol, result in results.items()},
            origin=origin,
        )

    def how_text(self) -> str:
        """What was scored and how it was made, in one phrase that stands beside every score."""
        origin = self.origin
        protocol = origin.extraction.protocol_text() if origin.extraction else "protocol not recorded"
        cut = ""
        if origin.k is not None and origin.k < self.n_database:
            cut = f"; only the {origin.k:,} best photos of each query are ranked, positives behind them not found"
        what = f"{origin.model or 'model not recorded'} on {self.dataset}, {self.n_database:,} photos"
        return f"{what}: {protocol}{origin.search_text()}{cut}"

    def to_json(self) -> dict[str, object]:
        """The Evaluation JSON (docs/file-formats.md) as plain data."""
        return {
            "dataset": self.dataset,
            "n_queries": self.n_queries,
            "n_database": self.n_database,
            "protocols": {protocol: scores.to_json() for protocol, scores in self.protocols.items()},
            "provenance": self.origin.to_json(),
        }

    @classmethod
    def from_json(cls, content: object) -> "Evaluation":
        """From a file's content. Raises ValueError if it is not an object of protocols with the AP of every query."""
        protocols = content.get("protocols") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(protocols, dict):
            raise ValueError("an evaluation is an object with protocols")
        scores = {str(protocol): ProtocolScores.from_json(part) for protocol, part in protocols.items()}
        n_queries = content.get("n_queries")
        n_database = content.get("n_database")
        return cls(
            dataset=str(content.get("dataset")),
            n_queries=n_queries if isinstance(n_queries, int) else max((len(p.ap) for p in scores.values()), default=0),
            n_database=n_database if isinstance(n_database, int) else 0,
            protocols=scores,
            origin=Origin.from_json(content.get("provenance")),
        )


def read_evaluation(path: Path) -> Evaluation:
    """An Evaluation JSON that `ultron evaluate` wrote. Raises UltronError if the file is something else."""
    content = read_json(path, "evaluation")
    try:
        return Evaluation.from_json(content)
    except ValueError:
        raise UltronError(
            f"{path} must be an evaluation, with protocols and the AP of every query; make it with `ultron "
            "evaluate --out`"
        ) from None


def _ap_of(content: object) -> dict[str, float | None]:
    """Raises ValueError if a protocol's scores lack the AP of every query."""
    ap = content.get("ap") if isinstance(content, dict) else None
    if not isinstance(ap, dict):
        raise ValueError("a protocol's scores hold the AP of every query")
    return {str(name): _float_or_none(value) for name, value in ap.items()}


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _float_or_none(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
