"""Searching with what the workspace has: descriptor files or an index, stored queries or photos by path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli import workspace
from ultron_cli.datasets.photos import LoadedPhoto, PhotoShape, load_photo
from ultron_cli.devices import resolve_device
from ultron_cli.errors import UltronError
from ultron_cli.models.choice import reload_model, require_same_model
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, require_same_dim
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.extraction import ExtractConfig, describe_batch
from ultron_cli.retrieval.ranks import Ranking


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
        return [{"rank": i, "name": self.database_names[row], "score": score} for i, (row, score) in enumerate(pairs, start=1) if row >= 0]


def latest_descriptors(queries: Path | None, database: Path | None) -> tuple[Path, Path]:
    """(queries.h5, database.h5): as given, else of the latest extraction. Raises UltronError if there is none."""
    if queries and database:
        return queries, database
    folder = workspace.take_latest("extract", "name both --queries and --database")
    found = queries or folder / "queries.h5", database or folder / "database.h5"
    if not found[0].exists():
        raise UltronError(f"{folder} has no queries.h5, as its dataset has no ground truth; name photos to search for, or --queries")
    return found


def origin_of(database: DescriptorInfo, queries: DescriptorInfo | None = None) -> dict[str, Any]:
    """What a ranking must record of the descriptors it came from; crop is the queries'."""
    config = (queries or database).config
    return {
        "dataset": database.dataset, "model": database.model, "weights_sha256": database.weights_sha256, "config": config,
        "weights": database.provenance.get("weights"), "dataset_folder": (queries or database).provenance.get("dataset_folder"),
        "database_folder": database.provenance.get("dataset_folder"), "ground_truth": (queries or database).provenance.get("ground_truth"),
        "skipped": [*database.skipped, *(queries.skipped if queries else [])],
    }  # fmt: skip


def search_files(queries: Path, database: Path, k: int | None, device_name: str, index: Path | None = None) -> Found:
    """Searches every query of a file. k: None ranks the whole database. index: an index folder instead of exact search.

    Raises UltronError if the files differ in dimensions or model, or k does not fit.
    """
    with DescriptorFile(queries) as query_file, DescriptorFile(database) as database_file:
        require_same_dim(queries, query_file.dim, database, database_file.dim)
        require_same_model(query_file.info.config, database_file.info.config, f"{queries} and {database}")
        ranking, names, searched = _search(query_file.read(), database_file, k, device_name, index)
        return Found(
            ranking=ranking, query_names=query_file.names, database_names=names,
            origin=origin_of(database_file.info, query_file.info) | {"search": searched},
        )  # fmt: skip


def _search(
    descriptors: np.ndarray, database: DescriptorFile, k: int | None, device_name: str, index: Path | None
) -> tuple[Ranking, list[str], dict[str, Any]]:
    k = database.n if k is None else k
    if not 1 <= k <= database.n:
        raise UltronError(f"-k must be between 1 and the {database.n} photos of the database; found {k}")
    if index is None:
        return exact_search(descriptors, database, k, device=str(resolve_device(device_name))), database.names, {"method": "exact"}
    from ultron_cli.retrieval.index import open_index

    opened = open_index(index)
    return opened.search(descriptors, k), opened.names, {"method": "index", "index": str(index), "kind": opened.kind}


def search_photos(
    photos: list[Path], database: Path, k: int, device_name: str, *, bbx: tuple[float, float, float, float] | None = None,
    index: Path | None = None, weights: Path | None = None,
) -> Found:  # fmt: skip
    """Searches for photos by path, described by the model, scales and size that made the database.

    bbx: part of the photo to search for, pixels of the upright photo (one photo only).
    """
    with DescriptorFile(database) as database_file:
        info = database_file.info
        loaded = reload_model(info.config, info.provenance.get("weights", {}), info.weights_sha256, weights)
        config = ExtractConfig(**(info.config | {"scales": tuple(info.scales), "role": "query", "crop": "bbx" if bbx else "none"}))
        shape = PhotoShape(
            max_side_px=config.max_side_px, resize=config.resize, interpolation=loaded.model.preprocessing.interpolation,
            min_side_px=loaded.model.min_side_px,
        )  # fmt: skip
        device = resolve_device(device_name)
        loaded.model.to(device)
        described = [describe_batch(loaded.model, [_loaded(path, bbx, shape)], config, device)[0] for path in photos]
        ranking, names, searched = _search(np.stack(described).astype(np.float32), database_file, k, device_name, index)
        origin = origin_of(info) | {"search": searched}
        return Found(ranking=ranking, query_names=[str(path) for path in photos], database_names=names, origin=origin)


def _loaded(path: Path, bbx: tuple[float, float, float, float] | None, shape: PhotoShape) -> LoadedPhoto:
    import torch

    return LoadedPhoto(0, torch.from_numpy(load_photo(path, bbx, shape)))
