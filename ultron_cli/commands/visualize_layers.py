"""`ultron visualize tsne` and `selectivity`: descriptors and units of several models side by side."""

from pathlib import Path
from typing import Annotated

import typer


def tsne(
    *,
    database: Annotated[
        list[Path] | None,
        typer.Option(help="Descriptors of the database; given again, another panel (the latest extraction)."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Title of each panel, in their order (its model).")
    ] = None,
    perplexity: Annotated[float, typer.Option(help="About how many neighbours count.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the embedding.")] = 0,
    most: Annotated[
        int, typer.Option("--most", min=4, help="Photos of no landmark beyond this many are left out.")
    ] = 2000,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Photos instead of marks.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the picture (.png, .pdf or .svg).")] = None,
) -> None:
    """Barnes-Hut t-SNE of descriptors, coloured by landmark, one panel per model."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.tsne import TsneConfig, check_suffix, knn_purity, tsne_figure
    from ultron_cli.visualization.tsne_panels import panel_of

    paths = database or [workspace.take_latest("extract", "name --database") / "database.h5"]
    if label and len(label) != len(paths):
        raise UltronError(f"--label must be given once per --database, found {len(label)} for {len(paths)}")
    config = TsneConfig(perplexity=perplexity, seed=seed)
    if out:
        check_suffix(out)
    panels = [panel_of(path, config, most, label[i] if label else None) for i, path in enumerate(paths)]
    dataset = panels[0][1]
    path = out or workspace.result_folder("visualize", f"tsne-{dataset}") / "tsne.png"
    drawn = [panel for panel, _ in panels]
    tsne_figure(
        drawn, f"t-SNE of descriptors on {dataset}, perplexity {perplexity:g}, seed {seed}", path, thumbnails=thumbnails
    )
    workspace.remember("visualize", path)
    result = {
        panel.title: {"photos": len(panel.points), "knn_purity": knn_purity(panel.points, panel.labels)}
        for panel in drawn
    }
    print_result({"figure": str(path), "perplexity": perplexity, "seed": seed, "panels": result}, str(path))


def selectivity(
    *,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="A training run; given again, another model (the latest).")
    ] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="A checkpoint of ultron; may be given again.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Photos by landmark (rendered landmarks).")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="A layer by name; may be given again (the network's stages).")
    ] = None,
    classes: Annotated[int, typer.Option(min=2, help="Landmarks.")] = 50,
    photos: Annotated[int, typer.Option(min=2, help="Photos of each landmark.")] = 10,
    side: Annotated[int, typer.Option(min=32, help="Longest side of a photo in pixels.")] = 224,
    out: Annotated[
        Path | None, typer.Option(help="File for the picture (.png, .pdf or .svg); the numbers go beside it as CSV.")
    ] = None,
) -> None:
    """Class selectivity index of every unit of some layers: histograms of several models, and the numbers as CSV."""
    from ultron_cli import console, workspace
    from ultron_cli.console import print_result
    from ultron_cli.datasets.landmarks.photos import open_landmark_photos
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.machine import resolve_device
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.visualization.measure_selectivity import chosen_photos, measure
    from ultron_cli.visualization.selectivity import selectivity_figure, write_csv
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    choices = [ModelChoice(run=name) for name in run or []] + [ModelChoice(weights=path) for path in weights or []]
    opened = open_landmark_photos(open_named_dataset(dataset or "toy").folder)
    rows, device, results = chosen_photos(opened, classes, photos), resolve_device(console.settings.device), []
    for choice in choices or [ModelChoice()]:
        model = choice.load().model.to(device)
        name = f"{choice.run or (choice.weights.stem if choice.weights else 'latest')} ({model.label})"
        results.append(measure(model, name, opened, rows, layer or [], side, device))
    path = out or workspace.result_folder("visualize", f"selectivity-{opened.folder.name}") / "selectivity.png"
    selectivity_figure(results, f"Class selectivity on {opened.folder.name}: {len(rows)} photos", path)
    write_csv(results, path.with_suffix(".csv"))
    workspace.remember("visualize", path)
    means = {result.model: {name: float(values.mean()) for name, values in result.layers.items()} for result in results}
    print_result(
        {"figure": str(path), "csv": str(path.with_suffix(".csv")), "mean_selectivity": means},
        f"{path}\n{path.with_suffix('.csv')}",
    )


def genotype(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[GENOTYPE|FILE]", help="A genotype's text or a file that a search wrote (the published)."
        ),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="File for the picture (.png, .pdf or .svg).")] = None,
) -> None:
    """Draws the graph of a searched attention (HOGA, AutoLA): nodes, operations and what each takes in."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.models.attentions.genotype import PUBLISHED, load_genotype, parse_genotype
    from ultron_cli.visualization.genotype import genotype_figure
    from ultron_cli.visualization.tsne import check_suffix

    given = text or PUBLISHED
    path = out or workspace.result_folder("visualize", "genotype") / "genotype.png"
    check_suffix(path)
    found = load_genotype(Path(given)) if Path(given).is_file() else parse_genotype(given)
    genotype_figure(found, "HOGA, the published genotype" if text is None else f"HOGA: {given}"[:90], path)
    workspace.remember("visualize", path)
    print_result({"figure": str(path), "genotype": given}, str(path))
