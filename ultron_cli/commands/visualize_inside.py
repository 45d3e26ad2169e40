"""`ultron visualize match`, `dilation` and `attention`: what local features match, what ULTRON's operators choose."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ultron_cli.commands.extract import BackboneFlag, ModelFlag, RunFlag, WeightsFlag
from ultron_cli.commands.visualize import ProtocolFlag, RanksFlag

UntrainedFlag = Annotated[
    bool, typer.Option("--untrained", help="Fresh random weights from --seed.", rich_help_panel="Model")
]
SeedFlag = Annotated[int, typer.Option(help="Seed of --untrained.", rich_help_panel="Model")]
SetFlag = Annotated[
    list[str] | None, typer.Option("--set", metavar="model.KEY=VALUE", help="A model setting.", rich_help_panel="Model")
]
DatasetFlag = Annotated[str | None, typer.Option(metavar="NAME|DIR", help="Photos (those of the latest training run).")]
PhotoFlag = Annotated[
    list[str] | None,
    typer.Option("--photo", metavar="NAME", help="A photo of the dataset by name; may be given again."),
]
MaxSideFlag = Annotated[int, typer.Option(min=32, help="Longest side of a photo in pixels.")]
FigureFlag = Annotated[Path | None, typer.Option(help="File for the picture (.png, .pdf or .svg).")]


def match(
    *,
    query: Annotated[str | None, typer.Option(metavar="NAME", help="A query of the search (the first).")] = None,
    photo: Annotated[
        list[str] | None,
        typer.Option(
            "--photo", metavar="NAME", help="A database photo to look in, instead of the best; may be given again."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="A point of the query, in pixels of the whole photo.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="A box of the query, in pixels of the whole photo.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10, help="How many of the best photos.")] = 3,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="A stage or layer by name (the last map before pooling).")
    ] = None,
    protocol: ProtocolFlag = "medium",
    ranks: RanksFlag = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The weights that made the descriptors, if they have moved.")
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Shows which places of database photos match a point or box of the query: the cosine of local features."""
    from ultron_cli import console, workspace
    from ultron_cli.commands.visualize import scenes_of
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.inside.photos import draw_match, numbers
    from ultron_cli.visualization.scene import file_name
    from ultron_cli.visualization.tsne import check_suffix

    if (at is None) == (box is None):
        raise UltronError(
            "choose a place of the query with either --at X,Y or --box X1,Y1,X2,Y2, in pixels of the whole photo"
        )
    point, rectangle = (numbers(at, 2, "--at") if at else None), (numbers(box, 4, "--box") if box else None)
    if out:
        check_suffix(out)
    (scene,) = scenes_of([ranks] if ranks else None, queries, database, protocol)
    row = scene.query_row(query)
    name = file_name(f"{Path(scene.ranking.query_names[row]).name}-{at or box}")
    path = (
        out
        or workspace.result_folder("visualize", file_name(f"match-{scene.ranking.origin.dataset}-{scene.model}"))
        / f"{name}.png"
    )
    summary = draw_match(
        scene, row, k, protocol, photo or [], point, rectangle, path, console.settings.device, weights, layer
    )  # type: ignore[arg-type]
    workspace.remember("visualize", path)
    text = [
        f"{entry['rank']:>4}  {entry['cosine']:.4f} at {entry['best_px'][0]:g},{entry['best_px'][1]:g}  {entry['name']}"
        for entry in summary["photos"]
    ]
    print_result(summary, "\n".join([f"query {summary['query']} at {summary['place']}", *text, summary["figure"]]))


def _load(
    model: str | None,
    backbone: str | None,
    run: str | None,
    weights: Path | None,
    untrained: bool,
    seed: int,
    set_: list[str] | None,
) -> Any:
    """The chosen model on its device."""
    from ultron_cli import console
    from ultron_cli.commands.extract import model_choice
    from ultron_cli.machine import resolve_device

    loaded = model_choice(model, backbone, run, weights, False, untrained, seed, set_ or []).load()
    loaded.model.to(resolve_device(console.settings.device)).eval()
    return loaded


def dilation(
    *,
    run: RunFlag = None,
    weights: WeightsFlag = None,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    untrained: UntrainedFlag = False,
    seed: SeedFlag = 0,
    set_: SetFlag = None,
    dataset: DatasetFlag = None,
    photo: PhotoFlag = None,
    photos: Annotated[
        int, typer.Option(min=1, max=200, help="How many photos, evenly spread over the database, where none is named.")
    ] = 24,
    max_side: MaxSideFlag = 512,
    out: FigureFlag = None,
) -> None:
    """Shows which dilation CDConv chose per channel and photo, as a heat map and shares per stage and block (ULTRON
    models)."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.visualization.inside.dilations import cdconvs_of, dilation_figure, gather, write_csv
    from ultron_cli.visualization.inside.photos import load_photos, model_title, photo_paths
    from ultron_cli.visualization.scene import file_name
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    loaded = _load(model, backbone, run, weights, untrained, seed, set_)
    cdconvs_of(loaded.model)
    opened = open_named_dataset(dataset)
    result = gather(
        loaded.model, load_photos(loaded.model, photo_paths(opened, photo or [], photos), max_side, "dilation")
    )
    path = (
        out
        or workspace.result_folder("visualize", file_name(f"dilation-{opened.name}-{loaded.model.label}"))
        / "dilation.png"
    )
    n_photos = f"{len(result.names)} photo{'s' if len(result.names) > 1 else ''}"
    dilation_figure(
        result,
        f"Dilations chosen by CDConv: {model_title(loaded)} on {opened.name}, {n_photos}, longest side {max_side} px",
        path,
    )
    write_csv(result, path.with_suffix(".csv"))
    workspace.remember("visualize", path)
    shares = {
        stage: dict(zip(map(str, result.values), result.shares(stage).tolist(), strict=True))
        for stage in result.choices
    }
    text = [
        f"{stage}: " + ", ".join(f"dilation {value} {100 * share:.1f} %" for value, share in of_stage.items())
        for stage, of_stage in shares.items()
    ]
    summary = {"figure": str(path), "csv": str(path.with_suffix(".csv")), "photos": result.names, "shares": shares}
    print_result(summary, "\n".join([*text, str(path), str(path.with_suffix(".csv"))]))


def attention(
    *,
    run: RunFlag = None,
    weights: WeightsFlag = None,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    untrained: UntrainedFlag = False,
    seed: SeedFlag = 0,
    set_: SetFlag = None,
    dataset: DatasetFlag = None,
    photo: Annotated[
        str | None, typer.Option(metavar="NAME", help="A photo of the dataset by name (the first).")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="The point, in pixels of the whole photo (its middle).")
    ] = None,
    stage: Annotated[int, typer.Option(min=3, max=4, help="Stage of attention.")] = 3,
    block: Annotated[int | None, typer.Option(min=1, help="Block of the stage, from 1 (the last).")] = None,
    max_side: MaxSideFlag = 512,
    out: FigureFlag = None,
) -> None:
    """Shows SCALA's window weights at a point of a photo, one panel per head (ULTRON models)."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.visualization.inside.matching import region_of
    from ultron_cli.visualization.inside.photos import load_photos, model_title, numbers, photo_paths, size_of
    from ultron_cli.visualization.inside.windows import attention_figure, attentions_of, window_weights
    from ultron_cli.visualization.scene import file_name
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    asked = numbers(at, 2, "--at") if at else None
    loaded = _load(model, backbone, run, weights, untrained, seed, set_)
    number = block or len(attentions_of(loaded.model, stage))
    opened = open_named_dataset(dataset)
    chosen = photo_paths(opened, [photo or opened.database_names[0]], 1)
    size = size_of(chosen[0][1])
    point = asked or (size[0] / 2, size[1] / 2)
    place = region_of(point, None, None, size)[:2]  # type: ignore[arg-type]
    ((name, pixels),) = load_photos(loaded.model, chosen, max_side, "attention")
    found = window_weights(loaded.model, pixels, place, stage, number)
    path = out or workspace.result_folder(
        "visualize", file_name(f"attention-{opened.name}-{loaded.model.label}")
    ) / file_name(f"{name}-stage{stage}-block{number}-{point[0]:g},{point[1]:g}.png")
    title = f"Window weights at a point, stage {stage} block {number}: {model_title(loaded)} on {opened.name}"
    attention_figure(pixels, found, title, f"{name}, point {point[0]:g},{point[1]:g} of {size[0]} x {size[1]} px", path)
    workspace.remember("visualize", path)
    summary = {
        "figure": str(path),
        "photo": name,
        "at": list(point),
        "stage": stage,
        "block": number,
        "cell": list(found.cell),
        "grid": list(found.grid),
        "rows": found.rows.tolist(),
        "columns": found.columns.tolist(),
        "weights": found.weights.tolist(),
    }
    print_result(summary, str(path))
