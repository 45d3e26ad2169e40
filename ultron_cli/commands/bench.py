"""`ultron bench`: what this machine gives, before an experiment is planned."""

from typing import Annotated, Any

import typer

from ultron_cli.commands.flags import BackboneFlag, ModelFlag, ModelFlags, number

EXAMPLE = """
ultron bench
ultron bench --backbone resnet50 --side 640 --batch-size 8 --device cuda
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
    from ultron_cli.bench import QUICK, BenchConfig
    from ultron_cli.bench import bench as measure
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.machine import resolve_device

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
    results = report["results"]
    text = table(
        ("what", "of", "median", "range", "unit"),
        [
            (
                name,
                row["of"],
                _number(row["value"]),
                f"{_number(row['lowest'])} to {_number(row['highest'])}" if row["rounds"] else "",
                row["unit"],
            )
            for name, row in results.items()
        ],
        left=2,
    )
    problems = [f"{name}: {row['problem']}" for name, row in results.items() if row["problem"]]
    print_result(report, lines(text, *problems, _machine(report["machine"])))


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def _machine(facts: dict[str, Any]) -> str:
    from ultron_cli.console import counted

    gpu = facts.get("gpu") or "no GPU used"
    versions = ", ".join(
        f"{name} {facts['packages'][name]}" for name in ("torch", "timm", "numpy") if name in facts["packages"]
    )
    load = f", load average {facts['load_average']:.1f}" if "load_average" in facts else ""
    return (
        f"{facts['cpu']}, {counted(facts['cores'], 'core')}, {counted(facts['threads'], 'thread')}, {gpu}, "
        f"ultron {facts['ultron_version']}, "
        f"Python {facts['python']}, {versions}{load}"
    )
