"""Published mAP of the systems that this project has, to stand beside a measured one for `ultron evaluate --expected`.

A score says nothing without its protocol (cropping, scales), so what differs from the published one is said with it.
"""

from dataclasses import dataclass, field
from typing import Any

from ultron_cli.retrieval.origin import Origin, SearchRecord

N_DISTRACTORS = 1_001_001
DOLG_SCALES, DOLG_SOURCE = 5, "Yang et al., ICCV 2021, as in the authors' repository (queries cropped)"
GEM_SOURCE = "the published self-test of R101-GeM (Radenovic et al., TPAMI 2019)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a published table. mAP: percent by protocol. model: as labels begin here. n_scales: of the published
    extraction."""

    model: str
    dataset: str
    mAP: dict[str, float] = field(hash=False)
    source: str
    distractors: bool = False
    n_scales: int = 3
    crop: str = "bbx"


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


def comparison(report: dict[str, Any]) -> dict[str, Any] | None:
    """An evaluation (evaluation_report) beside the published one, percent: {"source", "protocols": {name: {"ours",
    "published", "difference"}}, "differs": [what in the protocol differs]}; None if nothing is published for it."""
    origin = Origin.from_json(report["provenance"])
    row = find_published(origin.model or "", report["dataset"], report["n_database"])
    if row is None:
        return None
    both = {}
    for name, published in row.mAP.items():
        part = report["protocols"].get(name)
        if part and part["mAP"] is not None:
            both[name] = {
                "ours": 100 * part["mAP"],
                "published": published,
                "difference": 100 * part["mAP"] - published,
            }
    return {"source": row.source, "protocols": both, "differs": differences_from(row, origin)}


def comparison_text(found: dict[str, Any] | None) -> str:
    """A comparison for people: a line per protocol, the source and what differs."""
    if found is None:
        return "nothing is published for this model on this dataset with as many photos"
    rows = [
        f"{name}: ours {part['ours']:.2f}, published {part['published']:.2f} ({part['difference']:+.2f})"
        for name, part in found["protocols"].items()
    ]
    return "\n".join([*rows, f"published: {found['source']}", *(f"differs: {text}" for text in found["differs"])])


def differences_from(row: Published, origin: Origin) -> list[str]:
    """What in the making of a result differs from the published protocol, or could, in words."""
    extraction, search = origin.extraction, origin.search or SearchRecord()
    differing = []
    if extraction.crop != row.crop:
        differing.append(
            "queries are not cropped to their box (whole queries score higher)"
            if row.crop == "bbx"
            else "queries are cropped to their box"
        )
    n_scales = len(extraction.scales) or 1
    if n_scales != row.n_scales:
        differing.append(f"{n_scales} scale{'s' if n_scales != 1 else ''} where {row.n_scales} are published")
    if search.steps:
        differing.append("re-ranked by " + ", ".join(step.name for step in search.steps))
    if search.is_approximate:
        differing.append(f"searched with an approximate index ({search.kind})")
    if extraction.whitening:
        differing.append(f"whitened ({extraction.whitening})")
    source = str(origin.weights or "") or "not recorded"
    differing.append(f"weights are {source}: whether they are the published ones only you know")
    return differing
