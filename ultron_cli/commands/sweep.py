"""`ultron sweep`: many settings, evaluated with nothing computed twice."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import FORMATS, SWEEPS
from ultron_cli.commands.flags import (
    BackboneFlag,
    FormatFlag,
    ModelFlag,
    RunFlag,
    WeightsFlag,
    current_workspace,
    number,
)

EXAMPLE = """
ultron sweep grid.toml
ultron sweep protocol-worth --dataset roxford5k --weights resnet50.pth --backbone resnet50
"""


def command(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="FILE.toml|NAME", help=f"The cells (docs/evaluation.md), or a preset: {', '.join(SWEEPS)}."
        ),
    ],
    *,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Instead of extract.dataset: a dataset by name or folder.")
    ] = None,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    run: RunFlag = None,
    weights: WeightsFlag = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example extract.scales=3."),
    ] = None,
    workers: Annotated[
        int | None,
        number(help="Cells computed side by side (one per core, up to 8; one beside a GPU).", low=1),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew in a folder that holds a sweep of other settings.")
    ] = False,
    style: FormatFlag = "text",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the sweep.")] = None,
) -> None:
    """Evaluates many settings, and computes nothing twice.

    Settings are those of extraction, whitening, index, search and re-ranking. Every result lies in the workspace under
    a hash of what made it. A sweep that was stopped, or of which cells failed, goes on with the same command. Table and
    picture (mAP against time and memory) come at the end.
    """
    from ultron_cli import console
    from ultron_cli.allocator import keep_memory
    from ultron_cli.configs import one_of
    from ultron_cli.console import lines, print_result
    from ultron_cli.errors import WorkFailed

    keep_memory()
    from ultron_cli.sweep.plan import read_plan
    from ultron_cli.sweep.run import SweepOptions, run_sweep
    from ultron_cli.sweep.tables import draw_tables, failures_text, sweep_content, sweep_tables, sweep_text

    style = one_of("format", style, FORMATS)
    model_table = {"name": model, "backbone": backbone, "run": run, "weights": str(weights) if weights else None}
    fixed = {
        "model": {key: value for key, value in model_table.items() if value is not None},
        "extract": {"dataset": dataset} if dataset else {},
    }
    options = SweepOptions(device_name=console.settings.device, workers=workers, overwrite=overwrite, out=out)
    sweep_plan = read_plan(plan, set_ or [], {key: table for key, table in fixed.items() if table})
    folder, results = run_sweep(sweep_plan, options, current_workspace())
    tables = sweep_tables(results)
    content = sweep_content(folder, results, tables)
    content["figures"] = figures = [str(path) for path in draw_tables(tables, folder)]
    text = sweep_text(content, tables, style)
    if tables:
        print_result(content, lines(text, str(folder), *figures) if style == "text" else text)
    if failed := failures_text(results):
        raise WorkFailed(f"{failed}; the same command tries them again")
