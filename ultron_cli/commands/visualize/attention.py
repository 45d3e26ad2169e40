"""`ultron visualize attention`: SCALA's weights in the window of a point."""

from typing import Annotated

import typer

from ultron_cli.commands.flags import (
    BackboneFlag,
    FigureFlag,
    MaxSideFlag,
    ModelFlag,
    ModelFlags,
    ModelSetFlag,
    PhotosFlag,
    RunFlag,
    SeedFlag,
    UntrainedFlag,
    WeightsFlag,
    current_workspace,
    number,
    point_of,
)

EXAMPLE = "ultron visualize attention --dataset photos/ --photo holiday --at 500,320 --stage 4"


def command(
    *,
    run: RunFlag = None,
    weights: WeightsFlag = None,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    untrained: UntrainedFlag = False,
    seed: SeedFlag = 0,
    set_: ModelSetFlag = None,
    dataset: PhotosFlag = None,
    photo: Annotated[
        str | None, typer.Option(metavar="NAME", help="A photo of the dataset by name (the first).")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="The point, in pixels of the whole photo (its middle).")
    ] = None,
    stage: Annotated[int, number(help="Stage of attention.", low=3, high=4)] = 3,
    block: Annotated[int | None, number(help="Block of the stage, from 1 (the last).", low=1)] = None,
    max_side: MaxSideFlag = 512,
    out: FigureFlag = None,
) -> None:
    """Shows the weights of SCALA's window at a point.

    One panel per head; for ULTRON models.
    """
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.datasets.photo_files import photo_size
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.inside.matching import region_of
    from ultron_cli.visualization.inside.photos import load_photos, model_title, photo_paths
    from ultron_cli.visualization.inside.windows import attention_figure, attentions_of, window_weights
    from ultron_cli.visualization.scene import file_name

    workspace = current_workspace()
    if out:
        check_suffix(out)
    point_px = point_of(at, "--at") if at else None
    loaded = ModelFlags(
        model=model,
        backbone=backbone,
        run=run,
        weights=weights,
        untrained=untrained,
        seed=seed,
        assignments=set_,
    ).load()
    block_number = block or len(attentions_of(loaded.model, stage))
    photo_set = open_named_dataset(dataset, workspace=workspace)
    photo_files = photo_paths(photo_set, [photo or photo_set.database_names[0]], 1)
    size = photo_size(photo_files[0][1])
    point = point_px or (size[0] / 2, size[1] / 2)
    place = region_of(point, None, None, size)[:2]
    ((name, pixels),) = load_photos(loaded.model, photo_files, max_side, "attention")
    window = window_weights(loaded.model, pixels, place, stage, block_number)
    path = out or workspace.result_folder(
        "visualize",
        file_name(f"attention-{photo_set.name}-{loaded.model.label}"),
        {"weights_sha256": loaded.weights_sha256, "max_side_px": max_side},
    ) / file_name(f"{name}-stage{stage}-block{block_number}-{point[0]:g},{point[1]:g}.png")
    title = f"Window weights at a point, stage {stage} block {block_number}: {model_title(loaded)} on {photo_set.name}"
    attention_figure(
        pixels, window, title, f"{name}, point {point[0]:g},{point[1]:g} of {size[0]} x {size[1]} px", path
    )
    workspace.remember("visualize", path)
    summary = {
        "figure": str(path),
        "photo": name,
        "at": list(point),
        "stage": stage,
        "block": block_number,
        "cell": list(window.cell),
        "grid": list(window.grid),
        "rows": window.rows.tolist(),
        "columns": window.columns.tolist(),
        "weights": window.weights.tolist(),
    }
    print_result(summary, str(path))
