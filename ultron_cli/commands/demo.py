"""`ultron demo`: the whole pipeline on rendered landmarks."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import number

EXAMPLE = "ultron demo"


def command(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the demo's dataset and results.")] = Path(
        "ultron-demo"
    ),
    seed: Annotated[int, number(help="Seed of the photos and of the training.", low=0)] = 0,
) -> None:
    """Runs the whole pipeline on rendered landmarks.

    It renders, trains, extracts, indexes, searches, evaluates and draws, in minutes on a laptop, and downloads nothing.
    """
    from ultron_cli import console
    from ultron_cli.allocator import keep_memory
    from ultron_cli.console import print_result

    keep_memory()
    from ultron_cli.demo import run_demo

    summary, text = run_demo(out, seed, console.settings.device)
    print_result(summary, text)
