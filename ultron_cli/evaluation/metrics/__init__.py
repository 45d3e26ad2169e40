"""The metrics by name.

revisited.py has average precision and precision at k of the revisited protocols, which every evaluation has; it is
also that of the classic Oxford5k, Paris6k and INSTRE. ranked.py says what further metrics are and see; precision.py,
recall.py and recognition.py hold those.
"""

from collections.abc import Sequence

from ultron_cli import user_code
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics.precision import MeanApAt, MeanApAtR, NdcgAt, PrecisionAt
from ultron_cli.evaluation.metrics.ranked import Metric, OverallMetric, QueryMetric
from ultron_cli.evaluation.metrics.recall import OracleAt, RecallAt
from ultron_cli.evaluation.metrics.recognition import GlobalAp
from ultron_cli.evaluation.metrics.revisited import (
    PRECISION_AT,
    Duplicates,
    RankTable,
    RevisitedResult,
    average_precision,
    map_from_scores,
    places_by_score,
    precision_at,
    rankings_with_repeats,
    revisited_map,
)

__all__ = [
    "METRICS",
    "PRECISION_AT",
    "Duplicates",
    "Metric",
    "RankTable",
    "RevisitedResult",
    "average_precision",
    "map_from_scores",
    "metrics_of",
    "places_by_score",
    "precision_at",
    "rankings_with_repeats",
    "revisited_map",
]

LARGEST_K = 10_000_000
AT_K = "@k"
# What a dataset's authors score it with, beside mAP of the revisited protocols.
METRICS_OF_DATASET = {"ilias": ("mAP@1000", "oracle@1000")}


def metrics_of(names: Sequence[str]) -> list[Metric]:
    """The metrics that a person named, each once: `mAP@100`, or an import path. Raises UltronError for an unknown
    name."""
    user_code.permit(*(name for name in names if user_code.is_import_path(name)))
    return list({name: _metric(name) for name in names}.values())


def _metric(text: str) -> Metric:
    if user_code.is_import_path(text):
        part = user_code.load(text, "metric", METRICS)
        if not issubclass(part.target, (QueryMetric, OverallMetric)):
            raise UltronError(
                f"{part.place()}: {part.name} must be a QueryMetric or an OverallMetric of "
                "ultron_cli.evaluation.metrics.ranked; derive it"
            )
        if missing := sorted(getattr(part.target, "__abstractmethods__", ())):
            raise UltronError(f"{part.place()}: {part.name} needs {' and '.join(missing)}, see Metric; write it")
        return part.made(settings=None, prefix="metric.")
    if text in METRICS and not text.endswith(AT_K):
        return METRICS[text]()
    family, _, number = text.partition("@")
    kind = METRICS.get(f"{family}{AT_K}")
    if kind is not None and number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= LARGEST_K:
        return kind(int(number))
    known = ", ".join(METRICS)
    raise UltronError(
        f"a metric must be one of {known} with a number for k (mAP@100), or FILE.py:CLASS; found {text[:60]!r}"
        f"{nearest_names(text[:60], METRICS)}"
    )


# A name that ends in @k takes a number in its place.
METRICS: dict[str, type] = {
    "mAP@k": MeanApAt,
    "mAP@R": MeanApAtR,
    "P@k": PrecisionAt,
    "nDCG@k": NdcgAt,
    "recall@k": RecallAt,
    "oracle@k": OracleAt,
    "GAP": GlobalAp,
}
