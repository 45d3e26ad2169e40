"""`ultron visualize tsne`: descriptors of several models as maps of points."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import FigureFlag, current_workspace, number, require_one_each

EXAMPLE = "ultron visualize tsne --perplexity 20"


def command(
    *,
    database: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Descriptors of the database; given again, another panel (the latest extraction)."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="TEXT", help="Title of each panel, in their order (its model)."),
    ] = None,
    perplexity: Annotated[float, number(help="About how many neighbours count.", low=1, high=1000)] = 30.0,
    seed: Annotated[int, number(help="Seed of the embedding.", low=0)] = 0,
    most: Annotated[int, number("--most", help="Photos of no landmark beyond this many are left out.", low=4)] = 2000,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Photos instead of marks.")] = False,
    out: FigureFlag = None,
) -> None:
    """Draws descriptors as a map of points (t-SNE).

    Points are coloured by landmark, with one panel per model; the method is Barnes-Hut t-SNE.
    """
    from ultron_cli.console import print_result
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.tsne import TsneConfig, knn_purity, panel_of, tsne_figure

    workspace = current_workspace()
    paths = database or [workspace.take_latest("extract", "name --database") / "database.h5"]
    require_one_each("--label", label, "--database", len(paths))
    config = TsneConfig(perplexity=perplexity, seed=seed)
    if out:
        check_suffix(out)
    panels = [panel_of(path, config, most, label[i] if label else None) for i, path in enumerate(paths)]
    dataset = panels[0][1]
    path = (
        out
        or workspace.result_folder(
            "visualize", f"tsne-{dataset}", {"descriptors": [str(path.resolve()) for path in paths]}
        )
        / "tsne.png"
    )
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
