"""The ground floor of figures with axes: made, labelled, coloured and written alike, as PNG, PDF or SVG.

Figures of photos on a sheet are made by drawing.py, whose header, fonts and colours these have as well: new_figure
draws the header, legend_below_header the legend, and save_figure dresses all axes. Neither module imports a model or
torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, lettering
from ultron_cli.visualization.drawing import check_suffix, write_figure

# Okabe and Ito's palette, as the verdicts' colours in drawing.py are.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1a1a1a")
STYLES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_LINES = 14  # that look() tells apart
LABEL_PT, SMALL_PT = 10.5, 9.0  # at drawing.DPI, 9 points are 12.5 px
LABEL_PX = round(LABEL_PT * drawing.DPI / 72)
LEGEND_GAP_PX, LEGEND_MARK_PX = 10, 62  # between the legend and the axes; what a legend's column has beside its words
AXIS_COLOUR, GRID_COLOUR = "#8a8a8a", "#e4e4e4"


class Look(TypedDict):
    """How a line is drawn, as keyword arguments of matplotlib."""

    color: str
    linestyle: Literal["-", "--", "-.", ":"]
    marker: str
    markersize: float
    linewidth: float


def look(i: int) -> Look:
    """Colour, dash and mark of the i-th line; no two of MOST_LINES are alike."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        # There are 7 colours and 4 dashes: 2 more for each round of colours make the second round's dashes others.
        "linestyle": STYLES[(i + 2 * (i // len(COLOURS))) % len(STYLES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 5,
        "linewidth": 1.8,
    }


def text(words: str) -> str:
    """Words as matplotlib is to draw them: what no font has is spelt, dollar signs are no formulas."""
    return lettering.plain_text(words).replace("$", r"\$")


def shortened(words: str, width_px: float, size_pt: float = SMALL_PT) -> str:
    """text(words), its middle left out where it is wider than width_px."""
    return text(lettering.shorten_middle(words, width_px, round(size_pt * drawing.DPI / 72)))


def new_figure(width_inches: float, height_inches: float, title: str, note: str = "") -> Figure:
    """A figure with the header of a sheet above width_inches x height_inches for its axes and legend."""
    width_px = round(width_inches * drawing.DPI)
    header = drawing.Header.of(title, note, width_px)
    height_px = header.height_px + round(height_inches * drawing.DPI)
    if height_px > drawing.MAX_HEIGHT_PX or width_px > drawing.MAX_WIDTH_PX:
        raise UltronError(
            f"the figure would be {width_inches:.0f} x {height_px / drawing.DPI:.0f} inches; draw fewer photos, runs "
            "or layers"
        )
    figure = Figure(figsize=(width_px / drawing.DPI, height_px / drawing.DPI), dpi=drawing.DPI, layout="constrained")
    FigureCanvasAgg(figure)
    margin_x, margin_y = drawing.MARGIN_PX / width_px, drawing.MARGIN_PX / height_px
    top = 1 - header.height_px / height_px
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(margin_x, 0.7 * margin_y, 1 - 2 * margin_x, top - 0.7 * margin_y))
    for x, y, line, style in header.lines():
        figure.text(
            x / width_px,
            1 - y / height_px,
            text(line),
            color=style.colour,
            fontsize=style.size_px * 72 / drawing.DPI,
            fontweight="bold" if style.bold else "normal",
            va="baseline",
            in_layout=False,
        )
    return figure


def frame_mark(colour: str, words: str) -> Patch:
    """An entry of a legend for frames of a colour on a photo, which have a thin dark line around them."""
    return Patch(facecolor=colour, edgecolor=drawing.INK, linewidth=1.0, label=words)


def legend_below_header(figure: Figure, handles: Sequence[Artist], most_columns: int = 1) -> None:
    """The figure's legend, where a sheet has it: below the header, at the left margin, in as many columns as fit."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)  # of new_figure
    left, bottom, width, height = engine.get()["rect"]
    room_px = width * figure.get_figwidth() * drawing.DPI
    label_px = max(lettering.text_width_px(str(handle.get_label()), LABEL_PX) for handle in handles)
    n_columns = max(1, min(most_columns, len(handles), int(room_px / (label_px + LEGEND_MARK_PX))))
    legend = figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(left, bottom + height),
        borderaxespad=0.0,
        borderpad=0.0,
        columnspacing=1.4,
        ncols=n_columns,
        frameon=False,
        fontsize=LABEL_PT,
    )
    legend_px = legend.get_window_extent().height + LEGEND_GAP_PX
    engine.set(rect=(left, bottom, width, height - legend_px / (figure.get_figheight() * drawing.DPI)))


def _settle(figure: Figure) -> None:
    """Lays the figure out, and rounds where its axes are: the last digits of the solver differ from run to run, and SVG
    makes names of them."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
        for part in figure.subfigs:
            part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 6))
        for axes in figure.axes:
            left, bottom, width, height = axes.get_position(original=True).bounds
            axes.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def _dress(figure: Figure) -> None:
    """Gives every axes of a figure the look of the house: fonts with fallbacks, headings at the left, quiet axes."""
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        heading = axes.get_title()
        if heading:
            size_pt = axes.title.get_fontsize()
            axes.set_title("")
            axes.set_title(heading, loc="left", fontsize=size_pt, fontweight="bold", color=drawing.INK)
        holds_photo = bool(axes.images)
        for side, spine in axes.spines.items():
            spine.set_color(AXIS_COLOUR)
            if side in ("top", "right") and not holds_photo:
                spine.set_visible(False)
        axes.tick_params(
            which="both", color=AXIS_COLOUR, labelcolor=drawing.QUIET_INK, grid_color=GRID_COLOUR, grid_linewidth=0.8
        )
        axes.set_axisbelow(True)
    for words in figure.findobj(Text):
        assert isinstance(words, Text)
        words.set_fontfamily(lettering.font_families())


def save_figure(figure: Figure, out: Path) -> Path:
    """Writes a figure as PNG, PDF or SVG, the same bytes each time. Raises UltronError for another suffix."""
    check_suffix(out)
    for artist in figure.findobj(Text):  # a name may be no text, and the font engine then refuses to draw
        artist.set_text("\n".join(lettering.plain_text(line) for line in artist.get_text().split("\n")))
    _dress(figure)
    _settle(figure)
    write_figure(figure, out)
    return out


def heat_colours() -> ListedColormap:
    """The colours of drawing.overlay on a middle grey, for the bar beside overlays."""
    return ListedColormap(
        drawing.overlay(np.full((256, 1, 3), 128, np.uint8), np.linspace(0.0, 1.0, 256)[:, None])[:, 0] / 255.0
    )


def enlarged(values: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(h, w) float32 -> (height_px, width_px), bilinear."""
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((width_px, height_px), Image.Resampling.BILINEAR)
    )


def no_ticks(axes: Axes) -> None:
    """For axes that hold a photo."""
    axes.set_xticks([])
    axes.set_yticks([])
