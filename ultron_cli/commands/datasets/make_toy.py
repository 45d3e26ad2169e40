"""`ultron datasets make-toy`: rendered landmarks."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace, number

EXAMPLE = "ultron datasets make-toy --out toy --seed 1"


def command(
    *,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to render into (data root/toy).")] = None,
    seed: Annotated[int, number(help="Seed; the same seed gives the same files.", low=0)] = 0,
    train_landmarks: Annotated[int | None, number(help="Landmarks to train on.", low=0)] = None,
    eval_landmarks: Annotated[int | None, number(help="Other landmarks, to evaluate on.", low=0)] = None,
    max_side: Annotated[int | None, number(help="Longest side in pixels.", low=1, metavar="PX")] = None,
    difficulty: Annotated[
        float | None, number(help="0 easy to 2 hard: spread of views, light and occlusion.", low=0, high=2)
    ] = None,
) -> None:
    """Renders photos of made-up landmarks, with ground truth.

    They are for trying and testing without any download.
    """
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
