"""Published mAP of the systems that this project has, to stand beside a measured one for `ultron evaluate --expected`.

A score says nothing without its protocol (cropping, scales, whitening), so what differs from the published one is said
with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isclose

from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.origin import Origin, SearchRecord

N_DISTRACTORS = 1_001_001  # photos of the published set of distractors
DOLG_SCALES = (0.3535, 0.5, 0.7071, 1.0, 1.4142)
GEM_SCALES = (1.0, 2**-0.5, 0.5)  # of cirtorch, for networks with learned whitening
DOLG_SOURCE = "Yang et al., ICCV 2021, as in the authors' repository (queries cropped)"
GEM_SOURCE = "R101-GeM (Radenovic et al., TPAMI 2019), whitening learned on retrieval-SfM-120k"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a published table."""

    model: str  # what the labels of this model begin with
    dataset: str
    mAP: dict[str, float] = field(hash=False)  # protocol -> percent
    source: str
    distractors: bool = False  # searched with the million distractors
    scales: tuple[float, ...] = (0.7071, 1.0, 1.4142)  # of the published extraction, in any order
    crop: str = "bbx"  # of the published extraction's queries
    whitening: str | None = None  # that followed the published extraction, as `ultron whiten --method` names it


@dataclass(frozen=True, kw_only=True)
class ScorePair:
    """mAP in percent, measured and published."""

    ours: float
    published: float
    difference: float  # ours minus published


@dataclass(frozen=True, kw_only=True)
class PublishedComparison:
    """An evaluation beside the published scores of the same model."""

    source: str
    protocols: Mapping[str, ScorePair]
    differs: tuple[str, ...]  # what in the making of the result differs from the published protocol, or could
    also: tuple[Published, ...] = ()  # other published rows of the model: of another implementation

    def to_json(self) -> dict[str, object]:
        """As `ultron evaluate --expected --json` prints it."""
        return {
            "source": self.source,
            "protocols": {name: asdict(pair) for name, pair in self.protocols.items()},
            "differs": list(self.differs),
            "also": [{"source": row.source, "mAP": dict(row.mAP)} for row in self.also],
        }


def _dolg(model: str, dataset: str, distractors: bool, medium: float, hard: float) -> Published:
    mean = {"medium": medium, "hard": hard}
    return Published(
        model=model, dataset=dataset, distractors=distractors, mAP=mean, source=DOLG_SOURCE, scales=DOLG_SCALES
    )


def _gem(dataset: str, network: str, **percents: float) -> Published:
    source = f"{GEM_SOURCE}, {network}"
    return Published(
        model="gem-resnet101", dataset=dataset, mAP=percents, source=source, scales=GEM_SCALES, whitening="lw"
    )


# Of a model's rows the first is the one to compare with: the PyTorch network is the one that `ultron weights import`
# takes.
PUBLISHED = (
    _dolg("dolg-r50", "roxford5k", False, 81.20, 62.55),
    _dolg("dolg-r50", "roxford5k", True, 71.36, 47.34),
    _dolg("dolg-r50", "rparis6k", False, 90.07, 79.20),
    _dolg("dolg-r50", "rparis6k", True, 78.99, 59.75),
    _dolg("dolg-r101", "roxford5k", False, 82.37, 64.93),
    _dolg("dolg-r101", "roxford5k", True, 73.63, 51.57),
    _dolg("dolg-r101", "rparis6k", False, 90.97, 81.71),
    _dolg("dolg-r101", "rparis6k", True, 80.44, 62.95),
    _gem("roxford5k", "the PyTorch network", medium=65.4, hard=40.1),
    _gem("roxford5k", "the MatConvNet network", easy=84.81, medium=64.67, hard=38.47),
    _gem("rparis6k", "the PyTorch network", medium=76.7, hard=55.2),
    _gem("rparis6k", "the MatConvNet network", easy=92.12, medium=77.20, hard=56.32),
)


def find_published(model: str, dataset: str, n_database: int) -> list[Published]:
    """The published rows of a model (by label) on a dataset, the one to compare with first; with the million
    distractors if as many photos were searched."""
    with_distractors = n_database > N_DISTRACTORS
    return [
        row
        for row in PUBLISHED
        if (model == row.model or model.startswith(f"{row.model}-"))
        and dataset == row.dataset
        and row.distractors == with_distractors
    ]


def comparison(evaluation: Evaluation) -> PublishedComparison | None:
    """An evaluation beside the published one; None if nothing is published for it."""
    origin = evaluation.origin
    rows = find_published(origin.model or "", evaluation.dataset, evaluation.n_database)
    if not rows:
        return None
    row, *also = rows
    pairs = {}
    for name, published in row.mAP.items():
        scores = evaluation.protocols.get(name)
        if scores and scores.mAP is not None:
            ours = 100 * scores.mAP
            pairs[name] = ScorePair(ours=ours, published=published, difference=ours - published)
    differs = tuple(differences_from(row, origin))
    return PublishedComparison(source=row.source, protocols=pairs, differs=differs, also=tuple(also))


def comparison_text(compared: PublishedComparison | None) -> str:
    """A comparison for people: a line per protocol, the source and what differs."""
    if compared is None:
        return "nothing is published for this model on this dataset with as many photos"
    rows = [
        f"{name}: ours {pair.ours:.2f}, published {pair.published:.2f} ({pair.difference:+.2f})"
        for name, pair in compared.protocols.items()
    ]
    also = [
        f"also published: {', '.join(f'{name} {value:.2f}' for name, value in row.mAP.items())} ({row.source})"
        for row in compared.also
    ]
    differs = [f"differs: {text}" for text in compared.differs]
    return "\n".join([*rows, f"published: {compared.source}", *also, *differs])


def differences_from(row: Published, origin: Origin) -> list[str]:
    """What in the making of a result differs from the published protocol, or could, in words."""
    extraction = origin.extraction
    search = origin.search or SearchRecord()
    phrases = []
    if extraction.crop == "unknown":
        phrases.append("whether queries are cropped to their box is unknown")
    elif extraction.crop != row.crop:
        phrases.append(
            "queries are not cropped to their box (whole queries score higher)"
            if row.crop == "bbx"
            else "queries are cropped to their box"
        )
    scales, published_scales = sorted(extraction.scales or (1.0,)), sorted(row.scales)
    if extraction.imported and not extraction.scales:
        phrases.append(f"scales are unknown, {len(row.scales)} are published")
    elif len(scales) != len(published_scales):
        phrases.append(f"{len(scales)} scale{'s' if len(scales) != 1 else ''} where {len(row.scales)} are published")
    elif not all(isclose(a, b, rel_tol=1e-3) for a, b in zip(scales, published_scales, strict=True)):
        ours, published = (", ".join(f"{scale:.4g}" for scale in side) for side in (scales, published_scales))
        phrases.append(f"scales {ours} where {published} are published")
    if search.steps:
        phrases.append("re-ranked by " + ", ".join(step.name for step in search.steps))
    if search.is_approximate:
        phrases.append(f"searched with an approximate index ({search.kind})")
    whitening = extraction.whitening
    if row.whitening is None and whitening:
        phrases.append(f"whitened ({whitening})")
    elif row.whitening and (whitening is None or whitening.method != row.whitening):
        ours = f"whitened ({whitening})" if whitening else "not whitened"
        phrases.append(f"{ours} where whitening {row.whitening} is published")
    weights = str(origin.weights or "") or "not recorded"
    phrases.append(f"weights are {weights}: whether they are the published ones only you know")
    return phrases
