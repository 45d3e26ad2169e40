"""The steps of an experiment from Python: train, extract, search, evaluate, compare. `import ultron_cli` offers them.

Each is what the command of its name does, without printing: results go into the workspace and are remembered there as
the latest, so that commands and notebooks take up each other's. All raise UltronError for what the caller can mend;
where its text names a flag of the command line, it is the argument or setting of that name.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

from ultron_cli.datasets.protocols import PROTOCOLS, Protocol
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd
from ultron_cli.evaluation.result import Evaluation, read_evaluation
from ultron_cli.evaluation.significance import Comparison, compare_evaluations
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset
from ultron_cli.retrieval.photo_queries import search_photos
from ultron_cli.retrieval.rankings import Ranking, read_ranks
from ultron_cli.retrieval.rerank import Step, parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_descriptors, search_files
from ultron_cli.training.autola.run import AutolaResult
from ultron_cli.training.start import TrainRequest, start_training
from ultron_cli.workspace import Workspace

DESCRIPTOR_SUFFIXES = (".h5", ".hdf5")  # a query file that ends so holds descriptors, any other is a photo


class Extracted(DescriptorFile):
    """The descriptors of a dataset's database, open for reading, with those of its queries beside them."""

    def __init__(self, summary: ExtractSummary) -> None:
        """summary: as `ultron extract --json` prints it."""
        files = summary["files"]
        super().__init__(Path(files["database"]["path"]))
        self.summary = summary
        # None where the dataset has no ground truth, and so no queries.
        self.queries = DescriptorFile(Path(files["query"]["path"])) if "query" in files else None

    def close(self) -> None:
        """Closes both files."""
        super().close()
        if self.queries is not None:
            self.queries.close()


def _draw_run(folder: Path, search: AutolaResult | None = None) -> None:
    from ultron_cli.visualization.curves.run_pictures import draw_run  # loads matplotlib, which a training goes without

    draw_run(folder, search)


def train(
    preset: str | None = None,
    dataset: str | Path | None = None,
    settings: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> dict[str, object]:
    """Trains a model and returns a summary: "run" (its folder), "checkpoint", "model", "config", "metrics" per epoch.

    preset: None is quickstart. dataset: a name, or a folder with one folder of photos per landmark; None is that of
    the preset. settings: as for --set, for example "epochs=20". out: the folder of the run; None is one in the
    workspace. resume: goes on with the interrupted run in `out`, or with the latest; or with the finished one in `out`
    and more epochs.
    """
    request = TrainRequest(
        preset=preset,
        dataset=None if dataset is None else str(dataset),
        assignments=tuple(settings),
        out=out,
        resume=resume,
    )
    return start_training(request, device, _draw_run, workspace).to_plain()


def extract(
    photos: str | Path | ExtractRequest,
    model: ModelChoice | None = None,
    *,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Extracted:
    """Computes descriptors of a dataset's queries and database photos, or goes on where an extraction stopped.

    photos: a dataset by name or a folder of photos; an ExtractRequest also says scales, size, crop, output folder and
    the rest. model: None is that of the latest training run.
    """
    request = photos if isinstance(photos, ExtractRequest) else ExtractRequest(dataset=str(photos))
    workspace = workspace or Workspace()
    summary = extract_dataset(request, model or ModelChoice(workspace=workspace), device, workspace)
    return Extracted(summary)


def search(
    queries: Descriptors | str | Path | Sequence[str | Path] | None = None,
    database: Descriptors | str | Path | None = None,
    k: int | None = None,
    rerank: Sequence[str | Step] = (),
    *,
    options: SearchOptions | None = None,
    device: str = "auto",
    workspace: Workspace | None = None,
) -> Ranking:
    """Ranks the database photos for every query, exactly unless the options name an index.

    queries: descriptors, a descriptor file (.h5), or photos, which the model that made the database describes.
    database: descriptors or a descriptor file. None takes the latest extraction's. k: photos per query, from 1; None
    ranks all.
    rerank: steps by name with their published settings, or Steps, in their order; they replace those of the options.
    Open descriptors are searched as they are: an index, a whitening or distractors are for files.
    """
    options = options or SearchOptions()
    if rerank:
        steps = [step if isinstance(step, Step) else parse_rerank(step, [])[0] for step in rerank]
        options = replace(options, steps=tuple(steps))
    workspace = workspace or Workspace()
    if isinstance(queries, Descriptors) and isinstance(database, Descriptors):
        if options.index or options.whitening or options.distractors:
            raise UltronError("an index, a whitening or distractors are of descriptor files; give paths")
        return search_descriptors(
            queries, database, k, device, steps=options.steps, leave_out_queries=options.leave_out_queries
        )
    query_paths = _paths_of(queries)
    database_path = None if database is None else _paths_of(database)[0]
    if query_paths is None or (len(query_paths) == 1 and query_paths[0].suffix in DESCRIPTOR_SUFFIXES):
        files = latest_descriptors(query_paths[0] if query_paths else None, database_path, workspace)
        return search_files(*files, k, device, options=options)
    if database_path is None:
        database_path = workspace.take_latest("extract", "name a database") / "database.h5"
    return search_photos(query_paths, database_path, k, device, options=options)


@overload
def _paths_of(photos_or_file: None) -> None: ...
@overload
def _paths_of(photos_or_file: Descriptors | str | Path | Sequence[str | Path]) -> list[Path]: ...
def _paths_of(photos_or_file: Descriptors | str | Path | Sequence[str | Path] | None) -> list[Path] | None:
    """The files that are named; of open descriptors, their file. Raises UltronError if they are not of one file."""
    if photos_or_file is None:
        return None
    if isinstance(photos_or_file, Descriptors):
        if not isinstance(photos_or_file, DescriptorFile):
            raise UltronError(f"queries and database are both open descriptors, or both files; found {photos_or_file}")
        return [photos_or_file.path]
    if isinstance(photos_or_file, (str, Path)):
        return [Path(photos_or_file)]
    return [Path(path) for path in photos_or_file]


def evaluate(
    ranking: Ranking | str | Path,
    ground_truth: str | Path | None = None,
    *,
    protocols: Sequence[Protocol] = tuple(PROTOCOLS),
    duplicates: Literal["count", "first"] = "count",
    leave_out_queries: bool = False,
) -> Evaluation:
    """The scores of a ranking, or of a rank file: .protocols["medium"].mAP is a fraction, as are mP and, by query, ap.

    ground_truth: gnd_NAME.json or .pkl; None is the one that was recorded at extraction. duplicates: whether each
    repeat of a photo in a ranking counts, as in revisitop, or only the first. leave_out_queries: whether a query that
    is in the database too is left out of its own ranking.
    """
    if not isinstance(ranking, Ranking):
        ranking = read_ranks(Path(ranking))
    gnd = find_gnd(None if ground_truth is None else Path(ground_truth), ranking.origin)
    return evaluate_ranking(ranking, gnd, protocols, duplicates, leave_out_queries=leave_out_queries)


def compare(evaluations: Sequence[Evaluation | str | Path]) -> dict[Protocol, Comparison]:
    """By protocol, whether chance explains the difference of two evaluations of the same queries.

    evaluations: two, the one before and the one after: what `evaluate` returned, or files of `ultron evaluate --out`.
    """
    if len(evaluations) != 2:
        raise UltronError(f"two evaluations are compared, found {len(evaluations)}; give two")
    before, after = (value if isinstance(value, Evaluation) else read_evaluation(Path(value)) for value in evaluations)
    shared: list[Protocol] = [name for name in PROTOCOLS if name in before.protocols and name in after.protocols]
    if not shared:
        raise UltronError("the two evaluations have no protocol in common; evaluate both with all protocols")
    return {protocol: compare_evaluations(before, after, protocol) for protocol in shared}
