"""`ultron visualize ranks`: queries and their best photos."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import PROTOCOLS
from ultron_cli.commands.flags import (
    DatabaseFlag,
    FigureFlag,
    LabelFlag,
    ProtocolFlag,
    QueriesFlag,
    SystemsFlag,
    current_workspace,
    number,
)
from ultron_cli.commands.visualize.searches import labels_of, scenes_of
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron visualize ranks --query all_souls_000013 -k 10
ultron visualize ranks --ranks before.h5 --ranks after.h5 --moves -k 8
"""


def command(
    *,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", metavar="NAME", help="A query of the search (that of median AP); may be given again."),
    ] = None,
    n_queries: Annotated[
        int,
        number("--queries-shown", help="How many queries, evenly from low to high AP, where none is named.", low=1),
    ] = 1,
    k: Annotated[int, number("-k", help="Photos per query.", low=1)] = 10,
    protocol: ProtocolFlag = "medium",
    ranks: SystemsFlag = None,
    label: LabelFlag = None,
    moves: Annotated[
        bool, typer.Option("--moves", help="Arrows from each search to the next: how far photos moved up or down.")
    ] = False,
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    out: FigureFlag = None,
) -> None:
    """Shows a query and its best photos.

    Right, wrong and ignored photos have frames of different colour and sign. Several --ranks are drawn one below the
    other, each with its AP of the query; --moves shows what changed between them.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.ranked.draw import draw_ranks, draw_systems
    from ultron_cli.visualization.scene import file_name

    workspace = current_workspace()
    protocol = one_of("protocol", protocol, PROTOCOLS)
    scenes = scenes_of(ranks, queries, database)
    labels, scene = labels_of([scene.model for scene in scenes], label, ranks), scenes[0]
    if moves and len(scenes) < 2:
        raise UltronError("--moves compares searches; give --ranks twice, before and after")
    rows = [scene.query_row(name) for name in query] if query else scene.typical_rows(n_queries, protocol)
    names = [scene.ranking.query_names[row] for row in rows]
    folder = f"ranks-{scene.ranking.origin.dataset}-{'-'.join(labels) if len(scenes) > 1 else scene.model}"[
        :200
    ].replace("/", "_")
    made_by = {"rankings": [scene.ranking.origin.to_json() for scene in scenes]}
    path = (
        out
        or workspace.result_folder("visualize", folder, made_by) / f"{file_name(Path(names[0]).name)}-{protocol}.png"
    )
    if len(scenes) > 1:
        draw_systems(scenes, labels, names, k, protocol, moves, path)
    else:
        draw_ranks(scene, rows, k, protocol, path)
    workspace.remember("visualize", path)
    shown = [
        {
            "query": name,
            "search": label,
            "ap": scene.average_precision(scene.query_row(name), protocol),
            "photos": [
                {"rank": p.rank, "name": p.name, "score": p.score, "verdict": p.verdict}
                | ({} if scene.ranking.inliers is None else {"inliers": p.n_inliers, "promoted": p.is_promoted})
                for p in scene.ranked(scene.query_row(name), k, protocol)
            ],
        }
        for name in names
        for label, scene in zip(labels, scenes, strict=True)
    ]
    print_result({"figure": str(path), "queries": shown}, str(path))
