"""Gathers what pictures of several systems side by side need: the maps of several models, the rankings of several
searches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultron_cli.console import log, progress
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import make_folder
from ultron_cli.machine import resolve_device
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.describe import Describer, ExtractConfig
from ultron_cli.visualization.cam.columns import CamColumn, columns_figure
from ultron_cli.visualization.cam.similarity import similarity_cam, write_overlay
from ultron_cli.visualization.drawing import RankedPhoto, title_of
from ultron_cli.visualization.ranked.systems import QueryBlock, SystemRow, systems_figure
from ultron_cli.visualization.scene import Scene, file_name, open_view


@dataclass(frozen=True, kw_only=True)
class System:
    """One column: a name, a search whose photo sizes (and, if it is this model's own, ranks) count, and how to load the
    model."""

    label: str
    scene: Scene
    open: Callable[[], Describer]
    own_search: bool
    layer: str | None = None


def searched_system(scene: Scene, label: str, layer: str | None, device_name: str) -> System:
    """The model behind a search's descriptors."""
    return System(
        label=label, scene=scene, open=lambda: open_view(scene, device_name, None), own_search=True, layer=layer
    )


def chosen_system(scene: Scene, choice: ModelChoice, label: str | None, layer: str | None, device_name: str) -> System:
    """The model of a training run or a checkpoint, looking at photos as large as a search had them."""
    name = label or str(choice.run or (choice.weights.stem if choice.weights else ""))

    def open_model() -> Describer:
        device = resolve_device(device_name)
        config = ExtractConfig.of(scene.ranking.origin.extraction, scales=(1.0,))  # the sizes in it count
        return Describer(choice.load().model.to(device), config, device)

    return System(label=name, scene=scene, open=open_model, own_search=False, layer=layer)


def require_same_queries(scenes: Sequence[Scene], query: str) -> None:
    """Raises UltronError unless the searches are of one dataset and all have the query."""
    datasets = list(dict.fromkeys(scene.dataset_name for scene in scenes))
    if len(datasets) > 1:
        raise UltronError(
            f"searches side by side must be of one dataset, found {' and '.join(datasets)}; search the same "
            "photos with each"
        )
    for scene in scenes:
        names = scene.ranking.query_names
        if query not in names:
            raise UltronError(
                f"searches side by side must have the same query, {query!r} is not in that of "
                f"{scene.model}{nearest_names(query, names)}"
            )


def _maps(system: System, query: str, photos: Sequence[RankedPhoto], method: str, folder: Path) -> CamColumn:
    """One model's column; its overlays go into the folder."""
    scene, view = system.scene, system.open()
    row = scene.query_row(query)
    drawn = scene.query_photo(row)
    query_pixels = view.load(Path(str(drawn.path_or_pixels)), drawn.bbx)
    descriptor = torch.from_numpy(view.describe(query_pixels))
    cams, towards = [], None
    for photo in progress(photos, what=system.label):
        pixels = view.load(Path(str(photo.path_or_pixels)), None)
        towards = torch.from_numpy(view.describe(pixels)) if towards is None else towards
        cams.append(similarity_cam(view.model, pixels, descriptor, method=method, layer=system.layer))
        write_overlay(folder / f"{photo.rank:03d}-{file_name(photo.name)}.png", pixels, cams[-1].heat)
    assert towards is not None  # at least one photo
    query_cam = similarity_cam(view.model, query_pixels, towards, method=method, layer=system.layer)
    write_overlay(folder / "query.png", query_pixels, query_cam.heat)
    flat = [photo.name for photo, cam in zip(photos, cams, strict=True) if cam.flat]
    if flat:
        log.warning("%s: no place raises the similarity of %s: its map is empty", system.label, ", ".join(flat))
    ranks = scene.ranks_of(row, [photo.name for photo in photos]) if system.own_search else []
    return CamColumn(system.label, query_cam, cams, drawn.bbx, ranks)


def draw_cam_columns(
    systems: Sequence[System], query: str, k: int, protocol: Protocol, method: str, folder: Path, names: list[str]
) -> dict[str, Any]:
    """Maps of several models for a query and the first search's best photos (or those named): one figure, an overlay
    per photo and model.

    Returns the paths, and per model and photo its cosine. Raises UltronError if searches do not fit or weights are
    gone.
    """
    first = systems[0].scene
    require_same_queries([system.scene for system in systems], query)
    row = first.query_row(query)
    photos = first.chosen(row, k, protocol, names)
    folders = [make_folder(folder / f"{i}-{file_name(system.label)}") for i, system in enumerate(systems, start=1)]
    columns = [_maps(system, query, photos, method, place) for system, place in zip(systems, folders, strict=True)]
    title = title_of(" and ".join(dict.fromkeys(system.label for system in systems)), first.dataset_name, protocol)
    figure = columns_figure(first.query_photo(row), photos, columns, title, folder / "cam.png", searched=first.model)
    models = [
        {
            "model": system.label,
            "layer": system.layer,
            "overlays": str(place),
            "photos": [
                {"rank": photo.rank, "name": photo.name, "verdict": photo.verdict, "cosine": cam.cosine}
                for photo, cam in zip(photos, column.cams, strict=True)
            ],
        }
        for system, column, place in zip(systems, columns, folders, strict=True)
    ]
    return {"query": query, "figure": str(figure), "models": models}


def draw_systems(
    scenes: Sequence[Scene],
    labels: Sequence[str],
    queries: Sequence[str],
    k: int,
    protocol: Protocol,
    moves: bool,
    out: Path,
) -> None:
    """One picture of the k best photos of several searches, per query a row for each; moves: with arrows from row to
    row.

    Raises UltronError if the searches are not of one dataset or lack a query.
    """
    blocks = []
    for query in queries:
        require_same_queries(scenes, query)
        rows = [scene.query_row(query) for scene in scenes]
        lists = [scene.ranked(row, k, protocol) for scene, row in zip(scenes, rows, strict=True)]
        names = [[photo.name for photo in photos] for photos in lists]
        systems = [
            SystemRow(
                label,
                photos,
                scene.subtitle(row, protocol),
                scenes[i - 1].ranks_of(rows[i - 1], names[i]) if moves and i else (),
                scenes[i + 1].ranks_of(rows[i + 1], names[i]) if moves and i + 1 < len(scenes) else (),
            )
            for i, (label, scene, row, photos) in enumerate(zip(labels, scenes, rows, lists, strict=True))
        ]
        blocks.append(QueryBlock(scenes[0].query_photo(rows[0]), systems))
    models = list(dict.fromkeys(scene.model for scene in scenes))
    systems_figure(blocks, title_of(" and ".join(models), scenes[0].dataset_name, protocol), out)
