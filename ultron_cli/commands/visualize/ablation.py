"""`ultron visualize ablation`: bars of a table of measurements."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import FigureFlag, current_workspace

EXAMPLE = 'ultron visualize ablation ablations.csv --metric "medium mAP" --out ablation.pdf'


def command(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE.csv", help="Columns group,setting,seed,metric,value; examples/ablations.py writes one."
        ),
    ],
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="A metric of the table; may be given again (all)."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What was measured, on what (the file's name).")
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Draws the bars of an ablation.

    Each metric has a panel, and each bar its spread over seeds.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.curves.ablation_bars import ablation_figure, bars_of, read_measurements
    from ultron_cli.visualization.drawing import check_suffix

    workspace = current_workspace()
    if out:
        check_suffix(out)
    measurements = read_measurements(table)
    known = list(dict.fromkeys(row.metric for row in measurements))
    for name in metric or []:
        one_of("metric", name, known)
    rows = [row for name in (metric or known) for row in measurements if row.metric == name]
    path = (
        out or workspace.result_folder("visualize", "ablation", {"table": str(table.resolve())}) / f"{table.stem}.png"
    )
    ablation_figure(rows, title or f"Ablation: {table.stem}", path)
    workspace.remember("visualize", path)
    bars = [
        {
            "group": bar.group,
            "setting": bar.setting,
            "metric": bar.metric,
            "mean": bar.mean,
            "spread": bar.spread,
            "seeds": len(bar.values),
        }
        for bar in bars_of(rows)
    ]
    print_result({"figure": str(path), "bars": bars}, str(path))
