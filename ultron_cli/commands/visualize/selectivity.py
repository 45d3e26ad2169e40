"""`ultron visualize selectivity`: how much the units of several models prefer one landmark."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace, number

EXAMPLE = "ultron visualize selectivity --run a --run b --dataset toy"


def command(
    *,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="NAME|DIR", help="A training run; given again, another model (the latest)."),
    ] = None,
    weights: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint of ultron; may be given again.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Photos by landmark (rendered landmarks).")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="A layer by name; may be given again (the network's stages)."),
    ] = None,
    classes: Annotated[int, number(help="Landmarks.", low=2)] = 50,
    photos: Annotated[int, number(help="Photos of each landmark.", low=2)] = 10,
    side: Annotated[
        int, number(help="Side of the square that photos are scaled to.", low=32, high=4096, metavar="PX")
    ] = 224,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File for the picture (.png, .pdf or .svg); the numbers go beside it as CSV."
        ),
    ] = None,
) -> None:
    """Shows how much units prefer one landmark.

    It draws histograms of the class selectivity index of every unit of some layers, of one model or several, and
    writes the numbers as CSV.
    """
    from ultron_cli import console
    from ultron_cli.console import print_result
    from ultron_cli.datasets.landmarks.photos import open_landmark_photos
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.machine import resolve_device
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.selectivity import chosen_photos, measure, selectivity_figure, write_csv

    workspace = current_workspace()
    if out:
        check_suffix(out)
    choices = [ModelChoice(run=name, workspace=workspace) for name in run or []]
    choices += [ModelChoice(weights=path) for path in weights or []]
    landmark_photos = open_landmark_photos(open_named_dataset(dataset or "toy", workspace=workspace).folder)
    rows = chosen_photos(landmark_photos, classes, photos)
    device = resolve_device(console.settings.device)
    results = []
    hashes: list[str] = []  # of the models' weights
    for choice in choices or [ModelChoice(workspace=workspace)]:
        loaded = choice.load()
        hashes.append(loaded.weights_sha256)
        model = loaded.model.to(device)
        name = f"{choice.run or (choice.weights.stem if choice.weights else 'latest')} ({model.label})"
        results.append(measure(model, name, landmark_photos, rows, layer or [], side, device))
    made_by = {
        "weights_sha256": hashes,
        "photos": [str(landmark_photos.paths[row]) for row in rows.tolist()],
        "layers": layer or [],
        "side_px": side,
    }
    folder = f"selectivity-{landmark_photos.folder.name}"
    path = out or workspace.result_folder("visualize", folder, made_by) / "selectivity.png"
    selectivity_figure(results, f"Class selectivity on {landmark_photos.folder.name}: {len(rows)} photos", path)
    write_csv(results, path.with_suffix(".csv"))
    workspace.remember("visualize", path)
    means = {result.model: {name: float(values.mean()) for name, values in result.layers.items()} for result in results}
    print_result(
        {"figure": str(path), "csv": str(path.with_suffix(".csv")), "mean_selectivity": means},
        f"{path}\n{path.with_suffix('.csv')}",
    )
