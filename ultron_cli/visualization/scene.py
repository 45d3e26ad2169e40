"""Gathers what a picture needs from stored results: rankings, photos, verdicts, and the model that made the
descriptors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ultron_cli.console import log, progress
from ultron_cli.datasets.folder import Dataset, open_folder
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics import average_precision
from ultron_cli.files import make_folder
from ultron_cli.machine import resolve_device
from ultron_cli.retrieval.extraction.describe import Describer
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.visualization.cam.sheet import CamPair, cam_figure
from ultron_cli.visualization.cam.similarity import Cam, similarity_cam, write_overlay
from ultron_cli.visualization.drawing import QueryPhoto, RankedPhoto, Verdict, title_of
from ultron_cli.visualization.ranked.lists import RankedRow, ranks_figure

MAP_SIDE_PX = 24


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A search with the photos and the ground truth behind it. queries: None where the queries are photos by path."""

    ranking: Ranking
    queries: Dataset | None
    database: Dataset

    def query_row(self, name: str | None) -> int:
        """Row of a query by name; None: the first. Raises UltronError if unknown."""
        names = self.ranking.query_names
        if name is None:
            return 0
        if name not in names:
            raise UltronError(f"query {name!r} is not in the search{nearest_names(name, names)}")
        return names.index(name)

    def query_photo(self, row: int) -> QueryPhoto:
        """The query as drawn: its file and its box (none where queries were not cropped)."""
        name = self.ranking.query_names[row]
        if self.queries is None or not self.queries.query_names:
            return QueryPhoto(Path(name), Path(name).name)
        box = self.queries.query(name).bbx if self.ranking.origin.extraction.crop == "bbx" else None
        return QueryPhoto(self.queries.photo_path(name), name, box)

    def verdict(self, row: int, database_name: str, protocol: Protocol) -> Verdict:
        """Whether a database photo is a positive of a query."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.ranking.query_names[row]
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
            self.ranking.database_names[r]: rank
            for rank, r in enumerate(self.ranking.rows[row].tolist(), start=1)
            if r >= 0
        }
        return [rank_of.get(name) for name in names]

    def ranked(self, row: int, k: int, protocol: Protocol) -> list[RankedPhoto]:
        """The k best photos of a query with verdicts."""
        ranking = self.ranking
        pairs = [
            (int(r), float(s))
            for r, s in zip(ranking.rows[row][:k], ranking.with_scores()[row][:k], strict=True)
            if r >= 0
        ]
        names = [self.ranking.database_names[r] for r, _ in pairs]
        return [
            RankedPhoto(self.database.photo_path(name), rank, score, self.verdict(row, name, protocol), name)
            for rank, (name, (_, score)) in enumerate(zip(names, pairs, strict=True), start=1)
        ]

    def chosen(self, row: int, k: int, protocol: Protocol, names: list[str]) -> list[RankedPhoto]:
        """The database photos named, or the k best where none is. Raises UltronError for a name that was not ranked."""
        if not names:
            return self.ranked(row, k, protocol)
        known = {photo.name: photo for photo in self.ranked(row, len(self.ranking.database_names), protocol)}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UltronError(
                f"{unknown[0]!r} is not among the ranked database photos{nearest_names(unknown[0], known)}"
            )
        return [known[name] for name in names]

    def average_precision(self, row: int, protocol: Protocol) -> float | None:
        """AP (0..1) of a query as `ultron evaluate` counts it: positives that the ranking lacks count as not found;
        None without positives."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.ranking.query_names[row]
        if truth is None or name not in truth.query_names:
            return None
        positives, ignored = (
            {truth.database_names[i] for i in rows} for rows in truth.split(truth.query_names.index(name), protocol)
        )
        if not positives:
            return None
        names = [self.ranking.database_names[r] for r in self.ranking.rows[row].tolist() if r >= 0]
        kept = [name for name in names if name not in ignored]
        return average_precision(np.flatnonzero([name in positives for name in kept]), len(positives))

    def subtitle(self, row: int, protocol: Protocol) -> str:
        """`AP 71.3`, in percent, of a query that has positives; `in the first 100` is added where not the whole
        database was ranked."""
        ap, n_ranked = self.average_precision(row, protocol), self.ranking.rows.shape[1]
        if ap is None:
            return ""
        return f"AP {100 * ap:.1f}" + (
            f" in the first {n_ranked}" if n_ranked < len(self.ranking.database_names) else ""
        )

    @property
    def dataset_name(self) -> str:
        """Name of what was searched."""
        return self.ranking.origin.dataset or "unknown dataset"

    @property
    def model(self) -> str:
        """Label of the model."""
        return self.ranking.origin.model_label


def open_scene(ranking: Ranking) -> Scene:
    """The photo folders and the ground truth that a search was made with. Raises UltronError if they are gone."""
    origin = ranking.origin
    gnd = Path(origin.ground_truth) if origin.ground_truth else None
    folder = origin.dataset_folder
    if not folder or not Path(folder).is_dir():
        raise UltronError(f"the photos were in {folder}, which is gone; put them back, or extract again")
    queries = open_folder(Path(folder), gnd if gnd and gnd.is_file() else None)
    known_names = set(queries.query_names)
    are_stored = all(name in known_names for name in ranking.query_names)
    database = queries
    if origin.database_folder and origin.database_folder != folder:
        database = open_folder(Path(origin.database_folder))
    return Scene(ranking=ranking, queries=queries if are_stored else None, database=database)


def draw_ranks(scene: Scene, rows: list[int], k: int, protocol: Protocol, out: Path) -> Path:
    """One picture of the k best photos of several queries."""
    ranked_rows = [
        RankedRow(scene.query_photo(row), scene.ranked(row, k, protocol), scene.subtitle(row, protocol)) for row in rows
    ]
    return ranks_figure(ranked_rows, title_of(scene.model, scene.dataset_name, protocol), out)


def draw_cam(
    scene: Scene,
    row: int,
    k: int,
    protocol: Protocol,
    folder: Path,
    device_name: str,
    method: str,
    weights: Path | None,
    names: list[str],
    layer: str | None = None,
) -> dict[str, Any]:
    """Similarity maps of a query with its k best photos (or the photos named): one figure and an overlay per photo.

    Returns the paths, and per photo its cosine. Raises UltronError if the model's weights or a photo are gone.
    """
    view = open_view(scene, device_name, weights)
    query = scene.query_photo(row)
    photos = scene.chosen(row, k, protocol, names)
    query_pixels = view.load(Path(str(query.path_or_pixels)), query.bbx)
    query_descriptor = torch.from_numpy(view.describe(query_pixels))
    make_folder(folder)
    pairs, overlays = [], []
    for photo in progress(photos, what="cam"):
        pixels = view.load(Path(str(photo.path_or_pixels)), None)
        cam = similarity_cam(view.model, pixels, query_descriptor, method=method, layer=layer)
        pairs.append(CamPair(photo, cam))
        overlays.append(folder / f"{photo.rank:03d}-{file_name(photo.name)}.png")
        write_overlay(overlays[-1], pixels, cam.heat)
    first = view.load(Path(str(photos[0].path_or_pixels)), None)
    query_cam: Cam = similarity_cam(
        view.model, query_pixels, torch.from_numpy(view.describe(first)), method=method, layer=layer
    )
    overlays.append(folder / "query.png")
    write_overlay(overlays[-1], query_pixels, query_cam.heat)
    flat = [pair.photo.name for pair in pairs if pair.cam and pair.cam.flat]
    if flat:
        log.warning("no place raises the similarity of %s: its map is empty", ", ".join(flat))
    figure = cam_figure(
        query, query_cam, pairs, title_of(scene.model, scene.dataset_name, protocol), folder / "cam.png"
    )
    cosines = [
        {
            "rank": pair.photo.rank,
            "name": pair.photo.name,
            "verdict": pair.photo.verdict,
            "cosine": pair.cam.cosine if pair.cam else None,
        }
        for pair in pairs
    ]
    return {"query": query.name, "figure": str(figure), "overlays": [str(path) for path in overlays], "photos": cosines}


class SimilarityMaps:
    """Small similarity maps of many pairs of one search, for the report."""

    def __init__(self, scene: Scene, device_name: str, method: str) -> None:
        self.scene, self.method, self.view = scene, method, open_view(scene, device_name, None)

    def of(self, row: int, photos: list[RankedPhoto]) -> list[np.ndarray]:
        """Per photo the (h, w) float32 heat, 0..1, of its likeness to the query of that row; at most MAP_SIDE_PX a
        side."""
        query = self.scene.query_photo(row)
        descriptor = torch.from_numpy(self.view.describe_photo(Path(str(query.path_or_pixels)), query.bbx))
        maps = []
        for photo in photos:
            heat = similarity_cam(
                self.view.model, self.view.load(Path(str(photo.path_or_pixels)), None), descriptor, method=self.method
            ).heat
            maps.append(small_map(heat))
        return maps


def small_map(heat: np.ndarray) -> np.ndarray:
    """(h, w) float32, the longer side MAP_SIDE_PX, of (H, W) float32 heat 0..1: a map is as coarse as the network's
    last features."""
    factor = MAP_SIDE_PX / max(heat.shape)
    size = [max(1, round(side * factor)) for side in heat.shape]
    return (
        torch.nn.functional.interpolate(torch.from_numpy(heat)[None, None], size=size, mode="area")[0, 0]
        .clamp(0, 1)
        .numpy()
    )


def file_name(name: str) -> str:
    """A photo's name as part of a file name: separators and odd characters become underscores, length bounded."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]


def open_view(scene: Scene, device_name: str, weights: Path | None) -> Describer:
    """The model that made a search's descriptors, at scale 1. Raises UltronError if its weights are gone."""
    origin = scene.ranking.origin
    return Describer.reopened(
        origin.extraction,
        origin.weights,
        origin.weights_sha256 or "",
        resolve_device(device_name),
        weights_path=weights,
        scales=(1.0,),
    )
