"""`ultron visualize recall-speed`: what several kinds of index find, and how fast."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import FigureFlag, current_workspace, number, require_one_each

EXAMPLE = "ultron visualize recall-speed ivf.report.json ivfpq.report.json hnsw.report.json --at 10"


def command(
    reports: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT.json", help="What `ultron index --report` wrote, one for each kind of index."),
    ],
    *,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="TEXT", help="Name of each index in the picture, in their order (its kind)."),
    ] = None,
    at: Annotated[
        int | None,
        number("--at", help="Recall among the first K (the largest that all reports have).", low=1, metavar="K"),
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Draws speed over recall of several indexes.

    All are in one axes, with exact search as a star.
    """
    from ultron_cli.console import print_result
    from ultron_cli.visualization.curves.recall_speed import (
        common_cut,
        read_report,
        recall_speed_figure,
        title_of_reports,
    )
    from ultron_cli.visualization.drawing import check_suffix

    workspace = current_workspace()
    if out:
        check_suffix(out)
    require_one_each("--label", label, "report", len(reports))
    contents = [read_report(path) for path in reports]
    kinds = [content.kind for content in contents]
    names = label or [
        f"{kind} ({path.name})" if kinds.count(kind) > 1 else kind for kind, path in zip(kinds, reports, strict=True)
    ]
    made_by = {"reports": [str(path.resolve()) for path in reports]}
    path = out or workspace.result_folder("visualize", "recall-speed", made_by) / "recall-speed.png"
    recall_speed_figure(contents, names, title_of_reports(contents), path, at=at)
    workspace.remember("visualize", path)
    cut = common_cut(contents, at)
    entries = [
        {
            "index": name,
            "recall_at": int(cut),
            "points": [{"recall": point.recall[cut], "queries_per_s": point.queries_per_s} for point in content.points],
        }
        for name, content in zip(names, contents, strict=True)
    ]
    print_result({"figure": str(path), "indexes": entries}, str(path))
