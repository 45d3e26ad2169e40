"""`ultron train`: photos by landmark to a trained model."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    *,
    preset: Annotated[str, typer.Option(help="Settings to start from.")] = "quickstart",
    dataset: Annotated[str | None, typer.Option(metavar="NAME|DIR", help="A folder with one folder of photos per landmark.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file whose settings replace the preset's.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example epochs=20 or model.backbone=resnet50.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
) -> None:
    """Trains a model by landmark classification; with no argument, on rendered landmarks in two to three minutes on two cores."""
    from ultron_cli import console
    from ultron_cli.console import counted, print_result
    from ultron_cli.training.start import start_training

    summary = start_training(preset, dataset, config, set_ or [], out, overwrite, console.settings.device)
    last = summary["metrics"][-1]
    print_result(
        summary,
        f"trained {summary['model']} on {counted(summary['n_photos'], 'photo')} of {counted(summary['n_landmarks'], 'landmark')} "
        f"in {summary['seconds']:.0f} s: loss {last['loss']:.3f}, training accuracy {100 * last['accuracy']:.1f} %\n{summary['run']}",
    )
