"""The rows of published.py run again: what each needs, what of it is there, and its score beside the published one.

A row runs from descriptors of its model and dataset that are there already, or from the file of descriptors that its
authors published. Nothing is downloaded.
"""

import fnmatch
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ultron_cli.console import log
from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.datasets.download.known_set import Part
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.expected import comparison, differences_from, find_published
from ultron_cli.evaluation.published import N_DISTRACTORS, PUBLISHED, Published
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, StoredCrop
from ultron_cli.retrieval.exchange.descriptors.importing import DescriptorImport, import_descriptors
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rerank import RERANKERS, parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files
from ultron_cli.workspace import Workspace

# Numbers of photos by which find_published tells rows without and with distractors.
N_PHOTOS = {False: 0, True: 2 * N_DISTRACTORS}
QUERIES, DATABASE = "queries.h5", "database.h5"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that a row is run from."""

    what: str
    path: Path | None  # where it is, or would be; None where only its user knows
    is_there: bool
    address: str | None = None
    n_bytes: int | None = None
    get: str | None = None  # the command that gets it, or where its authors publish it

    def to_json(self) -> dict[str, object]:
        """As `ultron reproduce --json` prints it."""
        return {
            "what": self.what,
            "path": self.path and str(self.path),
            "is_there": self.is_there,
            "address": self.address,
            "bytes": self.n_bytes,
            "get": self.get,
        }


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where to look for what rows need."""

    workspace: Workspace
    folders: Sequence[Path] = ()  # of queries.h5 and database.h5, beside those of the workspace
    ground_truths: Sequence[Path] = ()  # gnd_DATASET files, beside those of the data root
    distractors: Sequence[Path] = ()  # descriptor files that are searched behind the database


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A row, and what came of it."""

    row: Published
    needs: tuple[Need, ...]  # of the way that it ran, or of the one that is nearest to it
    evaluation: Evaluation | None = None  # None: it could not run
    made_of: str = ""
    differs: tuple[str, ...] = ()
    fault: str | None = None  # why what is there could not be used

    @property
    def missing(self) -> list[Need]:
        """What it could not run without."""
        return [] if self.evaluation else [need for need in self.needs if not need.is_there]

    def ours(self, protocol: str) -> float | None:
        """mAP in percent; None where it was not measured."""
        scores = self.evaluation.protocols.get(protocol) if self.evaluation else None
        return None if scores is None or scores.mAP is None else 100 * scores.mAP

    def protocols(self) -> list[str]:
        """Those of which anything is known, easy first."""
        known = {*self.row.mAP, *(name for part in self.row.reproduced for name in part.mAP)}
        return [name for name in ("easy", "medium", "hard") if name in known]

    def to_json(self) -> dict[str, object]:
        """As `ultron reproduce --json` prints it; mAP in percent."""
        row = self.row
        return {
            "row": row.name,
            "dataset": row.dataset,
            "distractors": row.distractors,
            "source": row.source,
            "published": dict(row.mAP),
            "reproduced": [{"source": part.source, "mAP": dict(part.mAP)} for part in row.reproduced],
            "ours": {name: self.ours(name) for name in self.protocols()} if self.evaluation else None,
            "made_of": self.made_of or None,
            "differs": list(self.differs),
            "fault": self.fault,
            "needs": [need.to_json() for need in self.needs],
            "missing": [need.what for need in self.missing],
        }


def chosen_rows(names: Sequence[str]) -> list[Published]:
    """The rows that a person named, by name, by system, or by a pattern with `*`; all for none. Raises UltronError."""
    if not names:
        return list(PUBLISHED)
    rows: list[Published] = []
    for name in names:
        matching = [row for row in PUBLISHED if name == row.system or fnmatch.fnmatchcase(row.name, name)]
        if not matching:
            known = [*dict.fromkeys(row.system for row in PUBLISHED), *(row.name for row in PUBLISHED)]
            raise UltronError(f"no row is named {name[:80]!r}; see `ultron reproduce`{nearest_names(name[:80], known)}")
        rows += matching
    return list(dict.fromkeys(rows))


def descriptors_at_hand(sources: Sources) -> dict[Path, DescriptorInfo]:
    """Folders with queries.h5 and database.h5 -> what is said of the queries; unsound ones are left out, and said."""
    of_workspace = sorted((sources.workspace.root / "extract").glob(f"*/{QUERIES}"))
    folders: dict[Path, DescriptorInfo] = {}
    for folder in [*sources.folders, *(path.parent for path in of_workspace)]:
        try:
            with DescriptorFile(folder / QUERIES) as file, DescriptorFile(folder / DATABASE):
                folders[folder] = file.info
        except UltronError as error:
            if folder in sources.folders:
                raise
            log.info("%s", error)
    for folder in sources.folders:
        info = folders[folder]
        if not any(find_published(info.model, info.dataset, n_photos) for n_photos in N_PHOTOS.values()):
            log.warning("%s holds descriptors by %s on %s, of which no row is known", folder, info.model, info.dataset)
    return folders


def attempt(
    row: Published,
    sources: Sources,
    at_hand: dict[Path, DescriptorInfo],
    device_name: str,
    folder: Callable[[str], Path],
) -> Attempt:
    """Runs a row from what is there. folder: makes one for descriptors that are imported, by name."""
    distractors = _distractors(row, sources)
    if unknown := [step for step in row.steps if step not in RERANKERS]:
        need = Need(
            what=f"re-ranking by {', '.join(unknown)}",
            path=None,
            is_there=False,
            get="its authors' program; ultron ranks import FILE --onto RANKS.h5",
        )
        return Attempt(row=row, needs=(need,))
    alike = [
        path
        for path, info in at_hand.items()
        if row in find_published(info.model, info.dataset, N_PHOTOS[row.distractors])
        and {info.crop, row.crop} != {"bbx", "none"}
    ]
    gnd = _ground_truth(row, sources, [at_hand[path].provenance.ground_truth for path in alike])
    published = _published_file(row, sources)
    descriptors = Need(what="its descriptors", path=alike[0], is_there=True) if alike else published
    needs = tuple(need for need in (descriptors, gnd, distractors) if need)
    if descriptors is None:
        return Attempt(row=row, needs=(_weights(row), *needs))
    if not all(need.is_there for need in needs) or gnd.path is None:
        return Attempt(row=row, needs=needs)
    try:
        if alike:
            best = min(alike, key=lambda path: len(differences_from(row, _origin(at_hand[path]))))
        else:
            best = folder(row.name)
            _import(row, published, gnd.path, best)
        evaluation = _evaluated(row, best, gnd.path, sources, device_name)
    except UltronError as error:
        return Attempt(row=row, needs=needs, fault=str(error))
    compared_row = (
        row if alike else replace(row, whitening=None)
    )  # what its authors published is whitened as it must be
    compared = comparison(evaluation, compared_row)
    made_of = best if alike or published is None else published.path
    return Attempt(
        row=row,
        needs=needs,
        evaluation=evaluation,
        made_of=str(made_of),
        differs=compared.differs if compared else (),
    )


def _origin(info: DescriptorInfo) -> Origin:
    return Origin(model=info.model, extraction=info.extraction, weights=info.provenance.weights)


def _part(known_set: str, file: str) -> Part:
    return next(part for part in KNOWN_SETS[known_set].parts if part.file == file)


def _ground_truth(row: Published, sources: Sources, recorded: Sequence[str | None]) -> Need:
    """recorded: at the extraction of descriptors that are there."""
    root = sources.workspace.data_root
    file = f"gnd_{row.dataset}.pkl"
    folders = (
        root / row.dataset,
        *(root / name / "groundtruth" for name in ("revisitop-descriptors", "dolg-descriptors")),
    )
    places = [
        *(path for path in sources.ground_truths if path.stem == f"gnd_{row.dataset}"),
        *(folder / name for folder in folders for name in (file, f"gnd_{row.dataset}.json")),
        *(Path(path) for path in recorded if path),
    ]
    present = next((path for path in places if os.path.isfile(path)), None)
    part = _part(row.dataset, file)
    known_set = row.descriptors.known_set if row.descriptors else row.dataset
    return Need(
        what=f"ground truth of {row.dataset}",
        path=present or folders[0] / file,
        is_there=present is not None,
        address=part.addresses[0],
        n_bytes=part.about_bytes,
        get=f"ultron datasets download {known_set}",
    )


def _distractors(row: Published, sources: Sources) -> Need | None:
    if not row.distractors:
        return None
    return Need(
        what="descriptors of the million distractors, by the same network",
        path=sources.distractors[0] if sources.distractors else None,
        is_there=bool(sources.distractors),
        address=KNOWN_SETS["revisitop1m"].parts[0].addresses[0] + " and 99 more (photos)",
        get="ultron datasets download revisitop1m && ultron extract revisitop1m --weights FILE --out DIR && "
        "ultron reproduce ROW --distractors DIR/database.h5",
    )


def _published_file(row: Published, sources: Sources) -> Need | None:
    """The file of descriptors that a row's authors published."""
    if row.descriptors is None:
        return None
    path = sources.workspace.data_root / row.descriptors.known_set / row.descriptors.file
    part = _part(row.descriptors.known_set, row.descriptors.file)
    return Need(
        what=f"{row.descriptors.file}, the descriptors that its authors publish",
        path=path,
        is_there=path.is_file(),
        address=part.addresses[0],
        n_bytes=part.n_bytes or part.about_bytes,
        get=f"ultron datasets download {row.descriptors.known_set}",
    )


def _weights(row: Published) -> Need:
    """What a row without published descriptors is made from."""
    if row.weights is None or row.model is None:
        get = (
            "its authors publish no descriptors that are known here; import yours: "
            f"ultron descriptors import FILE --model {row.system}"
        )
        return Need(what="its descriptors", path=None, is_there=False, get=get)
    scales = ",".join(f"{scale:.4g}" for scale in row.scales)
    extract = f"ultron extract {row.dataset} --weights W.pt --scales {scales}"
    if row.crop == "none":
        extract = f"ultron extract {row.dataset} --weights W.pt --scales {scales} --no-crop"
    return Need(
        what=f"weights of {row.model}, and photos of {row.dataset}",
        path=None,
        is_there=False,
        address=row.weights.place,
        get=f"ultron weights import FILE --from {row.weights.importer} --out W.pt && ultron datasets download "
        f"{row.dataset} && {extract}",
    )


def _import(row: Published, published: Need | None, gnd: Path, folder: Path) -> None:
    assert published is not None and published.path is not None and row.descriptors is not None
    crop: StoredCrop = "bbx" if row.crop == "bbx" else "none" if row.crop == "none" else "unknown"
    request = DescriptorImport(
        paths=[published.path],
        out=folder,
        format=row.descriptors.format,
        gnd=gnd,
        model=row.model,
        crop=crop,
        scales=row.scales,
        overwrite=True,
    )
    import_descriptors(request)


def _evaluated(row: Published, folder: Path, gnd: Path, sources: Sources, device_name: str) -> Evaluation:
    options = SearchOptions(
        steps=parse_rerank(",".join(row.steps), []), distractors=tuple(sources.distractors) if row.distractors else ()
    )
    ranking = search_files(folder / QUERIES, folder / DATABASE, None, device_name, options=options, rows_only=True)
    return evaluate_ranking(ranking, gnd)
