"""Training curves of several runs in one axes each, from the JSON lines in their run folders.

metrics.jsonl has a line per epoch with epoch, loss, accuracy (0..1), lr, and validation_mAP (0..1) where it was
measured; steps.jsonl, if it is there, a line every few steps with step, epoch, loss and lr. A key that a run does not
have is left out of the figure.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError
from ultron_cli.visualization import plots
from ultron_cli.visualization.tsne import COLOURS

STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_RUNS = 14
SMOOTHED_SHARE = 0.04  # of the steps of a run: the width of the running mean of the loss by step


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """The lines of one run. epochs: of metrics.jsonl; steps: of steps.jsonl, may be empty; dataset, model: "" where not
    recorded."""

    label: str
    epochs: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    dataset: str = ""
    model: str = ""

    def points(self, key: str, factor: float = 1.0, *, by_step: bool = False) -> tuple[list[float], list[float]]:
        """(epochs, values * factor) of a key, finite numbers only."""
        found = [(entry.get("epoch"), entry.get(key)) for entry in (self.steps if by_step else self.epochs)]
        kept = [(float(x), factor * float(y)) for x, y in found if _is_number(x) and _is_number(y)]
        return [x for x, _ in kept], [y for _, y in kept]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file, none if it is absent; a line that is none (the torn end of a run that goes on)
    is left out."""
    lines = (
        [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if path.is_file()
        else []
    )
    entries, n_bad = [], 0
    for i, line in enumerate(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            entries.append(entry)
        elif i < len(lines) - 1:  # the last line may be half written
            n_bad += 1
    if n_bad:
        log.warning("%s: left out %s that are no JSON object", path, counted(n_bad, "line"))
    return entries


def read_run(folder: Path, label: str | None = None) -> RunCurves:
    """The curves in a run folder. Raises UltronError if there are none."""
    epochs, steps = read_lines(folder / "metrics.jsonl"), read_lines(folder / "steps.jsonl")
    if not epochs and not steps:
        raise UltronError(
            f"{folder} holds no metrics.jsonl of a training run; name a run folder, or a run in the workspace, "
            "with --run"
        )
    config = _config_of(folder)
    model, dataset = config.get("model"), config.get("dataset")
    name = (
        "-".join(str(model[key]) for key in ("name", "backbone") if model.get(key)) if isinstance(model, dict) else ""
    )
    dataset = Path(dataset).name if isinstance(dataset, str) else ""
    return RunCurves(label=label or folder.resolve().name, epochs=epochs, steps=steps, dataset=dataset, model=name)


def _config_of(folder: Path) -> dict[str, Any]:
    """The `config` object of a run's config.json; empty where there is no such."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("config")
    except (OSError, ValueError, AttributeError):
        return {}
    return config if isinstance(config, dict) else {}


def running_mean(values: list[float], width: int) -> list[float]:
    """Means over a centred window of up to `width` values, narrower at the ends."""
    half, sums = width // 2, [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


def _draw_loss(axes: Axes, run: RunCurves, style: dict[str, Any]) -> None:
    xs, ys = run.points("loss", by_step=True)
    if len(xs) > 1:
        width = max(1, round(SMOOTHED_SHARE * len(xs)))
        axes.plot(xs, ys, color=style["color"], linewidth=0.6, alpha=0.35)
        axes.plot(xs, running_mean(ys, width), **(style | {"marker": None, "markevery": None}))
    else:
        axes.plot(*run.points("loss"), **style)
    axes.set_ylabel("training loss (no unit)")


def _drawer(key: str, label: str, factor: float) -> Callable[[Axes, RunCurves, dict[str, Any]], None]:
    def draw(axes: Axes, run: RunCurves, style: dict[str, Any]) -> None:
        axes.plot(*run.points(key, factor), **style)
        axes.set_ylabel(label)

    return draw


PANELS = {
    "loss": ("Training loss", _draw_loss),
    "validation_mAP": ("Held-out mAP", _drawer("validation_mAP", "held-out mAP (%)", 100.0)),
    "validation_top1": ("Held-out top-1", _drawer("validation_top1", "held-out top-1 (%)", 100.0)),
    "accuracy": ("Training accuracy", _drawer("accuracy", "training accuracy (%)", 100.0)),
    "lr": ("Learning rate", _drawer("lr", "learning rate (no unit)", 1.0)),
}


def curves_figure(runs: list[RunCurves], title: str, out: Path) -> Path:
    """One axes for each quantity that a run has, all runs in it, told apart by colour, dash and mark. PNG, PDF or
    SVG."""
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UltronError(f"one figure takes 1 to {MOST_RUNS} runs, found {len(runs)}; draw fewer")
    panels = [
        key
        for key in PANELS
        if any(run.points(key)[0] or (key == "loss" and run.points(key, by_step=True)[0]) for run in runs)
    ]
    if not panels:
        raise UltronError(f"no run has a value of {', '.join(PANELS)} to draw; train further")
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = plots.new_figure(6.4 * n_columns, 3.9 * n_rows + 0.9 + 0.25 * len(runs), title)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, key in zip(grid.flat, panels, strict=False):
        heading, draw = PANELS[key]
        for i, run in enumerate(runs):
            draw(axes, run, look(i) | {"markevery": max(1, len(run.points(key)[0]) // 12)})
        by_step = key == "loss" and any(len(run.points(key, by_step=True)[0]) > 1 for run in runs)
        axes.set_title(heading + (" (thin: by step, thick: running mean)" if by_step else ""), fontsize=plots.LABEL_PT)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
        if key in ("validation_mAP", "validation_top1", "accuracy"):
            axes.set_ylim(bottom=0)
    handles = [Line2D([], [], **look(i), label=_summary(run)) for i, run in enumerate(runs)]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=plots.LABEL_PT)
    return plots.save_figure(figure, out)


def look(i: int) -> dict[str, Any]:
    """Colour, dash and mark of the i-th run; no two of MOST_RUNS are alike."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": STYLES[(i // len(COLOURS) + i) % len(STYLES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 5,
        "linewidth": 1.8,
    }


def _summary(run: RunCurves) -> str:
    """A run in the legend: its model and its last held-out mAP."""
    scores = run.points("validation_mAP", 100.0)[1]
    last = f", held-out mAP {scores[-1]:.1f} % at the end" if scores else ""
    return plots.shortened(f"{run.label}{f' ({run.model})' if run.model else ''}{last}", 1000, plots.LABEL_PT)
