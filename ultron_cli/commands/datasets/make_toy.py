"""`ultron datasets make-toy`: rendered landmarks."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace

EXAMPLE = "ultron datasets make-toy --out toy --seed 1"


def command(
    *,
    out: Annotated[Path | None, typer.Option(help="Folder to render into (data root/toy).")] = None,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same files.")] = 0,
    train_landmarks: Annotated[int | None, typer.Option(help="Landmarks to train on.")] = None,
    eval_landmarks: Annotated[int | None, typer.Option(help="Other landmarks, to evaluate on.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side in pixels.")] = None,
    difficulty: Annotated[
        float | None, typer.Option(help="0 easy to 2 hard: spread of views, light and occlusion.")
    ] = None,
) -> None:
    """Renders photos of made-up landmarks with exact ground truth, for trying and testing without any download."""
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import render_toy
    from ultron_cli.datasets.toy import ToyConfig

    workspace = current_workspace()
    sizes = {
        "n_train_landmarks": train_landmarks,
        "n_eval_landmarks": eval_landmarks,
        "max_side_px": max_side,
        "difficulty": difficulty,
    }
    config = ToyConfig(seed=seed, **{key: value for key, value in sizes.items() if value is not None})
    folder = render_toy(out or workspace.data_root / "toy", config)
    print_result({"folder": str(folder)}, str(folder))
