"""The ground floor of figures with axes: made, labelled, coloured and written alike, as PNG, PDF or SVG.

Figures of photos on a sheet are made by drawing.py. Neither imports a model or torch.
"""

from pathlib import Path
from typing import Literal, TypedDict

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.visualization import drawing

SUFFIXES = (".png", ".pdf", ".svg")
# Paul Tol's "bright" colours, safe for colour-blind readers.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#1a1a1a")
STYLES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_LINES = 14  # that look() tells apart
TITLE_PT, LABEL_PT, SMALL_PT = 13.0, 10.5, 9.0  # at drawing.DPI, 9 points are 12.5 px


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


def check_suffix(out: Path) -> None:
    """Raises UltronError unless a figure can be written under this name."""
    if out.suffix.lower() not in SUFFIXES:
        raise UltronError(
            f"{out}: a figure is written as {', '.join(SUFFIXES)}, found {out.suffix or 'no suffix'}; name the file so"
        )


def text(words: str) -> str:
    """Words as matplotlib is to draw them: what no font has becomes a square, dollar signs are no formulas."""
    return drawing.plain_text(words).replace("$", r"\$")


def shortened(words: str, width_px: float, size_pt: float = SMALL_PT) -> str:
    """text(words), its middle left out where it is wider than width_px."""
    return text(drawing.shorten_middle(words, width_px, round(size_pt * drawing.DPI / 72)))


def new_figure(width_inches: float, height_inches: float, title: str) -> Figure:
    """A figure with its title, to be filled and saved."""
    if height_inches * drawing.DPI > drawing.MAX_HEIGHT_PX or width_inches * drawing.DPI > drawing.MAX_WIDTH_PX:
        raise UltronError(
            f"the figure would be {width_inches:.0f} x {height_inches:.0f} inches; draw fewer photos, runs or layers"
        )
    figure = Figure(figsize=(width_inches, height_inches), dpi=drawing.DPI, layout="constrained")
    FigureCanvasAgg(figure)
    room_px = width_inches * drawing.DPI - 2 * drawing.MARGIN_PX
    lines = drawing.wrap(title, room_px, round(TITLE_PT * drawing.DPI / 72), n_lines=3)
    figure.suptitle("\n".join(text(line) for line in lines), fontsize=TITLE_PT)
    return figure


def save_figure(figure: Figure, out: Path) -> Path:
    """Writes a figure as PNG, PDF or SVG, the same bytes each time. Raises UltronError for another suffix."""
    check_suffix(out)
    kind = out.suffix[1:].lower()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    for artist in figure.findobj(Text):  # a name may be no text, and the font engine then refuses to draw
        artist.set_text("\n".join(drawing.plain_text(line) for line in artist.get_text().split("\n")))
    with whole_file(out) as output, matplotlib.rc_context({"svg.hashsalt": "ultron"}):
        figure.savefig(output, format=kind, dpi=drawing.DPI, metadata=metadata)
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
