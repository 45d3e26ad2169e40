"""mAP of several systems over the severity of what is done to the query photos: a panel per kind of corruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from ultron_cli.errors import UltronError
from ultron_cli.visualization import plots
from ultron_cli.visualization.plots import MOST_LINES, look

PANELS_PER_ROW = 4
MOST_SEVERE = 5


@dataclass(frozen=True, kw_only=True)
class Score:
    """A mAP with its 95 % interval, as fractions."""

    mAP: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RobustnessCurve:
    """One system under one kind of corruption."""

    system: str
    kind: str
    scores: Mapping[int, Score]  # by severity; 0 are plain photos


def robustness_figure(curves: Sequence[RobustnessCurve], protocol: str, title: str, out: Path) -> Path:
    """A panel per kind, a line per system, its interval as a band. PNG, PDF or SVG. Raises UltronError for more systems
    than lines can be told apart."""
    systems = list(dict.fromkeys(curve.system for curve in curves))
    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    if len(systems) > MOST_LINES:
        raise UltronError(f"one figure takes up to {MOST_LINES} systems; found {len(systems)}; draw fewer")
    n_columns = min(PANELS_PER_ROW, len(kinds))
    n_rows = -(-len(kinds) // n_columns)
    note = f"{protocol}; band: 95 % interval; queries alone are corrupted, the database is not"
    figure = plots.new_figure(max(6.0, 2.9 * n_columns), 2.7 * n_rows + 0.3 * len(systems) + 0.4, title, note)
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, kind in zip(panels, kinds, strict=False):
        for i, system in enumerate(systems):
            for curve in curves:
                if (curve.system, curve.kind) == (system, kind):
                    _draw_curve(axes, curve, i)
        axes.set_title(plots.text(kind), fontsize=plots.LABEL_PT)
        axes.set_xticks(range(MOST_SEVERE + 1))
        axes.grid(visible=True)
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(kinds) - n_columns) : len(kinds)]:
        axes.set_xlabel("severity", fontsize=plots.LABEL_PT)
        axes.tick_params(labelbottom=True)
    for axes in panels[::n_columns]:
        axes.set_ylabel("mAP (%)", fontsize=plots.LABEL_PT)
    panels[0].set_ylim(0, None)
    plots.legend_below_header(figure, panels[0].get_legend_handles_labels()[0], most_columns=3)
    return plots.save_figure(figure, out)


def _draw_curve(axes: Axes, curve: RobustnessCurve, i: int) -> None:
    severities = sorted(curve.scores)
    scores = [curve.scores[severity] for severity in severities]
    low, high = ([100 * score.interval[side] for score in scores] for side in (0, 1))
    axes.fill_between(severities, low, high, color=look(i)["color"], alpha=0.12, linewidth=0)
    label = plots.shortened(curve.system, 300, plots.LABEL_PT)
    axes.plot(severities, [100 * score.mAP for score in scores], **look(i), label=label)
