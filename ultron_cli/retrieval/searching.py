"""Searching with what the workspace has: descriptor files or an index, stored queries or photos by path."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli import workspace
from ultron_cli.console import chunks
from ultron_cli.datasets.photos import LoadedPhoto, PhotoShape, load_photo
from ultron_cli.errors import UltronError
from ultron_cli.machine import resolve_device
from ultron_cli.models.weights.model_choice import reload_model, require_same_model
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, require_same_dim
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.rerank import Step, n_needed, rerank
from ultron_cli.retrieval.rerank.stage import Stage
from ultron_cli.retrieval.whitening import Whitening, open_descriptors, require_same_whitening, stored_whitening

RANKING_BYTES = 1 << 28  # of rows and scores of the queries that an evaluation searches together


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What may be added to a search: re-ranking steps, a whitening of raw descriptors, distractor files after the
    database.

    index_settings: what replaces an index's own SearchSettings (nprobe, ef_search, rescore).
    """

    steps: Sequence[Step] = ()
    whitening: Whitening | None = None
    distractors: Sequence[Path] = ()
    index_settings: Mapping[str, int] = field(default_factory=dict)


PLAIN = SearchOptions()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A search's outcome. origin: how descriptors and ranking were made, for files and pictures."""

    ranking: Ranking
    query_names: list[str]
    database_names: list[str]
    origin: dict[str, Any]

    def ranked_photos(self, query: int) -> list[dict[str, Any]]:
        """The ranking of one query by name: [{"rank" from 1, "name", "score"}], best first."""
        pairs = zip(self.ranking.rows[query].tolist(), self.ranking.scores[query].tolist(), strict=True)
        return [
            {"rank": i, "name": self.database_names[row], "score": score}
            for i, (row, score) in enumerate(pairs, start=1)
            if row >= 0
        ]


def latest_descriptors(queries: Path | None, database: Path | None) -> tuple[Path, Path]:
    """(queries.h5, database.h5): as given, else of the latest extraction. Raises UltronError if there is none."""
    if queries and database:
        return queries, database
    folder = workspace.take_latest("extract", "name both --queries and --database")
    found = queries or folder / "queries.h5", database or folder / "database.h5"
    if not found[0].exists():
        raise UltronError(
            f"{folder} has no queries.h5, as its dataset has no ground truth; name photos to search for, or --queries"
        )
    return found


def origin_of(database: DescriptorInfo, queries: DescriptorInfo | None = None) -> dict[str, Any]:
    """What a ranking must record of the descriptors it came from; crop is the queries'."""
    config = (queries or database).config
    return {
        "dataset": database.dataset,
        "model": database.model,
        "weights_sha256": database.weights_sha256,
        "config": config,
        "weights": database.provenance.get("weights"),
        "dataset_folder": (queries or database).provenance.get("dataset_folder"),
        "database_folder": database.provenance.get("dataset_folder"),
        "ground_truth": (queries or database).provenance.get("ground_truth"),
        "skipped": [*database.skipped, *(queries.skipped if queries else [])],
    }


def open_database(path: Path, options: SearchOptions, whitening: Whitening | None) -> DescriptorFile:
    """The database file, with distractors after it where there are some."""
    return (
        JoinedFiles(path, options.distractors, whitening) if options.distractors else open_descriptors(path, whitening)
    )


def search_files(
    queries: Path,
    database: Path,
    k: int | None,
    device_name: str,
    index: Path | None = None,
    *,
    options: SearchOptions = PLAIN,
    rows_only: bool = False,
) -> Found:
    """Searches every query of a file. k: None ranks the whole database. index: an index folder instead of exact search.

    rows_only: for evaluation; the ranking then holds int32 rows and no scores, and queries are searched in blocks, so
    that a million distractors need 4 bytes per query and photo and a bounded working memory. Raises UltronError if the
    files differ in dimensions, model or whitening, or k does not fit.
    """
    search = Searcher(index, k, device_name, options)
    with (
        open_descriptors(queries, search.whitening) as query_file,
        open_database(database, options, search.whitening) as database_file,
    ):
        require_same_dim(queries, query_file.dim, database, database_file.dim)
        require_same_model(query_file.info.config, database_file.info.config, f"{queries} and {database}")
        require_same_whitening(query_file.info.config, database_file.info.config, f"{queries} and {database}")
        ranking, names, searched = (search.rows if rows_only else search.run)(query_file.read(), database_file)
        origin = origin_of(database_file.info, query_file.info) | {"search": searched}
        if isinstance(database_file, JoinedFiles):
            origin["distractors"] = database_file.recorded()
        return Found(ranking=ranking, query_names=query_file.names, database_names=names, origin=origin)


class Searcher:
    """One way to search, for blocks of queries: exactly or by an index, then re-ranked."""

    def __init__(self, index: Path | None, k: int | None, device_name: str, options: SearchOptions) -> None:
        self.k, self.options, self.device = k, options, str(resolve_device(device_name))
        self.opened = None
        self.whitening = options.whitening
        if index is not None:
            from ultron_cli.retrieval.index.faiss_index import open_index

            opened = open_index(index)
            self.opened = replace(opened, settings=replace(opened.settings, **options.index_settings))
            self.whitening = self.opened.agreed_whitening(options.whitening)

    def run(self, descriptors: np.ndarray, database: DescriptorFile) -> tuple[Ranking, list[str], dict[str, Any]]:
        """(ranking, database names, how). descriptors: (Q, D) float32, whitened as the database is."""
        options, opened = self.options, self.opened
        k = database.n if self.k is None else self.k
        if not 1 <= k <= database.n:
            raise UltronError(f"-k must be between 1 and the {database.n} photos of the database; found {k}")
        k_first, names, index_search = min(database.n, max(k, n_needed(options.steps))), database.names, None
        if opened is None:
            ranking, searched = exact_search(descriptors, database, k_first, device=self.device), {"method": "exact"}
        else:
            if options.steps and (opened.dim != database.dim or opened.names != names):
                raise UltronError(
                    f"re-ranking reads descriptors from {database.path}, which index {opened.path} was not "
                    "made from; name its --database"
                )
            if opened.config:
                require_same_model(database.info.config, opened.config, f"{database.path} and index {opened.path}")
            index_search, names = opened.search, opened.names
            ranking = opened.search(descriptors, min(opened.n, k_first))
            searched = {"method": "index", "index": str(opened.path), "kind": opened.kind, **asdict(opened.settings)}
        if options.steps:
            stage = Stage(
                ranking=ranking,
                queries=descriptors,
                database=database,
                index_search=index_search,
                device=self.device,
                in_place=True,
            )
            stage, searched["rerank"] = rerank(stage, options.steps)
            ranking = stage.ranking
        return (
            Ranking(np.ascontiguousarray(ranking.rows[:, :k]), np.ascontiguousarray(ranking.scores[:, :k])),
            names,
            searched,
        )

    def rows(self, descriptors: np.ndarray, database: DescriptorFile) -> tuple[Ranking, list[str], dict[str, Any]]:
        """As `run`, without scores and with (Q, K) int32 rows, a block of queries at a time."""
        k = min(database.n, self.k or database.n)
        rows = np.empty((len(descriptors), k), np.int32 if database.n < 2**31 else np.int64)
        names, searched, spent_ms = database.names, {}, {}
        for start, stop in chunks(len(descriptors), max(1, RANKING_BYTES // (12 * k))):
            ranking, names, searched = self.run(descriptors[start:stop], database)
            rows[start:stop] = ranking.rows
            for i, step in enumerate(searched.get("rerank", [])):
                spent_ms[i] = spent_ms.get(i, 0.0) + step["ms_per_query"] * (stop - start)
                step["ms_per_query"] = spent_ms[i] / stop
        return Ranking(rows, np.empty((len(rows), 0), np.float32)), names, searched


def search_photos(
    photos: list[Path],
    database: Path,
    k: int,
    device_name: str,
    *,
    bbx: tuple[float, float, float, float] | None = None,
    index: Path | None = None,
    weights: Path | None = None,
    options: SearchOptions = PLAIN,
) -> Found:
    """Searches for photos by path, described by the model, scales, size and whitening that made the database.

    bbx: part of the photo to search for, pixels of the upright photo (one photo only).
    """
    search = Searcher(index, k, device_name, options)
    with DescriptorFile(database) as raw:
        stored = stored_whitening(raw.info.config, raw.info.provenance, search.whitening)
    with open_database(database, options, None if stored else search.whitening) as database_file:
        info, whitening = database_file.info, stored or search.whitening
        loaded = reload_model(info.config, info.provenance.get("weights", {}), info.weights_sha256, weights)
        config = extract_config(info.config, scales=tuple(info.scales), role="query", crop="bbx" if bbx else "none")
        shape = PhotoShape(
            max_side_px=config.max_side_px,
            resize=config.resize,
            interpolation=loaded.model.preprocessing.interpolation,
            min_side_px=loaded.model.min_side_px,
        )
        device = resolve_device(device_name)
        loaded.model.to(device)
        described = np.stack(
            [describe_batch(loaded.model, [_loaded(path, bbx, shape)], config, device)[0] for path in photos]
        ).astype(np.float32)
        ranking, names, searched = search.run(whitening.apply(described) if whitening else described, database_file)
        origin = origin_of(info) | {"search": searched}
        return Found(ranking=ranking, query_names=[str(path) for path in photos], database_names=names, origin=origin)


def extract_config(stored: dict[str, Any], **changes: Any) -> ExtractConfig:
    """The configuration of the network part of stored descriptors; a whitening came after it."""
    return ExtractConfig(**{key: value for key, value in (stored | changes).items() if key != "whitening"})


def _loaded(path: Path, bbx: tuple[float, float, float, float] | None, shape: PhotoShape) -> LoadedPhoto:
    import torch

    return LoadedPhoto(0, torch.from_numpy(load_photo(path, bbx, shape)))
