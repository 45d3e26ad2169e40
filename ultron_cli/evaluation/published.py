"""The rows of the field's tables: mAP as published, as others reproduced it, and what a row needs to be run again.

A score says nothing without its protocol, so that each row tells how its photos were described as far as its source
does. Numbers are percent, of the revisited Oxford and Paris sets, alone or with the million distractors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

N_DISTRACTORS = 1_001_001  # photos of the published set of distractors
OXFORD, PARIS = "roxford5k", "rparis6k"
DOLG_SCALES = (0.3535, 0.5, 0.7071, 1.0, 1.4142)
GEM_SCALES = (1.0, 2**-0.5, 0.5)  # of cirtorch, for networks with learned whitening
SUPERGLOBAL_SCALES = (0.7071, 1.0, 1.4142)


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What others measured for a row."""

    mAP: Mapping[str, float] = field(hash=False)  # protocol -> percent
    source: str


@dataclass(frozen=True, kw_only=True)
class DescriptorSource:
    """A published file of descriptors that a row can be evaluated from."""

    known_set: str  # of KNOWN_SETS in datasets/download/
    file: str
    format: str  # as `ultron descriptors import --format` names it


@dataclass(frozen=True, kw_only=True)
class WeightsAt:
    """Where a row's weights are published, and who imports them."""

    place: str  # an address, or the page on which its authors link them
    importer: str  # as `ultron weights import --from` names it


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a published table, on one dataset."""

    system: str  # its name, as `ultron reproduce` takes it
    model: str | None  # what the labels of its model begin with; None: a network that this project has not
    dataset: str
    mAP: Mapping[str, float] = field(hash=False)  # protocol -> percent; empty where only others' numbers are known
    source: str
    distractors: bool = False  # searched with the million distractors
    scales: tuple[float, ...] = ()  # of the published extraction, in any order; empty: not told
    crop: str | None = None  # of the published extraction's queries, bbx or none; None: not told
    whitening: str | None = None  # that followed the published extraction, as `ultron whiten --method` names it
    steps: tuple[str, ...] = ()  # of re-ranking
    reproduced: tuple[Reproduced, ...] = ()
    descriptors: DescriptorSource | None = None
    weights: WeightsAt | None = None

    @property
    def name(self) -> str:
        """`dolg-r101/roxford5k+1m`."""
        return f"{self.system}/{self.dataset}{'+1m' if self.distractors else ''}"


# Medium of Oxford, Oxford with distractors, Paris, Paris with distractors; then Hard of the same.
Eight = tuple[float, float, float, float, float, float, float, float]
PLACES = ((OXFORD, False), (OXFORD, True), (PARIS, False), (PARIS, True))
DOLG_TABLE = "DOLG's first table (Yang et al., ICCV 2021)"
CVNET_WEIGHTS = WeightsAt(
    place="CVNet's weights: its README (github.com/sungonce/CVNet) links a folder on Google Drive", importer="cvnet"
)
SUPERGLOBAL_ISSUE = "github.com/ShihaoShao-GH/SuperGlobal, issue 3, 2023"


def _eight(system: str, model: str | None, numbers: Eight, source: str, **protocol: object) -> list[Published]:
    """The four rows of eight numbers in the order of PLACES."""
    return [
        Published(
            system=system,
            model=model,
            dataset=dataset,
            distractors=distractors,
            mAP={"medium": numbers[i], "hard": numbers[i + 4]},
            source=source,
            **protocol,  # type: ignore[arg-type]  # fields of Published
        )
        for i, (dataset, distractors) in enumerate(PLACES)
    ]


def _dolg(depth: int, numbers: Eight, *, crop: str) -> list[Published]:
    """Rows of DOLG's README, whose descriptors are in the authors' repository, but for the distractors."""
    places = {50: ("13Bt1v_sMSny8pGRIM0K8xQ", "d7or"), 101: ("1_osEyC53txA-_1cbadBzLQ", "nqdb")}
    share, code = places[depth]
    cropped = "queries cropped" if crop == "bbx" else "queries not cropped"
    rows = _eight(
        f"dolg-r{depth}" + ("" if crop == "bbx" else "-uncropped"),
        f"dolg-r{depth}",
        numbers,
        f"Yang et al., ICCV 2021, as in the authors' repository ({cropped})",
        scales=DOLG_SCALES,
        crop=crop,
        weights=WeightsAt(
            place=f"https://pan.baidu.com/s/{share} (code {code}, of the authors' README)", importer="dolg"
        ),
    )
    middle = "_crop" if crop == "bbx" else ""
    return [
        row
        if row.distractors
        else Published(
            **{
                **vars(row),
                "descriptors": DescriptorSource(
                    known_set="dolg-descriptors",
                    file=f"{row.dataset[:-2]}_R{depth}_512{middle}_test5.pickle",
                    format="dolg",
                ),
            }
        )
        for row in rows
    ]


def _gem(dataset: str, network: str, **percents: float) -> Published:
    is_pytorch = network == "pytorch"
    called = "PyTorch" if is_pytorch else "MatConvNet"
    return Published(
        system=f"gem-r101-{network}",
        model="gem-resnet101",
        dataset=dataset,
        mAP=percents,
        source="R101-GeM (Radenovic et al., TPAMI 2019), whitening learned on retrieval-SfM-120k, "
        f"the {called} network",
        scales=GEM_SCALES,
        crop="bbx",
        whitening="lw",
        descriptors=None
        if is_pytorch
        else DescriptorSource(
            known_set="revisitop-descriptors", file=f"{dataset}_resnet_rsfm120k_gem.mat", format="revisitop"
        ),
        weights=WeightsAt(
            place="http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks/retrieval-SfM-120k/"
            "retrievalSfM120k-resnet101-gem-b80fb85.pth",
            importer="cirtorch",
        )
        if is_pytorch
        else None,
    )


def _superglobal(
    depth: int,
    dataset: str,
    *,
    reranked: bool,
    distractors: bool,
    mAP: Mapping[str, float] | None = None,
    reproduced: Mapping[str, float] | None = None,
) -> Published:
    return Published(
        system=f"superglobal-r{depth}" + ("-reranked" if reranked else ""),
        model=f"superglobal-resnet{depth}",
        dataset=dataset,
        distractors=distractors,
        mAP=mAP or {},
        source=f"Shao et al., ICCV 2023, {'with' if reranked else 'without'} re-ranking",
        scales=SUPERGLOBAL_SCALES,
        crop="bbx",
        steps=("superglobal",) if reranked else (),
        reproduced=() if reproduced is None else (Reproduced(mAP=reproduced, source=SUPERGLOBAL_ISSUE),),
        weights=CVNET_WEIGHTS,
    )


def _token(dataset: str, published: float, reproduced: float) -> Published:
    return Published(
        system="token-r101",
        model=None,
        dataset=dataset,
        distractors=True,
        mAP={"medium": published},
        source="Token (Wu et al., AAAI 2022)",
        reproduced=(Reproduced(mAP={"medium": reproduced}, source="github.com/MCC-WH/Token, issue 10"),),
    )


def _scores(easy: float, medium: float, hard: float) -> dict[str, float]:
    return {"easy": easy, "medium": medium, "hard": hard}


# Of a model's rows the first of those that are most alike is the one to compare with: the PyTorch network is the one
# that `ultron weights import` takes.
PUBLISHED: tuple[Published, ...] = (
    *_dolg(50, (81.20, 71.36, 90.07, 78.99, 62.55, 47.34, 79.20, 59.75), crop="bbx"),
    *_dolg(101, (82.37, 73.63, 90.97, 80.44, 64.93, 51.57, 81.71, 62.95), crop="bbx"),
    *_dolg(50, (82.38, 77.78, 90.94, 82.16, 62.92, 55.48, 80.48, 65.77), crop="none"),
    *_dolg(101, (83.22, 78.96, 91.64, 82.89, 64.83, 57.86, 82.56, 67.34), crop="none"),
    *_eight(
        *("dolg-r50-first-table", "dolg-r50", (80.50, 76.58, 89.81, 80.79, 58.82, 52.21, 77.7, 62.83)),
        f"{DOLG_TABLE}, queries not cropped",
        scales=DOLG_SCALES,
        crop="none",
    ),
    *_eight(
        *("dolg-r101-first-table", "dolg-r101", (81.50, 77.43, 91.02, 83.29, 61.10, 54.81, 80.30, 66.69)),
        f"{DOLG_TABLE}, queries not cropped",
        scales=DOLG_SCALES,
        crop="none",
    ),
    _gem(OXFORD, "pytorch", medium=65.4, hard=40.1),
    _gem(OXFORD, "matconvnet", easy=84.81, medium=64.67, hard=38.47),
    _gem(PARIS, "pytorch", medium=76.7, hard=55.2),
    _gem(PARIS, "matconvnet", easy=92.12, medium=77.20, hard=56.32),
    *_eight(
        *("gem-r101-cited", "gem-resnet101", (65.30, 46.10, 77.30, 52.60, 39.60, 22.20, 56.60, 24.80)),
        f"R101-GeM as {DOLG_TABLE} cites it",
    ),
    *_eight(
        *("gem-ap-r101", None, (67.5, 47.5, 80.1, 52.5, 42.8, 23.2, 60.5, 25.1)),
        "R101-GeM-AP, queries cropped",
        crop="bbx",
    ),
    *_eight(
        "delg-r50", None, (73.6, 60.6, 85.7, 68.6, 51.0, 32.7, 71.5, 44.4), "R50-DELG, queries cropped", crop="bbx"
    ),
    *_eight(
        "delg-r101", None, (76.3, 63.7, 86.6, 70.6, 55.6, 37.5, 72.4, 46.9), "R101-DELG, queries cropped", crop="bbx"
    ),
    *_eight(
        *("delg-r101-reranked", None, (81.20, 69.10, 87.20, 71.50, 64.00, 47.50, 72.80, 48.70)),
        f"R101-DELG, re-ranked by local features, as {DOLG_TABLE} cites it",
        steps=("local features",),
    ),
    *_eight(
        *("rmac-r101", None, (60.90, 39.30, 78.90, 54.80, 32.40, 12.50, 59.40, 28.00)),
        f"R101-R-MAC as {DOLG_TABLE} cites it",
    ),
    *_eight(
        *("gem-solar-r101", None, (69.90, 53.50, 81.60, 59.20, 47.90, 29.90, 64.50, 33.40)),
        f"R101-GeM+SOLAR as {DOLG_TABLE} cites it",
    ),
    *_eight(
        *("how-asmk-r50", None, (79.40, 65.80, 81.60, 61.80, 56.90, 38.90, 62.40, 33.70)),
        f"R50-HOW-ASMK, n = 2000, as {DOLG_TABLE} cites it",
    ),
    _superglobal(101, OXFORD, reranked=True, distractors=False, mAP={"hard": 80.2}),
    _superglobal(101, PARIS, reranked=True, distractors=False, mAP={"hard": 86.7}),
    _superglobal(50, OXFORD, reranked=False, distractors=True, reproduced=_scores(87.98, 73.13, 50.75)),
    _superglobal(50, PARIS, reranked=False, distractors=True, reproduced=_scores(90.6, 79.3, 62.62)),
    _superglobal(50, OXFORD, reranked=True, distractors=True, reproduced=_scores(92.11, 78.7, 62.36)),
    _superglobal(50, PARIS, reranked=True, distractors=True, reproduced=_scores(92.71, 82.24, 68.0)),
    _superglobal(101, OXFORD, reranked=False, distractors=True, reproduced=_scores(89.48, 77.69, 60.44)),
    _superglobal(101, PARIS, reranked=False, distractors=True, reproduced=_scores(92.7, 82.34, 66.6)),
    _token(OXFORD, 75.64, 70.58),
    _token(PARIS, 79.76, 77.24),
)
