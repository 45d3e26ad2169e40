"""mAP against what a search costs: time per query in one panel, memory per photo in the other, and in each the line of
the systems that none is both better and cheaper than (Pareto front)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ultron_cli.console import counted
from ultron_cli.visualization import drawing, lettering, plots
from ultron_cli.visualization.plots import COLOURS

FRONT_COLOUR, POINT_COLOUR = COLOURS[1], COLOURS[0]
MOST_NAMED = 14  # members of the fronts that the legend names
LEAST_SPAN = 1.25  # of an axis of costs, as a factor


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """One system."""

    letter: str
    label: str
    mAP: float  # 0..1
    interval: tuple[float, float]  # 95 %, 0..1
    ms_per_query: float
    bytes_per_photo: float


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, score) that no other point beats in one and equals in the other, by cost."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    members: list[int] = []
    for i in order:
        if not members or points[i][1] > points[members[-1]][1]:
            members.append(i)
    return members


def pareto_figure(points: Sequence[ParetoPoint], protocol: str, title: str, out: Path) -> Path:
    """Two panels of mAP over a cost (logarithmic). Points have the letters of their systems where there is room; the
    legend names those of the fronts. PNG, PDF or SVG."""
    note = f"{protocol}; bar: 95 % interval; line: systems that none beats in mAP and in cost"
    costs = (
        ("ms per query", [point.ms_per_query for point in points]),
        ("bytes per photo", [point.bytes_per_photo for point in points]),
    )
    fronts = [front([(cost, point.mAP) for cost, point in zip(values, points, strict=True)]) for _, values in costs]
    members = sorted(set().union(*fronts))
    figure = plots.new_figure(11.0, 5.0 + 0.25 * min(len(members), MOST_NAMED + 1), title, note)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, values), places in zip(panels, costs, fronts, strict=True):
        _draw_panel(axes, points, values, places)
        axes.set_xlabel(name, fontsize=plots.LABEL_PT)
    panels[0].set_ylabel("mAP (%)", fontsize=plots.LABEL_PT)
    labels = [f"{points[i].letter}  {points[i].label}" for i in members[:MOST_NAMED]]
    if len(members) > MOST_NAMED:
        labels.append(f"and {counted(len(members) - MOST_NAMED, 'system')} more on a line")
    handles = [
        Line2D([], [], color=FRONT_COLOUR, marker="o", linestyle="", label=plots.shortened(label, 800, plots.LABEL_PT))
        for label in labels
    ]
    plots.legend_below_header(figure, handles, most_columns=2)
    figure.draw_without_rendering()  # where points come to lie
    for axes, (_, values), places in zip(panels, costs, fronts, strict=True):
        _write_letters(axes, points, values, places)
    return plots.save_figure(figure, out)


def _draw_panel(axes: Axes, points: Sequence[ParetoPoint], values: Sequence[float], places: Sequence[int]) -> None:
    scores = [100 * point.mAP for point in points]
    below = [max(0.0, 100 * (point.mAP - point.interval[0])) for point in points]
    above = [max(0.0, 100 * (point.interval[1] - point.mAP)) for point in points]
    axes.errorbar(values, scores, yerr=[below, above], fmt="none", ecolor=plots.GRID_COLOUR, elinewidth=1.4, zorder=1)
    axes.plot(values, scores, "o", color=POINT_COLOUR, markersize=5, zorder=3)
    on_front = [(values[i], scores[i]) for i in places]
    axes.step(*zip(*on_front, strict=True), where="post", color=FRONT_COLOUR, linewidth=1.6, zorder=2)
    axes.plot(*zip(*on_front, strict=True), "o", color=FRONT_COLOUR, markersize=6.5, zorder=4)
    axes.set_xscale("log")
    low, high = min(values), max(values)
    if high / low < LEAST_SPAN:
        axes.set_xlim(low / LEAST_SPAN, high * LEAST_SPAN)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both")


def _write_letters(axes: Axes, points: Sequence[ParetoPoint], values: Sequence[float], places: Sequence[int]) -> None:
    """Letters above their points, those of the front first, where they cover no other letter and no point."""
    at = [axes.transData.transform((value, 100 * point.mAP)) for value, point in zip(values, points, strict=True)]
    occupied = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    height_px = plots.SMALL_PT * drawing.DPI / 72
    for i in [*places, *(i for i in range(len(points)) if i not in places)]:
        width_px = lettering.text_width_px(points[i].letter, round(height_px))
        for dx, dy in ((0.0, 6.0), (0.0, -6.0 - height_px), (9.0, -height_px / 2), (-9.0 - width_px, -height_px / 2)):
            left, bottom = at[i][0] + dx - (width_px / 2 if dx == 0 else 0), at[i][1] + dy
            span = (left, bottom, left + width_px, bottom + height_px)
            if any(span[0] < b[2] and b[0] < span[2] and span[1] < b[3] and b[1] < span[3] for b in occupied):
                continue
            occupied.append(span)
            axes.annotate(
                points[i].letter,
                (values[i], 100 * points[i].mAP),
                textcoords="offset points",
                xytext=((left - at[i][0]) * 72 / drawing.DPI, dy * 72 / drawing.DPI),
                fontsize=plots.SMALL_PT,
                color=FRONT_COLOUR if i in places else drawing.INK,
            )
            break
