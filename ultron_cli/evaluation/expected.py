"""Published mAP of the systems that this project has, to stand beside a measured one for `ultron evaluate --expected`.

A score says nothing without its protocol (cropping, scales), so what differs from the published one is said with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.origin import Origin, SearchRecord

N_DISTRACTORS = 1_001_001  # photos of the published set of distractors
DOLG_SCALES = 5
DOLG_SOURCE = "Yang et al., ICCV 2021, as in the authors' repository (queries cropped)"
GEM_SOURCE = "the published self-test of R101-GeM (Radenovic et al., TPAMI 2019)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a published table."""

    model: str  # what the labels of this model begin with
    dataset: str
    mAP: dict[str, float] = field(hash=False)  # protocol -> percent
    source: str
    distractors: bool = False  # searched with the million distractors
    n_scales: int = 3  # of the published extraction
    crop: str = "bbx"  # of the published extraction's queries


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

    def to_json(self) -> dict[str, object]:
        """As `ultron evaluate --expected --json` prints it."""
        return {
            "source": self.source,
            "protocols": {name: asdict(pair) for name, pair in self.protocols.items()},
            "differs": list(self.differs),
        }


def _dolg(model: str, dataset: str, distractors: bool, medium: float, hard: float) -> Published:
    mean = {"medium": medium, "hard": hard}
    return Published(
        model=model, dataset=dataset, distractors=distractors, mAP=mean, source=DOLG_SOURCE, n_scales=DOLG_SCALES
    )


PUBLISHED = (
    _dolg("dolg-r50", "roxford5k", False, 81.20, 62.55),
    _dolg("dolg-r50", "roxford5k", True, 71.36, 47.34),
    _dolg("dolg-r50", "rparis6k", False, 90.07, 79.20),
    _dolg("dolg-r50", "rparis6k", True, 78.99, 59.75),
    _dolg("dolg-r101", "roxford5k", False, 82.37, 64.93),
    _dolg("dolg-r101", "roxford5k", True, 73.63, 51.57),
    _dolg("dolg-r101", "rparis6k", False, 90.97, 81.71),
    _dolg("dolg-r101", "rparis6k", True, 80.44, 62.95),
    Published(
        model="gem-resnet101",
        dataset="roxford5k",
        mAP={"easy": 84.81, "medium": 64.67, "hard": 38.47},
        source=GEM_SOURCE,
    ),
    Published(
        model="gem-resnet101",
        dataset="rparis6k",
        mAP={"easy": 92.12, "medium": 77.20, "hard": 56.32},
        source=GEM_SOURCE,
    ),
)


def find_published(model: str, dataset: str, n_database: int) -> Published | None:
    """The published row of a model (by label) on a dataset; with the million distractors if as many photos were
    searched."""
    with_distractors = n_database > N_DISTRACTORS
    for row in PUBLISHED:
        if (
            (model == row.model or model.startswith(f"{row.model}-"))
            and dataset == row.dataset
            and row.distractors == with_distractors
        ):
            return row
    return None


def comparison(evaluation: Evaluation) -> PublishedComparison | None:
    """An evaluation beside the published one; None if nothing is published for it."""
    origin = evaluation.origin
    row = find_published(origin.model or "", evaluation.dataset, evaluation.n_database)
    if row is None:
        return None
    pairs = {}
    for name, published in row.mAP.items():
        scores = evaluation.protocols.get(name)
        if scores and scores.mAP is not None:
            ours = 100 * scores.mAP
            pairs[name] = ScorePair(ours=ours, published=published, difference=ours - published)
    return PublishedComparison(source=row.source, protocols=pairs, differs=tuple(differences_from(row, origin)))


def comparison_text(compared: PublishedComparison | None) -> str:
    """A comparison for people: a line per protocol, the source and what differs."""
    if compared is None:
        return "nothing is published for this model on this dataset with as many photos"
    rows = [
        f"{name}: ours {pair.ours:.2f}, published {pair.published:.2f} ({pair.difference:+.2f})"
        for name, pair in compared.protocols.items()
    ]
    return "\n".join([*rows, f"published: {compared.source}", *(f"differs: {text}" for text in compared.differs)])


def differences_from(row: Published, origin: Origin) -> list[str]:
    """What in the making of a result differs from the published protocol, or could, in words."""
    extraction = origin.extraction
    search = origin.search or SearchRecord()
    phrases = []
    if extraction.crop != row.crop:
        phrases.append(
            "queries are not cropped to their box (whole queries score higher)"
            if row.crop == "bbx"
            else "queries are cropped to their box"
        )
    n_scales = len(extraction.scales) or 1
    if n_scales != row.n_scales:
        phrases.append(f"{n_scales} scale{'s' if n_scales != 1 else ''} where {row.n_scales} are published")
    if search.steps:
        phrases.append("re-ranked by " + ", ".join(step.name for step in search.steps))
    if search.is_approximate:
        phrases.append(f"searched with an approximate index ({search.kind})")
    if extraction.whitening:
        phrases.append(f"whitened ({extraction.whitening})")
    weights = str(origin.weights or "") or "not recorded"
    phrases.append(f"weights are {weights}: whether they are the published ones only you know")
    return phrases
