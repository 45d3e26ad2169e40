"""`ultron visualize curves`: training curves of several runs in one axes each."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import FigureFlag, current_workspace, require_one_each

EXAMPLE = "ultron visualize curves --run a --run b --label plain --label CDConv"


def command(
    *,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME|DIR",
            help="A training run: folder or name in the workspace; may be given again (the latest).",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="TEXT", help="Name of each run in the picture, in their order (the folders')."),
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Draws the training curves of runs.

    Loss, held-out mAP, accuracy and learning rate by epoch have an axes each.
    """
    from ultron_cli.console import print_result
    from ultron_cli.visualization.curves.run_curves import curves_figure, read_run
    from ultron_cli.visualization.drawing import check_suffix

    workspace = current_workspace()
    if out:
        check_suffix(out)
    require_one_each("--label", label, "--run", len(run or [""]))
    root = workspace.root / "train"
    folders = [Path(name).expanduser() if Path(name).expanduser().is_dir() else root / name for name in run or []]
    folders = folders or [workspace.take_latest("train", "name a run folder with --run")]
    runs = [read_run(folder, label[i] if label else None) for i, folder in enumerate(folders)]
    datasets, models = (
        list(dict.fromkeys(r.dataset for r in runs if r.dataset)),
        list(dict.fromkeys(r.model for r in runs if r.model)),
    )
    made_by = {"runs": [str(folder.resolve()) for folder in folders]}
    path = out or (
        folders[0] / "training-curves.png"
        if len(runs) == 1
        else workspace.result_folder("visualize", "curves", made_by) / "curves.png"
    )
    what = f"{', '.join(models)} on {', '.join(datasets)}" if models and datasets else ", ".join(models or datasets)
    curves_figure(runs, f"Training curves: {what}" if what else "Training curves", path)
    workspace.remember("visualize", path)
    entries = [
        {
            "run": r.label,
            "epochs": len(r.epochs),
            "loss": (r.points("loss")[1] or [None])[-1],
            "validation_mAP": (r.points("validation_mAP")[1] or [None])[-1],
        }
        for r in runs
    ]
    print_result({"figure": str(path), "runs": entries}, str(path))
