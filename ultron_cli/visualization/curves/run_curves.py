"""Training curves of several runs in one axes each, from the JSON lines in their run folders.

metrics.jsonl has a line per epoch with epoch, loss, accuracy (0..1), lr, and validation_mAP (0..1) where it was
measured; steps.jsonl, if it is there, a line every few steps with step, epoch, loss and lr. A key that a run does not
have is left out of the figure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ultron_cli.configs import read_run as read_settings
from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError
from ultron_cli.schema.texts import read_json_lines
from ultron_cli.visualization import plots
from ultron_cli.visualization.plots import MOST_LINES, Look, look

MOST_RUNS = MOST_LINES
SMOOTHED_SHARE = 0.04  # of the steps of a run: the width of the running mean of the loss by step


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """The lines of one run."""

    label: str
    epochs: list[dict[str, object]]  # of metrics.jsonl
    steps: list[dict[str, object]]  # of steps.jsonl; may be empty
    dataset: str = ""  # "" where not recorded
    model: str = ""  # "" where not recorded

    def points(self, key: str, factor: float = 1.0, *, by_step: bool = False) -> tuple[list[float], list[float]]:
        """(epochs, values * factor) of a key, finite numbers only."""
        entries = self.steps if by_step else self.epochs
        pairs = [(entry.get("epoch"), entry.get(key)) for entry in entries]
        points = [(float(x), factor * float(y)) for x, y in pairs if _is_number(x) and _is_number(y)]
        return [x for x, _ in points], [y for _, y in points]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_lines(path: Path) -> list[dict[str, object]]:
    """The objects of a JSON lines file, none if it is absent; a line that is none (the torn end of a run that goes on)
    is left out."""
    lines = [entry for _, entry in read_json_lines(path, "lines of the run", dict[str, object])]
    entries = [entry for entry in lines if entry is not None]
    n_bad = lines[:-1].count(None)  # the last line may be half written
    if n_bad:
        log.warning("%s: left out %s that are no JSON object", path, counted(n_bad, "line"))
    return entries


def read_run(folder: Path, label: str | None = None) -> RunCurves:
    """The curves in a run folder. Raises UltronError if there are none."""
    epochs = read_lines(folder / "metrics.jsonl")
    steps = read_lines(folder / "steps.jsonl")
    if not epochs and not steps:
        raise UltronError(
            f"{folder} holds no metrics.jsonl of a training run; name a run folder, or a run in the workspace, "
            "with `run`"
        )
    config = _config_of(folder)
    model = config.get("model")
    model_name = ""
    if isinstance(model, dict):
        model_name = "-".join(str(model[key]) for key in ("name", "backbone") if model.get(key))
    dataset = config.get("dataset")
    return RunCurves(
        label=label or folder.resolve().name,
        epochs=epochs,
        steps=steps,
        dataset=Path(dataset).name if isinstance(dataset, str) else "",
        model=model_name,
    )


def _config_of(folder: Path) -> dict[str, object]:
    """The `config` object of a run's config.json; empty where there is no such."""
    try:
        return read_settings(folder).config
    except UltronError:
        return {}


def running_mean(values: list[float], width: int) -> list[float]:
    """Means over a centred window of up to `width` values, narrower at the ends."""
    half = width // 2
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


def _draw_loss(axes: Axes, run: RunCurves, style: Look, mark_every: int) -> None:
    xs, ys = run.points("loss", by_step=True)
    if len(xs) > 1:
        width = max(1, round(SMOOTHED_SHARE * len(xs)))
        axes.plot(xs, ys, color=style["color"], linewidth=0.6, alpha=0.35)
        axes.plot(xs, running_mean(ys, width), **{**style, "marker": None})
    else:
        axes.plot(*run.points("loss"), **style, markevery=mark_every)
    axes.set_ylabel("training loss (no unit)")


def _draw_rate(axes: Axes, run: RunCurves, style: Look, mark_every: int) -> None:
    """By step, where a warm-up and a decay within an epoch show; by epoch where no steps are recorded."""
    xs, ys = run.points("lr", by_step=True)
    if len(xs) > 1:
        axes.plot(xs, ys, **{**style, "marker": None})
    else:
        axes.plot(*run.points("lr"), **style, markevery=mark_every)
    axes.set_ylabel("learning rate (no unit)")


def _drawer(key: str, label: str, factor: float) -> Callable[[Axes, RunCurves, Look, int], None]:
    """What draws a key by epoch. label: of the vertical axis; factor: from the file's unit to the axis's."""

    def draw(axes: Axes, run: RunCurves, style: Look, mark_every: int) -> None:
        axes.plot(*run.points(key, factor), **style, markevery=mark_every)
        axes.set_ylabel(label)

    return draw


# key in metrics.jsonl -> (heading, what draws it)
PANELS: dict[str, tuple[str, Callable[[Axes, RunCurves, Look, int], None]]] = {
    "loss": ("Training loss", _draw_loss),
    "validation_mAP": ("Held-out mAP", _drawer("validation_mAP", "held-out mAP (%)", 100.0)),
    "validation_top1": ("Held-out top-1", _drawer("validation_top1", "held-out top-1 (%)", 100.0)),
    "accuracy": ("Training accuracy", _drawer("accuracy", "training accuracy (%)", 100.0)),
    "lr": ("Learning rate", _draw_rate),
}
BY_STEP = ("loss", "lr")  # drawn from steps.jsonl where a run has one


def _has_points(run: RunCurves, key: str) -> bool:
    return bool(run.points(key)[0] or (key in BY_STEP and run.points(key, by_step=True)[0]))


def curves_figure(runs: list[RunCurves], title: str, out: Path) -> Path:
    """One axes for each quantity that a run has, all runs in it, told apart by colour, dash and mark. PNG, PDF or
    SVG."""
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UltronError(f"one figure takes 1 to {MOST_RUNS} runs, found {len(runs)}; draw fewer")
    panels = [key for key in PANELS if any(_has_points(run, key) for run in runs)]
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
            draw(axes, run, look(i), max(1, len(run.points(key)[0]) // 12))
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


def _summary(run: RunCurves) -> str:
    """A run in the legend: its model and its last held-out mAP."""
    scores = run.points("validation_mAP", 100.0)[1]
    model = f" ({run.model})" if run.model else ""
    last = f", held-out mAP {scores[-1]:.1f} % at the end" if scores else ""
    return plots.shortened(f"{run.label}{model}{last}", 1000, plots.LABEL_PT)
