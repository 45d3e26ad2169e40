"""Gathers what a picture needs from stored results: rankings, photos, verdicts, and the model that made the
descriptors. What is drawn of it stands beside the figures: cam/draw.py, ranked/draw.py, inside/draw.py, report/."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ultron_cli.datasets.folder import Dataset, open_dataset
from ultron_cli.datasets.photos import Box, LoadedPhoto, PhotoShape, load_photo
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics import average_precision
from ultron_cli.machine import resolve_device
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.choice import reload_model
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch
from ultron_cli.retrieval.searching import Found, extract_config
from ultron_cli.visualization.drawing import Verdict
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto
from ultron_cli.workspace import data_root


@dataclass(frozen=True, kw_only=True)
class PhotoChoice:
    """A query of a search and the database photos that are drawn with it."""

    query_row: int
    k: int  # how many of the best photos, where none is named
    protocol: Protocol
    names: Sequence[str] = ()  # of database photos


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A search with the photos and the ground truth behind it."""

    found: Found
    queries: Dataset | None  # None where the queries are photos by path
    database: Dataset

    def query_row(self, name: str | None) -> int:
        """Row of a query by name; None: the first. Raises UltronError if unknown."""
        names = self.found.query_names
        if name is None:
            return 0
        if name not in names:
            raise UltronError(f"query {name!r} is not in the search{nearest_names(name, names)}")
        return names.index(name)

    def query_photo(self, row: int) -> QueryPhoto:
        """The query as drawn: its file and its box (none where queries were not cropped)."""
        name = self.found.query_names[row]
        if self.queries is None or not self.queries.query_names:
            return QueryPhoto(Path(name), Path(name).name)
        box = self.queries.query(name).bbx if self.found.origin["config"]["crop"] == "bbx" else None
        return QueryPhoto(self.queries.photo_path(name), name, box)

    def verdict(self, row: int, database_name: str, protocol: Protocol) -> Verdict:
        """Whether a database photo is a positive of a query."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.found.query_names[row]
        if truth is None or name not in truth.query_names:
            return "unknown"
        known = self._row_of_truth.get(database_name)
        positives, ignored = truth.split(truth.query_names.index(name), protocol)
        if known is not None and known in positives:
            return "right"
        return "ignored" if known is not None and known in ignored else "wrong"

    @cached_property
    def _row_of_truth(self) -> dict[str, int]:
        assert self.queries is not None and self.queries.ground_truth is not None
        return {name: i for i, name in enumerate(self.queries.ground_truth.database_names)}

    def ranks_of(self, row: int, names: Sequence[str]) -> list[int | None]:
        """The rank, from 1, of each photo named in a query's ranking; None where the ranking does not hold it."""
        rank_of = {
            self.found.database_names[r]: rank
            for rank, r in enumerate(self.found.ranking.rows[row].tolist(), start=1)
            if r >= 0
        }
        return [rank_of.get(name) for name in names]

    def ranked(self, row: int, k: int, protocol: Protocol) -> list[RankedPhoto]:
        """The k best photos of a query with verdicts."""
        ranking = self.found.ranking
        pairs = [
            (int(r), float(s)) for r, s in zip(ranking.rows[row][:k], ranking.scores[row][:k], strict=True) if r >= 0
        ]
        names = [self.found.database_names[r] for r, _ in pairs]
        return [
            RankedPhoto(self.database.photo_path(name), rank, score, self.verdict(row, name, protocol), name)
            for rank, (name, (_, score)) in enumerate(zip(names, pairs, strict=True), start=1)
        ]

    def photos_of(self, choice: PhotoChoice) -> list[RankedPhoto]:
        """The database photos named, or the k best where none is. Raises UltronError for a name that was not ranked."""
        if not choice.names:
            return self.ranked(choice.query_row, choice.k, choice.protocol)
        all_photos = self.ranked(choice.query_row, len(self.found.database_names), choice.protocol)
        photo_of = {photo.name: photo for photo in all_photos}
        for name in choice.names:
            if name not in photo_of:
                raise UltronError(f"{name!r} is not among the ranked database photos{nearest_names(name, photo_of)}")
        return [photo_of[name] for name in choice.names]

    def average_precision(self, row: int, protocol: Protocol) -> float | None:
        """AP (0..1) of a query as `ultron evaluate` counts it: positives that the ranking lacks count as not found;
        None without positives."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.found.query_names[row]
        if truth is None or name not in truth.query_names:
            return None
        positives, ignored = (
            {truth.database_names[i] for i in rows} for rows in truth.split(truth.query_names.index(name), protocol)
        )
        if not positives:
            return None
        names = [self.found.database_names[r] for r in self.found.ranking.rows[row].tolist() if r >= 0]
        counted_names = [name for name in names if name not in ignored]
        return average_precision(np.flatnonzero([name in positives for name in counted_names]), len(positives))

    def subtitle(self, row: int, protocol: Protocol) -> str:
        """`AP 71.3`, in percent, of a query that has positives; `in the first 100` is added where not the whole
        database was ranked."""
        ap, n_ranked = self.average_precision(row, protocol), self.found.ranking.rows.shape[1]
        if ap is None:
            return ""
        return f"AP {100 * ap:.1f}" + (f" in the first {n_ranked}" if n_ranked < len(self.found.database_names) else "")

    @property
    def dataset_name(self) -> str:
        """Name of what was searched."""
        return str(self.found.origin["dataset"])

    @property
    def model(self) -> str:
        """Label of the model."""
        return str(self.found.origin.get("model", "unknown model"))


def open_scene(found: Found) -> Scene:
    """The photo folders and the ground truth that a search was made with. Raises UltronError if they are gone."""
    origin = found.origin
    gnd = Path(origin["ground_truth"]) if origin.get("ground_truth") else None
    if not origin.get("dataset_folder") or not Path(origin["dataset_folder"]).is_dir():
        raise UltronError(
            f"the photos were in {origin.get('dataset_folder')}, which is gone; put them back, or extract again"
        )
    queries = open_dataset(origin["dataset_folder"], data_root(), gnd if gnd and gnd.is_file() else None)
    stored = all(name in set(queries.query_names) for name in found.query_names)
    return Scene(
        found=found,
        queries=queries if stored else None,
        database=open_dataset(origin["database_folder"], data_root())
        if origin.get("database_folder") != origin["dataset_folder"]
        else queries,
    )


def require_same_queries(scenes: Sequence[Scene], query: str) -> None:
    """Raises UltronError unless the searches are of one dataset and all have the query."""
    datasets = list(dict.fromkeys(scene.dataset_name for scene in scenes))
    if len(datasets) > 1:
        raise UltronError(
            f"searches side by side must be of one dataset, found {' and '.join(datasets)}; search the same "
            "photos with each"
        )
    for scene in scenes:
        names = scene.found.query_names
        if query not in names:
            raise UltronError(
                f"searches side by side must have the same query, {query!r} is not in that of "
                f"{scene.model}{nearest_names(query, names)}"
            )


def file_name(name: str) -> str:
    """A photo's name as part of a file name: separators and odd characters become underscores, length bounded."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]


def open_view(scene: Scene, device_name: str, weights: Path | None) -> "ModelView":
    """The model that made a search's descriptors. Raises UltronError if its weights are gone."""
    origin = scene.found.origin
    loaded = reload_model(origin["config"], origin.get("weights") or {}, origin["weights_sha256"], weights)
    device = resolve_device(device_name)
    return ModelView(loaded.model.to(device), extract_config(origin["config"], scales=(1.0,)), device)


def view_with(scene: Scene, model: RetrievalModel, device_name: str) -> "ModelView":
    """Another model that looks at photos as large as a search had them."""
    device = resolve_device(device_name)
    return ModelView(model.to(device), extract_config(scene.found.origin["config"], scales=(1.0,)), device)


@dataclass(frozen=True)
class ModelView:
    """Photos and their descriptors at one scale, as a model sees them."""

    model: RetrievalModel
    config: ExtractConfig  # of a search; the sizes in it count, not its model
    device: torch.device

    def load(self, path: Path, box: Box | None) -> np.ndarray:
        """(H, W, 3) uint8, sized as at extraction."""
        preprocessing = self.model.preprocessing
        shape = PhotoShape(
            max_side_px=self.config.max_side_px,
            resize=self.config.resize,
            interpolation=preprocessing.interpolation,
            min_side_px=self.model.min_side_px,
        )
        return load_photo(path, box, shape)

    def describe(self, pixels: np.ndarray) -> torch.Tensor:
        """(D,) descriptor of a photo at scale 1."""
        return torch.from_numpy(
            describe_batch(self.model, [LoadedPhoto(0, torch.from_numpy(pixels))], self.config, self.device)[0]
        ).float()
