"""The steps that cells are made of. Each leaves its result in the workspace under a hash of all that makes it, and
computes only what is not there yet.

They are the steps that the commands run. Processes that need the same result at the same time wait for the first.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ultron_cli import user_code
from ultron_cli.console import dump_json
from ultron_cli.datasets.named import open_named_dataset
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd
from ultron_cli.evaluation.ties import with_ties
from ultron_cli.files import file_state, make_folder, require_regular_file, sha256_of_file, write_text
from ultron_cli.locks import only_writer
from ultron_cli.machine import resolve_device
from ultron_cli.output_files import AppendedFile
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.adapted import adapt_descriptors
from ultron_cli.retrieval.extraction.dataset import Role, extract_dataset
from ultron_cli.retrieval.index.building import build_index, build_user_index, bytes_per_photo
from ultron_cli.retrieval.index.faiss_index import FaissIndex
from ultron_cli.retrieval.index.of_users import user_index_part
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.searching import SearchOptions, origin_of, search_files
from ultron_cli.retrieval.whitening import Whitening, read_whitening, write_whitening
from ultron_cli.retrieval.whitening_learning import (
    learn_whitening,
    pairs_of_ground_truth,
    pairs_of_labels,
    whitening_method,
)
from ultron_cli.sweep.settings import CellSettings
from ultron_cli.training.config import binding_settings
from ultron_cli.training.presets import HEAD_PRESET
from ultron_cli.training.run.folder import RESULT_FILE
from ultron_cli.training.start import TrainRequest, start_training
from ultron_cli.workspace import Workspace

TIMED_S = 1.0  # a search that is over sooner is repeated to be timed
MOST_TIMED = 3
INDEX_FILE = "index.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where steps work."""

    workspace: Workspace
    device_name: str
    journal: Path  # gets a line for everything that was computed
    n_decoding: int | None = None  # processes that decode photos, as n_workers of ExtractRequest

    def note(self, step: str, result: Path, started_s: float, n_photos: int | None = None) -> None:
        """Adds to the journal that `result` was computed."""
        entry = {"step": step, "result": str(result), "seconds": round(time.monotonic() - started_s, 3)}
        text = dump_json(entry | ({} if n_photos is None else {"photos": n_photos}), indent=None)
        journal = AppendedFile(self.journal)
        try:
            journal.write(f"{text}\n".encode("utf-8", "surrogateescape"))
        finally:
            journal.close()


def extracted(settings: CellSettings, role: Role, place: Place) -> Path:
    """The descriptor file of the queries or of the database."""
    if settings.extract.descriptors is not None:
        path = Path(settings.extract.descriptors) / ("queries.h5" if role == "query" else "database.h5")
        require_regular_file(path, "descriptors")
        return path
    started_s = time.monotonic()
    request = settings.extract.request(role, place.n_decoding)
    choice = settings.model.choice(place.workspace)
    summary = extract_dataset(request, choice, place.device_name, place.workspace)
    if role not in summary["files"]:
        raise UltronError(
            f"{summary['dataset']} has no queries to evaluate with; name a dataset with a ground truth in extract.gnd"
        )
    file = summary["files"][role]
    path = Path(file["path"])
    if file["computed"]:
        place.note("extract", path, started_s, file["computed"])
    return path


def head_trained(settings: CellSettings, source: Path, place: Place) -> Path:
    """The checkpoint of a head that is trained on a descriptor file."""
    started_s = time.monotonic()
    config = settings.head.config(source)
    code = {text: part.sha256 for text, part in user_code.parts_of(config.to_plain()).items()}
    made_by = {"descriptors": _state(source), "config": binding_settings(config.to_plain()), "code": code}
    folder = place.workspace.result_path("train", f"{source.parent.name}-{HEAD_PRESET}", made_by)
    path = folder / RESULT_FILE
    with only_writer(folder, f"another sweep is writing {folder}", beside=True, wait=True):
        if path.exists():
            return path
        start_training(TrainRequest(config=config, out=folder, overwrite=True), place.device_name)
        place.note("head", path, started_s)
    return path


def adapted(settings: CellSettings, descriptors: Path, head: Path, place: Place) -> Path:
    """A descriptor file through a head."""
    started_s = time.monotonic()
    made_by = {"descriptors": _state(descriptors), "head": sha256_of_file(head)}
    folder = place.workspace.result_path("extract", descriptors.parent.name, made_by)
    path = folder / descriptors.name
    user_code.permit_in({"head": settings.head.name})
    with only_writer(folder, f"another sweep is writing {folder}", beside=True, wait=True):
        if path.exists():
            return path
        make_folder(folder)
        adapt_descriptors(descriptors, head, path, resolve_device(place.device_name))
        place.note("adapt", path, started_s)
    return path


def whitened(settings: CellSettings, source: Path, place: Place) -> Path:
    """The file of the whitening that is learned from a descriptor file."""
    started_s = time.monotonic()
    whiten = settings.whiten
    made_by = {
        "descriptors": _state(source),
        "method": whiten.method,
        "pairs": [whiten.labels and _content(whiten.labels), whiten.gnd and _content(whiten.gnd)],
        "max_pairs": whiten.max_pairs,
        "seed": whiten.seed,
    }
    method = whitening_method(whiten.method, whiten.settings)
    if method.part is not None:
        made_by |= {"settings": whiten.settings, "code_sha256": method.part.sha256}
    folder = place.workspace.result_path("whiten", source.parent.name, made_by)
    path = folder / f"{whiten.method.rpartition(':')[2]}.h5"
    with only_writer(folder, f"another sweep is writing {folder}", beside=True, wait=True):
        if path.exists():
            return path
        pairs = None
        if method.needs_pairs:
            with DescriptorFile(source) as descriptors:
                names = descriptors.names
            if whiten.gnd:
                pairs = pairs_of_ground_truth(Path(whiten.gnd), names, whiten.max_pairs, whiten.seed)
            else:
                labels = Path(whiten.labels) if whiten.labels else None
                pairs = pairs_of_labels(labels, names, whiten.max_pairs, whiten.seed)
        labels_text = str(whiten.gnd or whiten.labels or "folders") if method.needs_pairs else None
        whitening = learn_whitening(source, whiten.method, pairs=pairs, labels=labels_text, settings=whiten.settings)
        make_folder(folder)
        write_whitening(path, whitening)
        place.note("whiten", path, started_s)
    return path


def indexed(settings: CellSettings, database: Path, whitening_path: Path | None, place: Place) -> Path:
    """The folder of an index of a descriptor file."""
    started_s = time.monotonic()
    whitening = _whitening(settings, whitening_path)
    made_by = {
        "descriptors": _state(database),
        "whitening": whitening.record().to_json() if whitening else None,
        "kind": settings.index.kind,
    }
    is_of_user = user_code.is_import_path(settings.index.kind)
    if is_of_user:
        user_code.permit(settings.index.kind)
        made_by |= {"settings": settings.index.settings, "code_sha256": user_index_part(settings.index.kind).sha256}
    folder = place.workspace.result_path("index", database.parent.name, made_by)
    path = folder / f"{settings.index.kind.rpartition(':')[2].replace(',', '_')}.index"
    with only_writer(folder, f"another sweep is writing {folder}", beside=True, wait=True):
        if (path / INDEX_FILE).exists():
            return path
        make_folder(folder)
        build = partial(build_user_index, settings=settings.index.settings) if is_of_user else build_index
        build(database, path, settings.index.kind, overwrite=True, whitening=whitening)
        place.note("index", path, started_s)
    return path


def evaluated(
    settings: CellSettings,
    queries: Path,
    database: Path,
    whitening_path: Path | None,
    index_path: Path | None,
    place: Place,
) -> Path:
    """The file of an evaluation, which holds under `cost` what a search costs."""
    started_s = time.monotonic()
    extract, search = settings.extract, settings.search
    gnd_path = Path(extract.gnd) if extract.gnd else None
    if extract.descriptors is not None:
        with DescriptorFile(queries) as file:
            dataset_name, gnd = file.info.dataset, find_gnd(gnd_path, origin_of(file.info))
    else:
        dataset = open_named_dataset(extract.dataset, gnd_path, place.workspace)
        dataset_name, gnd = dataset.name, dataset.ground_truth_path
        assert gnd is not None  # of a dataset with queries
    whitening = _whitening(settings, whitening_path)
    user_code.permit_in({"index": settings.index.kind})
    options = SearchOptions(
        index=index_path,
        index_settings=settings.index.of_search(),
        steps=search.steps(),
        whitening=None if index_path else whitening,
        distractors=tuple(map(Path, search.distractors)),
        leave_out_queries=search.leave_out_queries,
    )
    made_by = {
        "queries": _state(queries),
        "database": _state(database),
        "whitening": whitening.record().to_json() if whitening else None,
        "index": index_path and _state(index_path / INDEX_FILE),
        "index_settings": settings.index.of_search(),
        "k": search.k,
        "rerank": [step.record(0.0).to_json() for step in search.steps()],
        "distractors": [_state(path) for path in options.distractors],
        "leave_out_queries": search.leave_out_queries,
        "duplicates": settings.evaluate.duplicates,
        "ties": settings.evaluate.ties,
        "gnd": [str(gnd.resolve()), sha256_of_file(gnd)],
    }
    folder = place.workspace.result_path("evaluate", f"{dataset_name}-{queries.parent.name}", made_by)
    path = folder / "evaluation.json"
    with only_writer(folder, f"another sweep is writing {folder}", beside=True, wait=True):
        if path.exists():
            return path
        is_by_row = settings.evaluate.ties == "row"
        ranking = search_files(queries, database, search.k, place.device_name, options=options, rows_only=is_by_row)
        if not is_by_row:
            ranking = with_ties(ranking, gnd, settings.evaluate.ties)
        evaluation = evaluate_ranking(
            ranking, gnd, duplicates=settings.evaluate.duplicates, leave_out_queries=search.leave_out_queries
        )
        record = ranking.origin.search
        times_ms = [record.ms_per_query or 0.0] if record else []
        spent_s = sum(times_ms) * len(ranking.query_names) / 1e3
        while spent_s < TIMED_S and len(times_ms) < MOST_TIMED:
            again = search_files(queries, database, search.k, place.device_name, options=options, rows_only=True)
            times_ms.append((again.origin.search and again.origin.search.ms_per_query) or 0.0)
            spent_s += times_ms[-1] * len(ranking.query_names) / 1e3
        cost = {"ms_per_query": min(times_ms), **_size(database, whitening, index_path)}
        make_folder(folder)
        write_text(path, dump_json({**evaluation.to_json(), "cost": cost}))
        place.note("evaluate", path, started_s)
    return path


def _size(database: Path, whitening: Whitening | None, index_path: Path | None) -> dict[str, float]:
    """Dimensions and bytes that a photo takes in what is searched."""
    with DescriptorFile(database) as descriptors:
        dim = whitening.dim if whitening else descriptors.dim
        item_bytes = 2 if descriptors.info.extraction.storage == "float16" and not whitening else 4
    index = open_index(index_path) if index_path else None
    if isinstance(index, FaissIndex):
        return {"dim": dim, "bytes_per_photo": bytes_per_photo(index.faiss_index, index.dim)}
    return {"dim": dim, "bytes_per_photo": dim * item_bytes}


def _whitening(settings: CellSettings, path: Path | None) -> Whitening | None:
    return None if path is None else read_whitening(path, settings.whiten.dim)


def _state(path: Path) -> list[object]:
    """A file that is made anew when what it was made from changes."""
    return [str(path.resolve()), *file_state(path)]


def _content(path: str) -> list[str]:
    return [path, sha256_of_file(Path(path))]
