"""The curves of a run as a picture: loss, learning rate, accuracy and held-out mAP or top-1."""

from pathlib import Path
from typing import Any

from ultron_cli.files import whole_file
from ultron_cli.training.run.journal import METRICS_FILE, STEPS_FILE, read_lines


def draw_curves(folder: Path) -> Path:
    """Draws curves.png from the lines of a run and returns its path."""
    from matplotlib.figure import Figure

    steps, epochs = read_lines(folder / STEPS_FILE), read_lines(folder / METRICS_FILE)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, rate, quality = figure.subplots(1, 3)

    def curve(
        axes: Any, entries: list[dict[str, Any]], key: str, label: str, factor: float = 1.0, marker: str | None = None
    ) -> None:
        points = [(entry["epoch"], factor * entry[key]) for entry in entries if entry.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)

    curve(loss, steps, "loss", "steps")
    curve(loss, epochs, "loss", "epochs", marker="o")
    loss.set_ylabel("loss")
    curve(rate, steps or epochs, "lr", "learning rate")
    rate.set_ylabel("learning rate")
    curve(quality, epochs, "accuracy", "training accuracy", 100.0, "o")
    curve(quality, epochs, "validation_mAP", "held-out mAP", 100.0, "o")
    curve(quality, epochs, "validation_top1", "held-out top-1", 100.0, "o")
    quality.set_ylabel("%")
    for axes in (loss, rate, quality):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    path = folder / "curves.png"
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
