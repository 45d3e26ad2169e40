"""`ultron visualize cam`: what makes two photos similar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import PROTOCOLS
from ultron_cli.commands.flags import (
    DatabaseFlag,
    ProtocolFlag,
    QueriesFlag,
    QueryFlag,
    SystemsFlag,
    choice,
    current_workspace,
    number,
    require_one_each,
)
from ultron_cli.commands.visualize.searches import labels_of, scenes_of
from ultron_cli.errors import UltronError
from ultron_cli.visualization.cam.method_table import METHODS

if TYPE_CHECKING:
    from ultron_cli.visualization.cam.draw import PhotoCosine, System
    from ultron_cli.visualization.scene import Scene

EXAMPLE = """
ultron visualize cam --query all_souls_000013 -k 5
ultron visualize cam --ranks na.h5 --ranks scala.h5 --label NA --label SCALA --layer stage4 -k 3
"""


def command(
    *,
    query: QueryFlag = None,
    photo: Annotated[
        list[str] | None,
        typer.Option(
            "--photo", metavar="NAME", help="A database photo to compare with, instead of the best; may be given again."
        ),
    ] = None,
    k: Annotated[int, number("-k", help="How many of the best photos.", low=1)] = 5,
    protocol: ProtocolFlag = "medium",
    method: Annotated[
        str,
        choice(
            tuple(METHODS), by_path=True, help="Kind of map, or my.py:Map; attention is for ULTRON, simpool and cls."
        ),
    ] = "gradcam",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A stage or layer by name (the last map before pooling); once, or once per model.",
        ),
    ] = None,
    ranks: SystemsFlag = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME|DIR",
            help="A training run whose model gets a column, for the photos of the search; may be given again.",
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The weights that made the descriptors, if they have moved; given again or beside --run, "
            "checkpoints of ultron with a column each.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="TEXT", help="Name over each column, in their order (model or run)."),
    ] = None,
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the pictures.")] = None,
) -> None:
    """Shows what makes a query and its best photos similar.

    It draws Grad-CAM, or another --method, of the cosine between their descriptors.

    Several --ranks, or several models by --run and --weights, are drawn in columns beside the photos.
    """
    from ultron_cli import console
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.cam.draw import CamRequest, draw_cam, draw_cam_columns
    from ultron_cli.visualization.scene import PhotoChoice, file_name

    workspace = current_workspace()
    protocol = one_of("protocol", protocol, PROTOCOLS)
    scenes = scenes_of(ranks, queries, database)
    systems = _systems(scenes, ranks, run or [], weights or [], label, layer or [])
    scene, models = scenes[0], "-".join(system.label for system in systems) or scenes[0].model
    row = scene.query_row(query, protocol)
    name = scene.ranking.query_names[row]
    folder = out or workspace.result_folder(
        "visualize",
        f"cam-{scene.ranking.origin.dataset}-{models}-{file_name(Path(name).name)}"[:200],
        {"rankings": [scene.ranking.origin.to_json() for scene in scenes]},
    )
    photos = PhotoChoice(query_row=row, k=k, protocol=protocol, names=photo or [])
    if systems:
        summary = draw_cam_columns(systems, photos, method, folder)
        text = [_line(photo, part["model"]) for part in summary["models"] for photo in part["photos"]]
    else:
        request = CamRequest(
            photos=photos,
            device=console.settings.device,
            method=method,
            layer=layer[0] if layer else None,
            weights=weights[0] if weights else None,
        )
        summary = draw_cam(scene, request, folder)
        text = [_line(photo, "") for photo in summary["photos"]]
    workspace.remember("visualize", folder)
    print_result(summary, "\n".join([f"query {summary['query']}", *text, summary["figure"]]))


def _line(photo: "PhotoCosine", model: str) -> str:
    """A photo for people."""
    scores = f"score {photo['score']:.4f}  cosine at one scale {photo['cosine']:.4f}"
    line = f"{photo['rank']:>4}  {scores}  {photo['verdict']:<8} {photo['name']}  {model}"
    return line.rstrip()


def _systems(
    scenes: list["Scene"],
    ranks: list[Path] | None,
    run: list[str],
    weights: list[Path],
    label: list[str] | None,
    layer: list[str],
) -> list["System"]:
    """The models to draw in columns: of several searches, or of runs and checkpoints; none for the one model of one
    search."""
    from ultron_cli import console
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.visualization.cam.draw import chosen_system, searched_system

    choices = (
        [ModelChoice(run=name, workspace=current_workspace()) for name in run]
        + [ModelChoice(weights=path) for path in weights]
        if run or len(weights) > 1
        else []
    )
    if (run or weights) and len(scenes) > 1:
        raise UltronError(
            "several --ranks bring their own models; leave out --run and --weights, or give one --ranks for the photos"
        )
    n_models = len(choices) or len(scenes)
    if choices and n_models < 2:
        raise UltronError(
            "maps side by side need two models or more; give --run or --weights again, or search with the "
            "run's descriptors"
        )
    require_one_each("--label", label, "model", n_models)
    if len(layer) != 1:
        require_one_each("--layer", layer, "model", n_models)
    if n_models == 1:
        return []
    layers = (layer * n_models if len(layer) == 1 else layer) or [None] * n_models
    device = console.settings.device
    if choices:
        names = label or [None] * n_models
        return [
            chosen_system(scenes[0], choice, name, at, device)
            for choice, name, at in zip(choices, names, layers, strict=True)
        ]
    names = labels_of([scene.model for scene in scenes], label, ranks)
    return [searched_system(scene, name, at, device) for scene, name, at in zip(scenes, names, layers, strict=True)]
