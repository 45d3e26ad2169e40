"""`ultron demo`: the whole pipeline on rendered landmarks."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "ultron demo"


def command(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the demo's dataset and results.")] = Path("ultron-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the photos and of the training.")] = 0,
) -> None:
    """Renders landmarks, trains, extracts, indexes, searches, evaluates and draws; minutes on a laptop, nothing
    downloaded."""
    from ultron_cli import console
    from ultron_cli.console import print_result
    from ultron_cli.demo import run_demo

    summary, text = run_demo(out, seed, console.settings.device)
    print_result(summary, text)
