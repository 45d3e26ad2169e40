"""`ultron visualize report`: scores, ranked photos and pairs in one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import DatabaseFlag, LabelFlag, QueriesFlag, current_workspace, number
from ultron_cli.commands.visualize.searches import labels_of, scenes_of

EXAMPLE = """
ultron visualize report -k 20 --maps 3
ultron visualize report --ranks before.h5 --ranks after.h5
"""


def command(
    *,
    ranks: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A rank file; given twice, the second is compared with the first."),
    ] = None,
    label: LabelFlag = None,
    k: Annotated[int, number("-k", help="Photos shown per query.", low=1)] = 10,
    thumbnail: Annotated[int, number(help="Longest side of a thumbnail.", low=1, metavar="PX")] = 200,
    maps: Annotated[int, number(help="Pairs per query that get a similarity map; slow on a CPU.", low=0)] = 0,
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File for the page (HTML).")] = None,
) -> None:
    """Writes one HTML file with scores, photos and pairs.

    It holds the scores, every query's ranked photos and, on a click, pairs, and opens without a server or network.
    """
    from ultron_cli import console
    from ultron_cli.console import print_result
    from ultron_cli.visualization.report.report import ReportConfig, write_report

    workspace = current_workspace()
    scenes = scenes_of(ranks, queries, database)
    labels = labels_of([scene.model for scene in scenes], label, ranks)
    dataset = scenes[0].ranking.origin.dataset
    made_by = {"rankings": [scene.ranking.origin.to_json() for scene in scenes]}
    path = out or workspace.result_folder("visualize", f"report-{dataset}-{scenes[0].model}", made_by) / "report.html"
    config = ReportConfig(k=k, thumbnail_px=thumbnail, n_maps=maps)
    write_report(
        list(zip(labels, scenes, strict=True)),
        config,
        f"{' and '.join(label or dict.fromkeys(scene.model for scene in scenes))} on {dataset}",
        path,
        console.settings.device,
    )
    workspace.remember("visualize", path)
    print_result({"report": str(path)}, str(path))
