"""The steps of an experiment from Python: train, extract, search, evaluate, compare. `import ultron_cli` offers them.

Each is what the command of its name does, without printing. Results come back as objects, and the workspace stays as
it is: with `workspace=` they go there and are remembered as the latest, so that commands and notebooks take up each
other's; with `out=` they go into that folder. What is left out (a model, queries, a database) is the latest of the
workspace, as for the commands. All raise UltronError for what the caller can mend.
"""

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from ultron_cli.configs import flatten
from ultron_cli.console import log
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.landmarks.photos import photos_by_landmark
from ultron_cli.datasets.listed import listed_photos
from ultron_cli.datasets.photo_types import photo_suffixes
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, Protocol, parse_ground_truth
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd, truth_of_labels
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.evaluation.summaries import ComparedSystems, compare_all
from ultron_cli.evaluation.systems import systems_of
from ultron_cli.machine import resolve_device
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.model_choice import ModelChoice, ModelInMemory
from ultron_cli.retrieval.arrays import descriptors_of, is_array
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors, MemoryDescriptors
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset
from ultron_cli.retrieval.extraction.images import describe_images
from ultron_cli.retrieval.photo_queries import search_photos
from ultron_cli.retrieval.rankings import Ranking, read_ranks
from ultron_cli.retrieval.rerank import Step, parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_descriptors, search_files
from ultron_cli.retrieval.whitening import open_descriptors
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.autola.run import AutolaResult
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.result import Run
from ultron_cli.training.start import TrainRequest, start_training
from ultron_cli.workspace import Workspace

if TYPE_CHECKING:
    from ultron_cli.evaluation.evaluate import Labels
    from ultron_cli.retrieval.arrays import Array
    from ultron_cli.retrieval.extraction.images import Image

    Photos = str | Path | Dataset | ExtractRequest | Sequence[str | Path]
    Model = ModelChoice | Run | RetrievalModel | str | Path
    Stored = Descriptors | Array | str | Path
    Evaluated = Evaluation | str | Path

DESCRIPTOR_SUFFIXES = (".h5", ".hdf5")  # a query file that ends so holds descriptors, any other is a photo


class TemporaryFolder:
    """A folder for results that no other place was named for; it is removed when nothing holds this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ultron-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def leave(self) -> None:
        """Leaves the folder there for good."""
        self._end.detach()


class Extracted(DescriptorFile):
    """The descriptors of a dataset's database, open for reading, with those of its queries beside them."""

    def __init__(self, summary: ExtractSummary, place: TemporaryFolder | None = None) -> None:
        """summary: as `ultron extract --json` prints it. place: the temporary folder of the files, which lasts as long
        as they are open."""
        files = summary["files"]
        super().__init__(Path(files["database"]["path"]))
        self.summary = summary
        # None where the dataset has no ground truth, and so no queries.
        self.queries = ExtractedQueries(Path(files["query"]["path"]), place) if "query" in files else None
        self._place = place

    def close(self) -> None:
        """Closes both files."""
        super().close()
        if self.queries is not None:
            self.queries.close()


class ExtractedQueries(DescriptorFile):
    """The descriptors of a dataset's queries, which may outlive those of its database."""

    def __init__(self, path: Path, place: TemporaryFolder | None) -> None:
        super().__init__(path)
        self._place = place


def _draw_run(folder: Path, search: AutolaResult | None = None) -> None:
    from ultron_cli.visualization.curves.run_pictures import draw_run  # loads matplotlib, which a training goes without

    draw_run(folder, search)


def train(
    config: str | Path | TrainConfig | AutolaConfig | None = None,
    dataset: str | Path | Mapping[str, Sequence[str | Path]] | DescriptorFile | None = None,
    settings: Sequence[str] | Mapping[str, object] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Run:
    """Trains a network and returns its run: .folder, .checkpoint, .metrics per epoch, .load() for the network.

    config: a preset by name, a TOML file of settings, or a whole configuration; None is quickstart. dataset: a name, a
    folder with one folder of photos per landmark, or the photos themselves by landmark ({"eiffel": ["a.jpg", ...]}); or
    stored descriptors, on which a head is trained (linear-adaptation); None is that of the preset. settings:
    {"epochs": 20, "loss.name": "cosface"}, or texts as for --set. out: the run's folder; without it and without a
    workspace, one that is removed when the run is let go, which is said. resume: goes on with the interrupted run in
    `out`, or with the workspace's latest; or with the finished one in `out` and more epochs.
    """
    photos = None
    assignments = _assignments(settings)
    if isinstance(dataset, DescriptorFile):
        assignments = (*assignments, f"descriptors={json.dumps(str(dataset.path.absolute()))}")
        dataset = None
    elif isinstance(dataset, Mapping):
        photos = photos_by_landmark(dataset)
        dataset = photos.folder
    is_file = isinstance(config, Path) or (isinstance(config, str) and config.endswith(".toml"))
    place = _place(out, workspace) if not resume else None
    request = TrainRequest(
        preset=config if isinstance(config, str) and not is_file else None,
        config_file=Path(config) if is_file and isinstance(config, (str, Path)) else None,
        config=config if isinstance(config, (TrainConfig, AutolaConfig)) else None,
        dataset=None if dataset is None else str(dataset),
        photos=photos,
        assignments=assignments,
        out=place.path / "run" if place else None if out is None else Path(out),
        resume=resume,
        overwrite=overwrite,
    )
    if place:
        log.warning("the run lies in %s until it is let go; name a folder with `out` to keep it", request.out)
    try:
        return Run(start_training(request, device, _draw_run, workspace), place)
    except WorkFailed:  # it says how to go on from what was saved
        if place:
            place.leave()
        raise


def _place(out: object, workspace: Workspace | None) -> TemporaryFolder | None:
    return TemporaryFolder() if out is None and workspace is None else None


def _assignments(settings: Sequence[str] | Mapping[str, object]) -> tuple[str, ...]:
    """Settings as --set takes them."""
    if isinstance(settings, str):
        raise UltronError(
            f'settings are several texts or a dictionary, found the text {settings!r}; give ["{settings}"]'
        )
    if not isinstance(settings, Mapping):
        return tuple(settings)
    return tuple(f"{key}={'none' if value is None else json.dumps(value)}" for key, value in flatten(settings).items())


@overload
def extract(
    photos: "Photos",
    model: "Model | None" = None,
    *,
    scales: Sequence[float] | None = None,
    max_side_px: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Extracted: ...
@overload
def extract(
    photos: "Array | Sequence[Image]",
    model: "Model | None" = None,
    *,
    scales: Sequence[float] | None = None,
    max_side_px: int | None = None,
    names: Sequence[str] | None = None,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> MemoryDescriptors: ...
def extract(
    photos: "Photos | Array | Sequence[Image]",
    model: "Model | None" = None,
    *,
    scales: Sequence[float] | None = None,
    max_side_px: int | None = None,
    names: Sequence[str] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Extracted | MemoryDescriptors:
    """Computes descriptors of a dataset's queries (result.queries) and database photos, of photos by path, or of
    pixels.

    photos: a dataset by name, a folder, a Dataset, paths of photos, or an ExtractRequest with all its settings; or
    pixels, a (N, H, W, 3) uint8 array or a list of (H, W, 3) arrays and Pillow images, which are described in memory.
    model: a Run, the path or name of a run or the file of its weights, a network, or a ModelChoice; None is the
    workspace's latest run. scales, max_side_px: None are those the model is made for. names: of pixels. out: the folder
    of the files, where an interrupted extraction goes on; without it and without a workspace, one that is removed when
    the result is let go.
    """
    choice = _model_choice(model, workspace)
    plain = ExtractRequest(
        dataset=None, scales=None if scales is None else tuple(map(float, scales)), max_side_px=max_side_px
    )
    if isinstance(photos, ExtractRequest):
        request = photos
        if scales is not None or max_side_px is not None:
            raise UltronError("an ExtractRequest has its own `scales` and `max_side_px`; set them there")
    elif isinstance(photos, Dataset):
        request = replace(plain, dataset=photos)
    elif isinstance(photos, (str, Path)) and not str(photos).lower().endswith(photo_suffixes()):
        request = replace(plain, dataset=str(photos))
    else:
        listed: Sequence[object] = [photos] if isinstance(photos, (str, Path)) else [*photos]
        paths = [photo for photo in listed if isinstance(photo, (str, Path))]
        if len(paths) < len(listed):
            return describe_images(listed, names, choice.load(), plain, resolve_device(device))
        request = replace(plain, dataset=listed_photos(paths))
    place = _place(out or request.out, workspace)
    if place or out is not None:
        request = replace(request, out=place.path if place else Path(out or "."))
    return Extracted(extract_dataset(request, choice, device, workspace), place)


def _are_paths(photos: Sequence[object]) -> bool:
    return all(isinstance(photo, (str, Path)) for photo in photos)


def _model_choice(model: "Model | None", workspace: Workspace | None) -> ModelChoice | ModelInMemory:
    """Whatever names a network, as a choice. Raises UltronError for what does not."""
    if isinstance(model, ModelChoice):
        return model
    if isinstance(model, Run):
        return ModelChoice(weights=model.checkpoint)
    if isinstance(model, RetrievalModel):
        return ModelInMemory(model)
    if model is None or isinstance(model, (str, Path)):
        return ModelChoice(run=None if model is None else str(model), workspace=workspace or Workspace())
    raise UltronError(
        f"`model` is a run, a path, a ModelChoice or a RetrievalModel (create_model makes one); found {type(model)}"
    )


def search(
    queries: "Stored | Sequence[str | Path] | None" = None,
    database: "Stored | None" = None,
    k: int | None = None,
    rerank: str | Sequence[str | Step] = (),
    *,
    options: SearchOptions | None = None,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Ranking:
    """Ranks the database photos for every query, exactly unless the options name an index.

    queries: descriptors, a (Q, D) array of unit rows, a descriptor file (.h5), or photos, which the model that made the
    database describes. database: descriptors, a (N, D) array or a descriptor file. None takes the latest extraction's.
    k: photos per query, from 1; None ranks all. rerank: steps by name with their published settings ("aqe,dba"), or
    Steps, in their order; they replace those of the options. An index, a whitening or distractors are for files.
    """
    options = options or SearchOptions()
    if rerank:
        named_steps = [rerank] if isinstance(rerank, str) else rerank
        chains = [[step] if isinstance(step, Step) else parse_rerank(step, []) for step in named_steps]
        options = replace(options, steps=tuple(step for chain in chains for step in chain))
    workspace = workspace or Workspace()
    if is_array(queries):
        queries = descriptors_of(queries, label="query")
    if is_array(database):
        database = descriptors_of(database, label="photo")
    elif database is not None and not isinstance(database, Descriptors):
        database = Path(database)
    has_files_alone = options.index or options.whitening or options.distractors
    if has_files_alone and (isinstance(queries, Descriptors) or isinstance(database, Descriptors)):
        raise UltronError("an index, a whitening or distractors are of descriptor files; give paths")
    if queries is not None and not isinstance(queries, Descriptors):
        paths = [Path(queries)] if isinstance(queries, (str, Path)) else [Path(path) for path in queries]
        if len(paths) != 1 or paths[0].suffix not in DESCRIPTOR_SUFFIXES:
            base = database or workspace.take_latest("extract", "name a database") / "database.h5"
            return search_photos(paths, base, k, device, options=options)
        queries = paths[0]
    if not isinstance(queries, Descriptors) and not isinstance(database, Descriptors):
        return search_files(*latest_descriptors(queries, database, workspace), k, device, options=options)
    if queries is None or database is None:
        latest_queries, latest_database = latest_descriptors(None, None, workspace)
        queries, database = queries or latest_queries, database or latest_database
    return search_descriptors(
        _readable(queries),
        _readable(database),
        k,
        device,
        steps=options.steps,
        leave_out_queries=options.leave_out_queries,
    )


def _readable(stored: Descriptors | Path) -> Descriptors:
    return stored if isinstance(stored, Descriptors) else open_descriptors(stored)


def evaluate(
    ranking: Ranking | str | Path,
    ground_truth: "str | Path | GroundTruth | Mapping[str, object] | tuple[Labels, Labels] | None" = None,
    *,
    protocols: Sequence[Protocol] = tuple(PROTOCOLS),
    duplicates: Literal["count", "first"] = "count",
    leave_out_queries: bool = False,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """The scores of a ranking, or of a rank file: .protocols["medium"].mAP is a fraction, as are mP and, by query, ap.

    ground_truth: gnd_NAME.json or .pkl, or its content; or (labels of the queries, labels of the database photos), of
    which equal ones mean one landmark; None is the one that was recorded at extraction. duplicates: whether each
    repeat of a photo in a ranking counts, as in revisitop, or only the first. leave_out_queries: whether a query that
    is in the database too is left out of its own ranking. metrics: further ones by name, `mAP@100`, or import path.
    """
    if not isinstance(ranking, Ranking):
        ranking = read_ranks(Path(ranking))
    if isinstance(ground_truth, tuple):
        ground_truth = truth_of_labels(*ground_truth, ranking)
    elif isinstance(ground_truth, Mapping):
        ground_truth = parse_ground_truth(dict(ground_truth), Path("the ground truth in memory"))
    elif not isinstance(ground_truth, GroundTruth):
        ground_truth = find_gnd(None if ground_truth is None else Path(ground_truth), ranking.origin)
    return evaluate_ranking(
        ranking, ground_truth, protocols, duplicates, leave_out_queries=leave_out_queries, metrics=metrics
    )


def compare(
    evaluations: "Sequence[Evaluated | Sequence[Evaluated]]", labels: Sequence[str] | None = None
) -> ComparedSystems:
    """Any number of evaluations of the same queries side by side: mAP and interval of each, who beats whom beyond
    chance, and the queries that differ most; comparison["hard"].difference is the last's mAP minus the first's.

    evaluations: what `evaluate` returned, or files of `ultron evaluate --out` and rank files; several in one place are
    training seeds of one system. labels: their names; None takes the models'.
    """
    if len(evaluations) < 2:
        raise UltronError(f"two evaluations or more are compared, found {len(evaluations)}; give two")
    groups = [[part] if isinstance(part, (Evaluation, str, Path)) else part for part in evaluations]
    results = [[part if isinstance(part, Evaluation) else Path(part) for part in group] for group in groups]
    return compare_all(systems_of(results, labels))


def descriptors(rows: "Array", names: Sequence[str] | None = None) -> MemoryDescriptors:
    """(N, D) unit vectors (NumPy or torch) as descriptors in memory, which `search` takes and whose names it gives.

    names: of the photos; None is `row 0`, `row 1` ...
    """
    return descriptors_of(rows, names)
