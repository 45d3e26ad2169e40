"""Bars with spread of an ablation: per metric a panel, per setting a bar of the mean over seeds, groups apart, every
seed as a dot.

A table of measurements is a CSV in UTF-8 whose first line names the columns group, setting, seed, metric and value, in
any order: one line per measurement, value a fraction from 0 to 1, group may be empty. `examples/ablations.py` writes
one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ultron_cli.errors import UltronError
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.values import shown
from ultron_cli.visualization import drawing, plots
from ultron_cli.visualization.plots import COLOURS

COLUMNS = ("group", "setting", "seed", "metric", "value")
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo")
MOST_SETTINGS, MOST_METRICS = 60, 6
GROUP_GAP, NAME_PX = 0.7, 330


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One line of the table."""

    group: str  # may be empty
    setting: str
    seed: str
    metric: str
    value: float  # 0..1


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One setting under one metric."""

    group: str
    setting: str
    metric: str
    values: list[float]  # 0..1, in the seeds' order

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1) over seeds; None for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def read_measurements(path: Path) -> list[Measurement]:
    """The lines of a table. Raises UltronError, naming the line, for a column that is missing, a value that is none, or
    a repeated line."""
    measurements: dict[tuple[str, str, str, str], Measurement] = {}
    for number, cells in csv_rows(path, "table", required=[COLUMNS], if_unreadable="make it again"):
        where = f"{path}, line {number}"
        try:
            value = float(cells["value"])
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UltronError(
                f"{where}: value must be a fraction from 0 to 1 (0.623, not 62.3); found {shown(cells['value'])}"
            )
        if not cells["setting"] or not cells["metric"]:
            raise UltronError(f"{where}: setting and metric must not be empty; correct the line")
        key = (cells["group"], cells["setting"], cells["seed"], cells["metric"])
        if key in measurements:
            raise UltronError(
                f"{where}: {cells['setting']!r}, seed {cells['seed']}, {cells['metric']} stands there twice; leave one"
            )
        group, setting, seed, metric = key
        measurements[key] = Measurement(group=group, setting=setting, seed=seed, metric=metric, value=value)
    if not measurements:
        raise UltronError(f"{path} holds no measurement; write one line per setting, seed and metric")
    return list(measurements.values())


def bars_of(measurements: Sequence[Measurement]) -> list[Bar]:
    """A bar per group, setting and metric, in the order of the table."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for measurement in measurements:
        key = (measurement.group, measurement.setting, measurement.metric)
        values.setdefault(key, []).append(measurement.value)
    return [
        Bar(group=group, setting=setting, metric=metric, values=bar_values)
        for (group, setting, metric), bar_values in values.items()
    ]


def _places(settings: Sequence[tuple[str, str]]) -> list[float]:
    """Where each bar stands, downwards from 0: groups apart."""
    places = []
    y = 0.0
    for i, (group, _) in enumerate(settings):
        if i > 0:
            y += 1.0 if group == settings[i - 1][0] else 1.0 + GROUP_GAP
        places.append(y)
    return places


def _draw_bars(axes: Axes, bars: Sequence[Bar], places: Sequence[float], group_numbers: dict[str, int]) -> None:
    """One metric: bars, whiskers of one standard deviation, a dot per seed, the mean written behind."""
    ends = []
    for bar, y in zip(bars, places, strict=True):
        number = group_numbers[bar.group]
        axes.barh(
            y,
            100 * bar.mean,
            height=0.66,
            color=COLOURS[number % len(COLOURS)],
            alpha=0.75,
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
            zorder=2,
        )
        if bar.spread is not None:
            axes.errorbar(100 * bar.mean, y, xerr=100 * bar.spread, color="#1a1a1a", capsize=4, linewidth=1.6, zorder=4)
        offsets = np.linspace(-0.2, 0.2, len(bar.values)) if len(bar.values) > 1 else np.zeros(1)
        axes.plot(
            [100 * value for value in bar.values],
            y + offsets,
            "o",
            color="white",
            markeredgecolor="#1a1a1a",
            markersize=4.5,
            zorder=5,
        )
        ends.append(100 * max(bar.mean + (bar.spread or 0.0), *bar.values, 0.0))
        text = f"{100 * bar.mean:.1f}" + (f" \u00b1 {100 * bar.spread:.1f}" if bar.spread is not None else "")
        axes.annotate(
            text, (ends[-1], y), textcoords="offset points", xytext=(7, 0), va="center", fontsize=plots.SMALL_PT
        )
    axes.set_xlim(0, max(1.32 * max(ends), 1.0))
    axes.grid(axis="x", alpha=0.3, zorder=0)
    axes.set_axisbelow(True)


def ablation_figure(measurements: Sequence[Measurement], title: str, out: Path) -> Path:
    """A panel per metric, a bar per setting: the mean over seeds, whiskers of one standard deviation, a dot per seed.
    PNG, PDF or SVG.

    Raises UltronError for too many settings or metrics, or a setting that lacks a metric.
    """
    bars = bars_of(measurements)
    settings = list(dict.fromkeys((bar.group, bar.setting) for bar in bars))
    groups = list(dict.fromkeys(group for group, _ in settings))
    # A group's settings together, else in the order of the table.
    settings.sort(key=lambda setting: groups.index(setting[0]))
    metrics = list(dict.fromkeys(bar.metric for bar in bars))
    if len(settings) > MOST_SETTINGS or len(metrics) > MOST_METRICS:
        raise UltronError(
            f"one figure takes up to {MOST_SETTINGS} settings and {MOST_METRICS} metrics, found "
            f"{len(settings)} and {len(metrics)}; draw fewer"
        )
    bar_of = {(bar.group, bar.setting, bar.metric): bar for bar in bars}
    for group, setting in settings:
        for metric in metrics:
            if (group, setting, metric) not in bar_of:
                raise UltronError(
                    f"setting {setting!r} has no {metric}; measure every setting by every metric, or leave the "
                    "metric out"
                )
    places = _places(settings)
    group_numbers = {group: i for i, group in enumerate(groups)}
    named = len(groups) > 1 or groups[0] != ""
    height_inches = 1.6 + 0.36 * (places[-1] + 1) + (0.32 * len(groups) if named else 0.0)
    figure = plots.new_figure(3.6 + 3.3 * len(metrics), height_inches, title)
    grid = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axes, metric in zip(grid, metrics, strict=True):
        _draw_bars(axes, [bar_of[group, setting, metric] for group, setting in settings], places, group_numbers)
        axes.set_xlabel(f"{plots.text(metric)} (%)", fontsize=plots.LABEL_PT)
    grid[0].set_yticks(
        places, [plots.shortened(setting, NAME_PX, plots.LABEL_PT) for _, setting in settings], fontsize=plots.LABEL_PT
    )
    grid[0].set_ylim(places[-1] + 0.6, -0.6 - (0.55 if named else 0.0))
    if named:
        for i, (group, _) in enumerate(settings):
            if i == 0 or group != settings[i - 1][0]:
                grid[0].annotate(
                    plots.shortened(group, 2 * NAME_PX, plots.LABEL_PT),
                    (0.0, places[i] - 0.68),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    xytext=(3, 0),
                    fontsize=plots.LABEL_PT,
                    fontweight="bold",
                    va="center",
                )
    seed_counts = {len(bar.values) for bar in bars}
    fewest, most = min(seed_counts), max(seed_counts)
    n_seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    plural = "" if most == 1 else "s"
    note = f"bar: mean over {n_seeds} seed{plural}; whisker: one standard deviation; dot: one seed"
    figure.supxlabel(note, fontsize=plots.SMALL_PT, color=drawing.QUIET_INK)
    return plots.save_figure(figure, out)
