"""`ultron visualize dilation`: which dilations CDConv chose."""

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
)

EXAMPLE = """
ultron visualize dilation --dataset photos/ --photos 40
ultron visualize dilation --model ultron-t --untrained --dataset toy
"""


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
        list[str] | None,
        typer.Option("--photo", metavar="NAME", help="A photo of the dataset by name; may be given again."),
    ] = None,
    photos: Annotated[
        int,
        number(help="How many photos, evenly spread over the database, where none is named.", low=1, high=200),
    ] = 24,
    max_side: MaxSideFlag = 512,
    out: FigureFlag = None,
) -> None:
    """Shows which dilations CDConv chose.

    It draws them per channel and photo as a heat map, and their shares per stage and block; for ULTRON models.
    """
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.inside.dilations import cdconvs_of, dilation_figure, gather, write_csv
    from ultron_cli.visualization.inside.photos import load_photos, model_title, photo_paths
    from ultron_cli.visualization.scene import file_name

    workspace = current_workspace()
    if out:
        check_suffix(out)
    loaded = ModelFlags(
        model=model,
        backbone=backbone,
        run=run,
        weights=weights,
        untrained=untrained,
        seed=seed,
        assignments=set_,
    ).load()
    cdconvs_of(loaded.model)
    photo_set = open_named_dataset(dataset, workspace=workspace)
    result = gather(
        loaded.model,
        load_photos(loaded.model, photo_paths(photo_set, photo or [], photos), max_side, "dilation"),
    )
    made_by = {"weights_sha256": loaded.weights_sha256, "photos": result.names, "max_side_px": max_side}
    folder = file_name(f"dilation-{photo_set.name}-{loaded.model.label}")
    path = out or workspace.result_folder("visualize", folder, made_by) / "dilation.png"
    n_photos = f"{len(result.names)} photo{'s' if len(result.names) > 1 else ''}"
    dilation_figure(
        result,
        f"Dilations chosen by CDConv: {model_title(loaded)} on {photo_set.name}, {n_photos}, "
        f"longest side {max_side} px",
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
