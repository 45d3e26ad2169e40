"""A genotype of high-order group attention as a picture of its graph: groups below their nodes, operations on the
edges."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from ultron_cli.models.attentions.genotype import N_NODES, OPERATIONS, Edge, Genotype
from ultron_cli.visualization import plots
from ultron_cli.visualization.plots import COLOURS

OPERATION_COLOURS: dict[str, str] = dict(
    zip(
        OPERATIONS,
        ("#b0b0b0", "#1a1a1a", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#D55E00", "#7a4a00"),
        strict=True,
    )
)
SPACING = 3.4  # between nodes, in the axes' units
GROUP_Y = -1.7  # the groups stand below their nodes
BEND = 0.42  # of edges that pass over other nodes, per unit of distance along the row


def _box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": colour, "linewidth": 1.8}
    axes.text(x, y, text, ha="center", va="center", fontsize=11, bbox=style, zorder=3)


def _edge(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str, colour: str, *, bent: bool
) -> None:
    """An arrow, bent upwards where it passes over nodes, its label halfway."""
    curve = -BEND if bent else 0.0
    gap = 15 if start[0] == end[0] else 24  # boxes are wider than high
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            color=colour,
            linewidth=1.8,
            zorder=1,
            connectionstyle=f"arc3,rad={curve}",
            arrowstyle="-|>",
            mutation_scale=14,
            shrinkA=gap,
            shrinkB=gap,
        )
    )
    # A quadratic curve is highest halfway, at half of its control point's distance from the chord.
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - curve * (end[0] - start[0]) / 2)
    plain = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    axes.text(*middle, label, ha="center", va="center", fontsize=9, color="#222222", bbox=plain, zorder=2)


def _labels(edges: Sequence[Edge], weights: Sequence[float] | None) -> dict[int, tuple[str, str]]:
    """Per input: the operations on it, one below the other, with their weights; and the colour of the first."""
    lines: dict[int, list[str]] = {}
    colours: dict[int, str] = {}
    for place, (operation, source) in enumerate(edges):
        weight = f" {weights[place]:.2f}" if weights is not None else ""
        lines.setdefault(source, []).append(operation.replace("_", " ") + weight)
        colours.setdefault(source, OPERATION_COLOURS[operation])
    return {source: ("\n".join(text), colours[source]) for source, text in lines.items()}


def genotype_figure(
    genotype: Genotype, title: str, out: Path, *, strengths: Sequence[Sequence[float]] | None = None
) -> Path:
    """Draws the graph of a genotype. Raises UltronError for another suffix than png, pdf, svg.

    strengths: per node, per edge, the weight in 0..1 that the search gave it, written beside the operation.
    """
    figure = plots.new_figure(13.5, 5.4, title)
    axes = figure.add_subplot()
    for number, edges in enumerate(genotype.nodes, start=1):
        x = number * SPACING
        _box(axes, x, GROUP_Y, f"group {number}", COLOURS[0])
        _box(axes, x, 0.0, f"node {number}", COLOURS[1])
        weights = strengths[number - 1] if strengths is not None else None
        for source, (label, colour) in _labels(edges, weights).items():
            start = (x, GROUP_Y) if source == 0 else (source * SPACING, 0.0)
            _edge(axes, start, (x, 0.0), label, colour, bent=source not in (0, number - 1))
    axes.text(SPACING / 2, 0.0, "sums of\ntheir edges", ha="center", va="center", fontsize=10, color="#555555")
    axes.text(SPACING / 2, GROUP_Y, "channels in\nfour groups", ha="center", va="center", fontsize=10, color="#555555")
    note = (
        "the nodes' outputs and SE(sum of the groups) are joined by 1x1, BN, ReLU, 1x1, BN; the map is added; an "
        "SE ends the attention"
    )
    axes.text((N_NODES + 1) * SPACING / 2, GROUP_Y - 0.9, note, ha="center", va="center", fontsize=9, color="#555555")
    axes.set_xlim(0.1, (N_NODES + 0.6) * SPACING)
    axes.set_ylim(GROUP_Y - 1.2, BEND * (N_NODES - 1) * SPACING / 2 + 0.6)
    axes.set_aspect("equal")
    axes.axis("off")
    return plots.save_figure(figure, out)
