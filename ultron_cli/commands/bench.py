"""`ultron bench`: what this machine gives, before an experiment is planned."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import BackboneFlag, ModelFlag, ModelFlags, number
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron bench
ultron bench --backbone resnet50 --side 640 --batch-size 8 --device cuda
ultron bench --compare before.json after.json
"""


def command(
    *,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    side: Annotated[int | None, number(help="Side of the network's photos (512).", low=1, metavar="PX")] = None,
    batch_size: Annotated[
        int | None, number(help="Photos that the network takes at a time, at most 64 (4).", low=1)
    ] = None,
    n: Annotated[
        int | None,
        number(
            "--n",
            help="Descriptors to search; they take N x 512 x 4 bytes of memory (100,000, which take 195 MiB).",
            low=1,
        ),
    ] = None,
    rounds: Annotated[int | None, number(help="Rounds that medians and ranges are over (5).", low=1)] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes and one round, where not told otherwise: does everything work?")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Show two results side by side: what --json printed, or files of benchmarks/results.",
        ),
    ] = None,
) -> None:
    """Measures what this machine gives.

    Photos are decoded and described, the compiled operators run, and descriptors are searched exactly. The network is
    ultron-t (with --backbone: gem over it) with random weights, in float32 as `ultron extract`. Photos are rendered and
    descriptors generated: nothing is downloaded, and only a temporary folder is written.

    It takes N x 512 x 4 bytes of memory for the descriptors, up to 768 MiB for the search, and what the network needs
    for a batch.
    """
    import dataclasses

    from ultron_cli import console

    if compare:
        if model or backbone or side or batch_size or n or rounds or quick:
            raise UltronError("--compare shows what was measured; leave out the other options")
        _show_both(*compare)
        return
    from ultron_cli.bench import QUICK, BenchConfig
    from ultron_cli.bench import bench as measure
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.machine import resolve_device
    from ultron_cli.measurements import machine_text, number_text

    sizes = {
        name: value
        for name, value in (("rounds", rounds), ("side_px", side), ("batch_size", batch_size), ("n", n))
        if value is not None
    }
    base = QUICK if quick else BenchConfig()
    config = dataclasses.replace(base, **sizes)
    network = model or (None if backbone else "ultron-t")
    choice = ModelFlags(model=network, backbone=backbone, untrained=True).choice()
    report = measure(config, choice, resolve_device(console.settings.device))
    text = table(
        ("what", "of", "median", "range", "unit"),
        [
            (
                name,
                "; ".join(filter(None, (row.of, row.note))),
                number_text(row.value),
                f"{number_text(row.lowest)} to {number_text(row.highest)}" if row.rounds else "",
                row.unit,
            )
            for name, row in report.results.items()
        ],
        left=2,
    )
    problems = [f"{name}: {row.problem}" for name, row in report.results.items() if row.problem]
    print_result(report.to_json(), lines(text, *problems, machine_text(report.machine)))


def _show_both(before: Path, after: Path) -> None:
    """Prints two files of measurements side by side."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.measurements import changes, differences, read_results

    a, b = read_results(before), read_results(after)
    rows = changes(a, b)
    notes = differences(a, b)
    texts = [
        (
            row.name,
            str(row.before or "none"),
            str(row.after or "none"),
            row.unit,
            "" if row.gain is None else f"{row.gain:.2f}x",
            row.verdict,
        )
        for row in rows
    ]
    print_result(
        {
            "before": str(before),
            "after": str(after),
            "results": {
                row.name: {
                    "before": row.before and row.before.to_json(),
                    "after": row.after and row.after.to_json(),
                    "gain": row.gain,
                    "verdict": row.verdict,
                }
                for row in rows
            },
            "differences": notes,
        },
        lines(
            f"A {before}",
            f"B {after}",
            table(("what", "A", "B", "unit", "B is as fast", "B is"), texts),
            "median (range of the rounds); faster or slower: the ranges do not meet",
            *notes,
        ),
    )
