"""Similarity maps of stored searches as pictures: of one model, or of several in columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch

from ultron_cli.console import log, progress
from ultron_cli.files import make_folder
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.describe import Describer
from ultron_cli.visualization.cam.columns import CamColumn, columns_figure
from ultron_cli.visualization.cam.sheet import CamPair, cam_figure
from ultron_cli.visualization.cam.similarity import Cam, similarity_cam
from ultron_cli.visualization.describers import describer_with, open_describer
from ultron_cli.visualization.drawing import write_overlay
from ultron_cli.visualization.scene import PhotoChoice, Scene, file_name, require_same_queries
from ultron_cli.visualization.tiles import RankedPhoto, warn_of_changed_photos


@dataclass(frozen=True, kw_only=True)
class CamRequest:
    """Which maps of one search are drawn, and how."""

    photos: PhotoChoice
    device: str
    method: str = "gradcam"
    layer: str | None = None  # whose map it is; None: the last before pooling
    weights: Path | None = None  # where the model's weights are, if they have moved


class PhotoCosine(TypedDict):
    """A database photo of a figure."""

    rank: int
    name: str
    verdict: str
    score: float  # of the search
    cosine: float  # of descriptors at one scale, before whitening


class CamSummary(TypedDict):
    """What was drawn of one model: paths, and per photo its cosine with the query."""

    query: str
    figure: str
    overlays: list[str]
    photos: list[PhotoCosine]


class ModelMaps(TypedDict):
    """One model of several: the folder of its overlays, and per photo its cosine with the query."""

    model: str
    layer: str | None
    overlays: str
    photos: list[PhotoCosine]


class ColumnsSummary(TypedDict):
    """What was drawn of several models."""

    query: str
    figure: str
    models: list[ModelMaps]


@dataclass(frozen=True, kw_only=True)
class System:
    """One column: a model, and the search whose photo sizes count."""

    label: str
    scene: Scene
    open: Callable[[], Describer]
    made_the_search: bool  # then the ranks in it are written at the photos
    layer: str | None = None


@dataclass(frozen=True)
class _Maps:
    """One model's maps of a query and photos."""

    query_cam: Cam  # for the first photo
    cams: list[Cam]  # of the photos, for the query
    overlays: list[Path]  # of the photos, then of the query


def _cosines(photos: Sequence[RankedPhoto], cams: Sequence[Cam]) -> list[PhotoCosine]:
    return [
        {"rank": photo.rank, "name": photo.name, "verdict": photo.verdict, "score": photo.score, "cosine": cam.cosine}
        for photo, cam in zip(photos, cams, strict=True)
    ]


def searched_system(scene: Scene, label: str, layer: str | None, device_name: str) -> System:
    """The model behind a search's descriptors."""
    return System(
        label=label,
        scene=scene,
        open=lambda: open_describer(scene, device_name, None),
        made_the_search=True,
        layer=layer,
    )


def chosen_system(scene: Scene, choice: ModelChoice, label: str | None, layer: str | None, device_name: str) -> System:
    """The model of a training run or a checkpoint, looking at photos as large as a search had them."""
    name = label or str(choice.run or (choice.weights.stem if choice.weights else ""))
    return System(
        label=name,
        scene=scene,
        open=lambda: describer_with(scene, choice.load().model, device_name),
        made_the_search=False,
        layer=layer,
    )


def _maps(system: System, query_row: int, photos: Sequence[RankedPhoto], method: str, folder: Path) -> _Maps:
    """Computes one model's maps and writes their overlays into the folder."""
    describer = system.open()
    query = system.scene.query_photo(query_row)
    query_pixels = describer.load(query.path, query.bbx)
    query_descriptor = torch.from_numpy(describer.describe(query_pixels))
    cams = []
    overlays = []
    for photo in progress(photos, what=system.label):
        pixels = describer.load(photo.path, None)
        cams.append(similarity_cam(describer.model, pixels, query_descriptor, method=method, layer=system.layer))
        overlays.append(folder / f"{photo.rank:03d}-{file_name(photo.name)}.png")
        write_overlay(overlays[-1], pixels, cams[-1].heat)
    first_descriptor = torch.from_numpy(describer.describe_photo(photos[0].path))
    query_cam = similarity_cam(describer.model, query_pixels, first_descriptor, method=method, layer=system.layer)
    overlays.append(folder / "query.png")
    write_overlay(overlays[-1], query_pixels, query_cam.heat)
    return _Maps(query_cam, cams, overlays)


def _flat_names(photos: Sequence[RankedPhoto], cams: Sequence[Cam]) -> str:
    """Names of the photos whose map is empty, with commas between."""
    return ", ".join(photo.name for photo, cam in zip(photos, cams, strict=True) if cam.flat)


def draw_cam(scene: Scene, request: CamRequest, folder: Path) -> CamSummary:
    """Similarity maps of a query with its k best photos (or the photos named): one figure and an overlay per photo.

    Raises UltronError if the model's weights or a photo are gone.
    """
    choice = request.photos
    query = scene.query_photo(choice.query_row)
    photos = scene.photos_of(choice)
    warn_of_changed_photos((query, *photos))
    describer = open_describer(scene, request.device, request.weights)
    system = System(label="cam", scene=scene, open=lambda: describer, made_the_search=True, layer=request.layer)
    maps = _maps(system, choice.query_row, photos, request.method, make_folder(folder))
    flat_names = _flat_names(photos, maps.cams)
    if flat_names:
        log.warning("no place raises the similarity of %s: its map is empty", flat_names)
    pairs = [CamPair(photo, cam) for photo, cam in zip(photos, maps.cams, strict=True)]
    title = scene.title(choice.query_row, choice.protocol)
    figure = cam_figure(query, maps.query_cam, pairs, title, folder / "cam.png")
    return {
        "query": query.name,
        "figure": str(figure),
        "overlays": [str(path) for path in maps.overlays],
        "photos": _cosines(photos, maps.cams),
    }


def _column(system: System, query_row: int, photos: Sequence[RankedPhoto], method: str, folder: Path) -> CamColumn:
    """One model's column; its overlays go into the folder."""
    maps = _maps(system, query_row, photos, method, folder)
    flat_names = _flat_names(photos, maps.cams)
    if flat_names:
        log.warning("%s: no place raises the similarity of %s: its map is empty", system.label, flat_names)
    ranks: Sequence[int | None] = ()
    if system.made_the_search:
        ranks = system.scene.ranks_of(query_row, [photo.name for photo in photos])
    return CamColumn(system.label, maps.query_cam, maps.cams, system.scene.query_photo(query_row).bbx, ranks)


def draw_cam_columns(systems: Sequence[System], choice: PhotoChoice, method: str, folder: Path) -> ColumnsSummary:
    """Maps of several models for a query and the first search's best photos (or those named): one figure, an overlay
    per photo and model.

    Raises UltronError if searches do not fit or weights are gone.
    """
    first = systems[0].scene
    query = first.query_photo(choice.query_row)
    query_name = first.ranking.query_names[choice.query_row]
    require_same_queries([system.scene for system in systems], query_name)
    photos = first.photos_of(choice)
    warn_of_changed_photos((query, *photos))
    columns = []
    models: list[ModelMaps] = []
    for i, system in enumerate(systems, start=1):
        overlays = make_folder(folder / f"{i}-{file_name(system.label)}")
        column = _column(system, system.scene.query_row(query_name), photos, method, overlays)
        columns.append(column)
        models.append(
            {
                "model": system.label,
                "layer": system.layer,
                "overlays": str(overlays),
                "photos": _cosines(photos, column.cams),
            }
        )
    labels = " and ".join(dict.fromkeys(system.label for system in systems))
    title = first.title(choice.query_row, choice.protocol, labels)
    figure = columns_figure(query, photos, columns, title, folder / "cam.png", searched=first.model)
    return {"query": query_name, "figure": str(figure), "models": models}
