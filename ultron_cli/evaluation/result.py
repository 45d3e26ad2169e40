"""What an evaluation gives: scores per protocol with the origin of the search, and the Evaluation JSON that stores
them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from ultron_cli.console import html_table, lines, table
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.intervals import mean_interval
from ultron_cli.evaluation.metrics import PRECISION_AT, RevisitedResult
from ultron_cli.evaluation.metrics.ranked import MetricResult
from ultron_cli.retrieval.origin import Origin, StoredOrigin
from ultron_cli.schema.texts import in_file, read_json
from ultron_cli.schema.values import fit

REPORT_COLUMNS = ("protocol", "mAP", "95 % interval", *(f"mP@{k}" for k in PRECISION_AT), "queries")


@dataclass(frozen=True, kw_only=True)
class MetricScores:
    """The scores of one of METRICS under a protocol."""

    score: float | None  # None for want of positives
    values: Mapping[str, float | None] | None = field(default=None, repr=False)  # by query, where score is their mean

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """As that of mAP; None where the score is not a mean over queries."""
        return _interval(self.values or {})

    def to_json(self) -> dict[str, object]:
        """As the Evaluation JSON stores it."""
        if self.values is None:
            return {"score": self.score}
        return {"score": self.score, "interval": self.interval and list(self.interval), "values": dict(self.values)}


@dataclass(frozen=True, kw_only=True)
class ProtocolScores:
    """The scores under one protocol, as fractions; None is what no query, or this query, has for want of positives."""

    mAP: float | None
    mP: Mapping[int, float | None]  # k -> mean precision at k
    queries_used: int  # queries with positives, over which the means are
    ap: Mapping[str, float | None] = field(repr=False)  # query name -> average precision
    metrics: Mapping[str, MetricScores] = field(default_factory=dict)  # further ones, by name

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of mAP as far as the choice of queries goes (intervals.py), as fractions; None for fewer
        than two queries."""
        return _interval(self.ap)

    @classmethod
    def of(
        cls, result: RevisitedResult, query_names: Sequence[str], metrics: Mapping[str, MetricResult] | None = None
    ) -> "ProtocolScores":
        """Of results of metrics/, whose NaN becomes None. query_names: (Q,), in the results' order."""
        return cls(
            mAP=_number_or_none(result.mAP),
            mP={k: _number_or_none(value) for k, value in result.mP.items()},
            queries_used=result.queries_used,
            ap=_by_name(query_names, result.ap),
            metrics={
                name: MetricScores(
                    score=_number_or_none(part.score),
                    values=None if part.values is None else _by_name(query_names, part.values),
                )
                for name, part in (metrics or {}).items()
            },
        )

    def to_json(self) -> dict[str, object]:
        """As the Evaluation JSON stores it; the k of mP are text there."""
        return {
            "mAP": self.mAP,
            "interval": self.interval and list(self.interval),
            "mP": {str(k): value for k, value in self.mP.items()},
            "queries_used": self.queries_used,
            "ap": dict(self.ap),
            **({"metrics": {name: part.to_json() for name, part in self.metrics.items()}} if self.metrics else {}),
        }


Fraction = Annotated[float, Meta(ge=0, le=1)]
Score = Annotated[float, Meta(ge=0)]  # AP passes 1 where a ranking repeats photos and each repeat counts
Count = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class _StoredMetric:
    """A metric in an Evaluation JSON."""

    score: float | None
    values: dict[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class _StoredScores:
    """A protocol in an Evaluation JSON. It must hold the AP of every query; what else it lacks is None."""

    ap: dict[str, Score | None]
    mAP: Score | None = None
    mP: dict[int, Fraction | None] | None = None
    queries_used: Count | None = None
    metrics: dict[str, _StoredMetric] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _ScoresWithinOne:
    """A protocol of an evaluation in which no repeat counts."""

    ap: dict[str, Fraction | None]
    mAP: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class _WithinOne:
    """The scores of such an evaluation."""

    protocols: dict[str, _ScoresWithinOne]


@dataclass(frozen=True, kw_only=True)
class _StoredEvaluation:
    """An Evaluation JSON."""

    protocols: dict[str, _StoredScores]
    dataset: str | None = None
    n_queries: Count | None = None
    n_database: Count | None = None
    provenance: dict[str, object] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """A search scored against a ground truth. As text and in a notebook it is a table."""

    dataset: str
    n_queries: int
    n_database: int  # photos searched, distractors included
    protocols: Mapping[str, ProtocolScores]
    origin: Origin  # what made the ranking and the scores
    warnings: tuple[str, ...] = ()  # what takes worth from the scores (soundness.py)
    metric: str = "mAP"  # of which `ap` is the score of each query

    @classmethod
    def of(
        cls,
        results: Mapping[str, RevisitedResult],
        *,
        dataset: str,
        query_names: Sequence[str],
        n_database: int,
        origin: Origin,
        warnings: Sequence[str] = (),
        metrics: Mapping[str, Mapping[str, MetricResult]] | None = None,
    ) -> "Evaluation":
        """Of the results of metrics/ by protocol. query_names: (Q,), in the results' order. metrics: further ones, by
        protocol and name."""
        return cls(
            dataset=dataset,
            n_queries=len(query_names),
            n_database=n_database,
            protocols={
                protocol: ProtocolScores.of(result, query_names, (metrics or {}).get(protocol))
                for protocol, result in results.items()
            },
            origin=origin,
            warnings=tuple(warnings),
        )

    def how_text(self) -> str:
        """What was scored and how it was made, in one phrase that stands beside every score."""
        what = f"{self.origin.model or 'model not recorded'} on {self.dataset}, {self.n_database:,} photos"
        return f"{what}: {self.protocol_text()}"

    def protocol_text(self, *, timed: bool = True) -> str:
        """How photos became descriptors and rankings, in one phrase. timed: with the milliseconds of re-ranking."""
        origin = self.origin
        unknown = "each part described in its own way" if origin.fusion else "protocol not recorded"
        protocol = origin.extraction.protocol_text() if origin.extraction else unknown
        cut = ""
        if origin.k is not None and origin.k < self.n_database:
            cut = f"; only the {origin.k:,} best photos of each query are ranked, positives behind them not found"
        return f"{protocol}{origin.search_text(timed=timed)}{cut}"

    def __repr__(self) -> str:
        return lines(self.text(), self.how_text(), *self.warnings)

    def _repr_html_(self) -> str:
        return html_table(REPORT_COLUMNS, self.report_rows(), below="; ".join((self.how_text(), *self.warnings)))

    def text(self) -> str:
        """The tables of the scores as people read them."""
        rows = [
            (protocol, name, percent(part.score), interval_text(part.interval))
            for protocol, scores in self.protocols.items()
            for name, part in scores.metrics.items()
            if part.score is not None
        ]
        further = table(("protocol", "metric", "score", "95 % interval"), rows, left=2) if rows else ""
        return lines(table(REPORT_COLUMNS, self.report_rows()), further)

    def by_metric(self, name: str) -> "Evaluation":
        """The evaluation with a further metric in place of AP, to be compared by it.

        Raises UltronError if no protocol has it, or it is not a mean over queries.
        """
        if name == self.metric:
            return self
        parts = {
            protocol: scores.metrics[name] for protocol, scores in self.protocols.items() if name in scores.metrics
        }
        if not parts:
            known = dict.fromkeys(name for scores in self.protocols.values() for name in scores.metrics)
            has = f"has {', '.join(known)}" if known else "has mAP alone"
            raise UltronError(f"this evaluation {has}; evaluate again (`ultron evaluate --metric {name[:60]}`)")
        if any(part.values is None for part in parts.values()):
            raise UltronError(f"{name} is not a mean over queries, which are what is compared; name another `metric`")
        protocols = {
            protocol: ProtocolScores(
                mAP=part.score,
                mP={},
                queries_used=sum(value is not None for value in (part.values or {}).values()),
                ap=part.values or {},
            )
            for protocol, part in parts.items()
        }
        return replace(self, protocols=protocols, metric=name)

    def report_rows(self) -> list[list[str]]:
        """Rows of the table on screen, of REPORT_COLUMNS: mAP with its interval and mP@k in percent."""
        return [
            [
                protocol,
                percent(scores.mAP),
                interval_text(scores.interval),
                *(percent(scores.mP.get(k)) for k in PRECISION_AT),
                str(scores.queries_used),
            ]
            for protocol, scores in self.protocols.items()
        ]

    def to_json(self) -> dict[str, object]:
        """The Evaluation JSON (docs/file-formats.md) as plain data."""
        return {
            "dataset": self.dataset,
            "n_queries": self.n_queries,
            "n_database": self.n_database,
            "protocols": {protocol: scores.to_json() for protocol, scores in self.protocols.items()},
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            "provenance": self.origin.to_json(),
        }

    @classmethod
    def from_json(cls, content: object) -> "Evaluation":
        """From a file's content. Raises Misfit, naming the place, if it is no evaluation."""
        stored = fit(content, _StoredEvaluation)
        fit({"provenance": stored.provenance}, dict[str, StoredOrigin | None])  # what is not read is kept as it is
        origin = Origin.from_json(stored.provenance)
        if origin.duplicates != "count":
            fit(content, _WithinOne)
        scores = {
            protocol: ProtocolScores(
                mAP=part.mAP,
                mP=part.mP or {},
                queries_used=sum(value is not None for value in part.ap.values())
                if part.queries_used is None
                else part.queries_used,
                ap=part.ap,
                metrics={
                    name: MetricScores(score=metric.score, values=metric.values)
                    for name, metric in part.metrics.items()
                },
            )
            for protocol, part in stored.protocols.items()
        }
        most_queries = max((len(part.ap) for part in scores.values()), default=0)
        return cls(
            dataset=str(stored.dataset),
            n_queries=most_queries if stored.n_queries is None else stored.n_queries,
            n_database=stored.n_database or 0,
            protocols=scores,
            origin=origin,
            warnings=stored.warnings,
        )


def read_evaluation(path: Path) -> Evaluation:
    """An Evaluation JSON that `ultron evaluate` wrote. Raises UltronError if the file is something else."""
    advice = "name an evaluation that `ultron evaluate --out` made"
    content = read_json(path, "evaluation", advice=advice)
    with in_file(path, "evaluation", advice):
        return Evaluation.from_json(content)


def percent(fraction: float | None, decimals: int = 2) -> str:
    """A score as people read it; a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.{decimals}f}"


def interval_text(interval: tuple[float, float] | None, decimals: int = 1) -> str:
    """An interval of a score as people read it; a dash where there is none."""
    return "-" if interval is None else " to ".join(percent(side, decimals) for side in interval)


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: _number_or_none(value) for name, value in zip(names, values, strict=True)}


def _interval(values: Mapping[str, float | None]) -> tuple[float, float] | None:
    scores = np.array([value for value in values.values() if value is not None], np.float64)
    return mean_interval(scores) if len(scores) > 1 else None


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
