"""A measured score beside the published one of the same model, and beside what others reproduced, for `ultron evaluate
--expected`.

A score says nothing without its protocol (cropping, scales, whitening), so what differs from the published one is said
with it. The rows are in published.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isclose

from ultron_cli.console import counted
from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.evaluation.published import N_DISTRACTORS, PUBLISHED, Published, Reproduced
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.origin import Origin, SearchRecord


@dataclass(frozen=True, kw_only=True)
class ScorePair:
    """mAP in percent, measured and published."""

    ours: float
    published: float
    difference: float  # ours minus published


@dataclass(frozen=True, kw_only=True)
class PublishedComparison:
    """An evaluation beside the published scores of the same model."""

    row: str  # its name
    source: str
    protocols: Mapping[str, ScorePair]
    reproduced: tuple[Reproduced, ...]  # by others
    differs: tuple[str, ...]  # what in the making of the result differs from the published protocol, or could
    also: tuple[Published, ...] = ()  # other published rows of the model: of another implementation

    def to_json(self) -> dict[str, object]:
        """As `ultron evaluate --expected --json` prints it."""
        return {
            "row": self.row,
            "source": self.source,
            "protocols": {name: asdict(pair) for name, pair in self.protocols.items()},
            "reproduced": [{"source": part.source, "mAP": dict(part.mAP)} for part in self.reproduced],
            "differs": list(self.differs),
            "also": [{"row": row.name, "source": row.source, "mAP": dict(row.mAP)} for row in self.also if row.mAP],
        }


def find_published(model: str, dataset: str, n_database: int) -> list[Published]:
    """The published rows of a model (by its label, or that of the row) on a dataset; with the million distractors if as
    many photos were searched."""
    with_distractors = n_database > N_DISTRACTORS
    return [
        row
        for row in PUBLISHED
        if (model in (row.system, row.model) or (row.model is not None and model.startswith(f"{row.model}-")))
        and dataset == row.dataset
        and row.distractors == with_distractors
    ]


def most_alike_first(rows: Sequence[Published], origin: Origin) -> list[Published]:
    """Rows in the order of how much differs from their protocol; those that are equally alike stay in theirs."""
    return sorted(rows, key=lambda row: len(differences_from(row, origin)))


def comparison(evaluation: Evaluation, row: Published | None = None) -> PublishedComparison | None:
    """An evaluation beside the published row that was made most alike; None if nothing is published for it. row: the
    one to compare with."""
    origin = evaluation.origin
    rows = find_published(origin.model or "", evaluation.dataset, evaluation.n_database) if row is None else [row]
    if not rows:
        return None
    row, *also = most_alike_first(rows, origin)
    pairs = {}
    for name, published in row.mAP.items():
        scores = evaluation.protocols.get(name)
        if scores and scores.mAP is not None:
            ours = 100 * scores.mAP
            pairs[name] = ScorePair(ours=ours, published=published, difference=ours - published)
    return PublishedComparison(
        row=row.name,
        source=row.source,
        protocols=pairs,
        reproduced=row.reproduced,
        differs=(*_number_phrases(row, evaluation), *differences_from(row, origin)),
        also=tuple(also),
    )


def comparison_text(compared: PublishedComparison | None) -> str:
    """A comparison for people: a line per protocol, the source and what differs."""
    if compared is None:
        return "nothing is published for this model on this dataset with as many photos"
    rows = [
        f"{name}: ours {pair.ours:.2f}, published {pair.published:.2f} ({pair.difference:+.2f})"
        for name, pair in compared.protocols.items()
    ]
    reproduced = [f"reproduced by others: {scores_text(part.mAP)} ({part.source})" for part in compared.reproduced]
    also = [f"also published: {scores_text(row.mAP)} ({row.source})" for row in compared.also if row.mAP]
    differs = [f"differs: {text}" for text in compared.differs]
    return "\n".join([*rows, f"published: {compared.source}", *reproduced, *also, *differs])


def scores_text(scores: Mapping[str, float]) -> str:
    """`medium 81.20, hard 62.55`."""
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())


def _number_phrases(row: Published, evaluation: Evaluation) -> list[str]:
    """Whether as many photos were searched as the dataset has; of a million distractors some are always missing."""
    known = KNOWN_SETS.get(row.dataset)
    if row.distractors or known is None or known.n_database in (None, evaluation.n_database):
        return []
    return [f"{counted(evaluation.n_database, 'photo')} searched where the dataset has {known.n_database:,}"]


def differences_from(row: Published, origin: Origin) -> list[str]:
    """What in the making of a result differs from the published protocol, or could, in words."""
    extraction = origin.extraction
    search = origin.search or SearchRecord()
    phrases = [] if row.scales and row.crop else ["its source does not tell all of its protocol"]
    if row.crop is not None and extraction.crop == "unknown":
        phrases.append("whether queries were cropped is not known")
    elif row.crop is not None and extraction.crop != row.crop:
        phrases.append(
            "queries are not cropped to their box (whole queries score higher)"
            if row.crop == "bbx"
            else "queries are cropped to their box"
        )
    if row.scales and extraction.imported and not extraction.scales:
        phrases.append("scales are not known")
    else:
        phrases += _scales_phrases(row.scales, extraction.scales)
    names = tuple(step.name for step in search.steps)
    if names != row.steps:
        ours = f"re-ranked by {', '.join(names)}" if names else "not re-ranked"
        phrases.append(f"{ours} where re-ranking by {', '.join(row.steps)} is published" if row.steps else ours)
    if search.is_approximate:
        phrases.append(f"searched with an approximate index ({search.kind})")
    whitening = extraction.whitening
    if row.whitening is None and whitening and row.scales:
        phrases.append(f"whitened ({whitening})")
    elif row.whitening and (whitening is None or whitening.method != row.whitening):
        ours = f"whitened ({whitening})" if whitening else "not whitened"
        phrases.append(f"{ours} where whitening {row.whitening} is published")
    if origin.fusion:
        phrases.append(str(origin.fusion))
    if extraction.imported:
        files = ", ".join(record.path for record in extraction.imported[:2])
        return [*phrases, f"descriptors were imported from {files}: what made them only you know"]
    weights = str(origin.weights or "") or "not recorded"
    phrases.append(f"weights are {weights}: whether they are the published ones only you know")
    return phrases


def _scales_phrases(published: tuple[float, ...], scales: tuple[float, ...]) -> list[str]:
    """How the scales differ from published ones, where those are told."""
    ours, theirs = sorted(scales or (1.0,)), sorted(published)
    if not theirs:
        return []
    if len(ours) != len(theirs):
        return [f"{len(ours)} scale{'s' if len(ours) != 1 else ''} where {len(theirs)} are published"]
    if all(isclose(a, b, rel_tol=1e-3) for a, b in zip(ours, theirs, strict=True)):
        return []
    ours_text, theirs_text = (", ".join(f"{scale:.4g}" for scale in side) for side in (ours, theirs))
    return [f"scales {ours_text} where {theirs_text} are published"]
