"""The ground floor of figures of photos: a sheet of pixels with text and signs, its header, the colours of heat.

A Sheet is laid out in whole pixels from the top left. Photos and frames are copied into it unchanged, matplotlib (its
object interface, no pyplot) draws text and signs on top; the same input gives the same bytes, as PNG, PDF or SVG.
lettering.py makes text fit, tiles.py puts photos on a sheet, plots.py makes figures with axes. None of them imports a
model or torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.transforms import Affine2D
from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.stops import undisturbed
from ultron_cli.visualization.lettering import DPI, font_of, plain_text, wrap

Verdict = Literal["right", "wrong", "ignored", "unknown"]
Colour = tuple[int, int, int]

# Okabe and Ito's palette (Color Universal Design, 2008). Under simulated protanopia and deuteranopia (Machado et al.
# 2009) these three stay at least 37 apart in CIELAB; the signs say the same without any colour.
VERDICT_COLOURS: dict[str, Colour] = {
    "right": (0, 158, 115),
    "wrong": (213, 94, 0),
    "ignored": (86, 180, 233),
    "unknown": (190, 190, 190),
}
BOX_COLOUR: Colour = (240, 228, 66)
INK, QUIET_INK, LINE_GREY = "#1a1a1a", "#5c5c5c", (205, 205, 205)

TITLE_PX, BODY_PX, SMALL_PX = 20, 15, 13
MARGIN_PX, FRAME_PX = 24, 5
LABEL_HEIGHT_PX, LEGEND_HEIGHT_PX = 48, 34
MIN_WIDTH_PX, MAX_WIDTH_PX, MAX_HEIGHT_PX = 740, 4000, 20000
SUFFIXES = (".png", ".pdf", ".svg")
HEAT_OPACITY = (0.35, 0.75)  # where heat is 0, where it is 1: the photo stays readable, the colours rise in lightness
HEAT_BAR_PX = 16

# Strokes of each sign in a circle of radius 1, y upwards; drawn, because a font may lack the glyphs.
SIGN_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "right": [[(-0.48, 0.02), (-0.12, -0.36), (0.50, 0.38)]],
    "wrong": [[(-0.38, -0.38), (0.38, 0.38)], [(-0.38, 0.38), (0.38, -0.38)]],
    "ignored": [[(-0.5, 0.0), (0.5, 0.0)]],
}


@dataclass(frozen=True, kw_only=True)
class TextStyle:
    """How a line of text on a Sheet looks."""

    size_px: int = BODY_PX
    colour: str = INK
    bold: bool = False
    align: Literal["left", "center", "right"] = "left"  # of the line at the x it is drawn at


PLAIN = TextStyle()
BOLD = TextStyle(bold=True)
RIGHT_ALIGNED = TextStyle(align="right")
QUIET = TextStyle(colour=QUIET_INK)
SMALL_QUIET = TextStyle(size_px=SMALL_PX, colour=QUIET_INK)


def title_of(model: str, dataset: str, protocol: str | None = None) -> str:
    """`gem-resnet50 on roxford5k, hard protocol`."""
    return f"{model} on {dataset}" + (f", {protocol} protocol" if protocol else "")


class Sheet:
    """White paper of width_px x height_px; x to the right and y down, in pixels."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.pixels = np.full((height_px, width_px, 3), 255, np.uint8)
        # A hundredth of a pixel more, as 11.31 inches of 100 dpi may come out as 1130 whole pixels.
        self._figure = Figure(figsize=((width_px + 0.01) / DPI, (height_px + 0.01) / DPI), dpi=DPI)
        self._figure.patch.set_visible(False)
        self._canvas = FigureCanvasAgg(self._figure)
        # From pixels, y upwards; PDF and SVG are written at 72 dots per inch whatever the figure's DPI is.
        self._to_dots = Affine2D().scale(1 / DPI) + self._figure.dpi_scale_trans

    def fill(self, x: int, y: int, width_px: int, height_px: int, colour: Colour) -> None:
        """A filled rectangle."""
        self.pixels[y : y + height_px, x : x + width_px] = colour

    def paste(self, x: int, y: int, pixels: np.ndarray) -> None:
        """(h, w, 3) uint8, as it is."""
        self.pixels[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def frame(self, x: int, y: int, width_px: int, height_px: int, colour: Colour, line_px: int = FRAME_PX) -> None:
        """A frame just outside of a rectangle."""
        full_width_px = width_px + 2 * line_px
        full_height_px = height_px + 2 * line_px
        left = x - line_px
        top = y - line_px
        self.fill(left, top, full_width_px, line_px, colour)
        self.fill(left, y + height_px, full_width_px, line_px, colour)
        self.fill(left, top, line_px, full_height_px, colour)
        self.fill(x + width_px, top, line_px, full_height_px, colour)

    def text(self, x: float, y: float, text: str, style: TextStyle = PLAIN) -> None:
        """One line of plain text with its baseline at y."""
        self._text(x, y, text, style, ha=style.align, va="baseline", rotation=0)

    def upward_text(self, x: float, y: float, text: str, style: TextStyle = PLAIN) -> None:
        """One line of plain text turned to run upwards, its left edge at x and its middle at y."""
        self._text(x, y, text, style, ha="left", va="center", rotation=90)

    def _text(self, x: float, y: float, text: str, style: TextStyle, *, ha: str, va: str, rotation: int) -> None:
        self._figure.text(
            x,
            self.pixels.shape[0] - y,
            plain_text(text, style.bold),
            color=style.colour,
            ha=ha,
            va=va,
            rotation=rotation,
            fontproperties=font_of(style.bold),
            fontsize=style.size_px * 72 / DPI,
            parse_math=False,
            usetex=False,
            transform=self._to_dots,
        )

    def sign(self, x: float, y: float, verdict: Verdict, radius_px: float = 9.0) -> None:
        """A disc with a check mark, a cross or a dash, its centre at (x, y); nothing for `unknown`."""
        if verdict == "unknown":
            return
        up = self.pixels.shape[0] - y
        colour = "#{:02x}{:02x}{:02x}".format(*VERDICT_COLOURS[verdict])
        self._figure.add_artist(Circle((x, up), radius_px, facecolor=colour, edgecolor="none", transform=self._to_dots))
        for stroke in SIGN_STROKES[verdict]:
            line = Line2D(
                [x + dx * radius_px for dx, _ in stroke],
                [up + dy * radius_px for _, dy in stroke],
                color="white",
                linewidth=0.24 * radius_px * 72 / DPI,
                linestyle="-",
                marker="None",
                solid_capstyle="round",
                solid_joinstyle="round",
                transform=self._to_dots,
            )
            self._figure.add_artist(line)

    def arrow(
        self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False, line_px: float = 2.5
    ) -> None:
        """A line from a dot at the first point through the others with a head at the last, to which it comes straight
        down. Where it crosses what was drawn before, it passes over."""
        height_px = self.pixels.shape[0]
        x, y = points[-1]
        head_px = 3.2 * line_px
        for line_colour, width_px in (("white", line_px + 4), (colour, line_px)):
            line = Line2D(
                [point[0] for point in points],
                [*(height_px - point[1] for point in points[:-1]), height_px - y + head_px],
                color=line_colour,
                linewidth=width_px * 72 / DPI,
                linestyle=(0, (3.0, 1.6)) if dashed and line_colour == colour else "-",
                marker="None",
                solid_joinstyle="round",
                solid_capstyle="butt",
                transform=self._to_dots,
            )
            self._figure.add_artist(line)
        start = (points[0][0], height_px - points[0][1])
        self._figure.add_artist(
            Circle(start, 1.6 * line_px, facecolor=colour, edgecolor="none", transform=self._to_dots)
        )
        up = height_px - y
        corners = [(x, up), (x - head_px * 0.6, up + head_px), (x + head_px * 0.6, up + head_px)]
        self._figure.add_artist(
            Polygon(corners, closed=True, facecolor=colour, edgecolor="none", transform=self._to_dots)
        )

    def ring(self, x: float, y: float, radius_px: float = 11.0) -> None:
        """A ring around (x, y), light on dark, to be seen on any photo."""
        for colour, line_px in (("black", 6.0), ("white", 2.6)):
            self._figure.add_artist(
                Circle(
                    (x, self.pixels.shape[0] - y),
                    radius_px,
                    fill=False,
                    edgecolor=colour,
                    linewidth=line_px * 72 / DPI,
                    transform=self._to_dots,
                )
            )

    def save(self, path: Path) -> None:
        """Writes the sheet as PNG, or as PDF or SVG with its text as text; whole or not at all. Raises UltronError for
        another suffix or where it cannot be written."""
        check_suffix(path)
        if path.suffix.lower() != ".png":
            image = self._figure.figimage(self.pixels, origin="upper", zorder=-1)
            write_figure(self._figure, path)
            image.remove()
            return
        self._canvas.draw()
        ink = np.asarray(self._canvas.buffer_rgba())
        has_ink = ink[..., 3] > 0
        opacity = ink[has_ink][:, 3:] / 255.0
        pixels = self.pixels.copy()
        pixels[has_ink] = (pixels[has_ink] * (1 - opacity) + ink[has_ink][:, :3] * opacity).round().astype(np.uint8)
        save_png(path, pixels)


def check_suffix(out: Path) -> None:
    """Raises UltronError unless a figure can be written under this name."""
    if out.suffix.lower() not in SUFFIXES:
        raise UltronError(
            f"{out}: a figure is written as {', '.join(SUFFIXES)}, found {out.suffix or 'no suffix'}; name the file so"
        )


def write_figure(figure: Figure, out: Path) -> None:
    """Writes a figure as PNG, PDF or SVG, the same bytes each time, whole or not at all."""
    kind = out.suffix[1:].lower()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with whole_file(out) as temporary, undisturbed(), matplotlib.rc_context({"svg.hashsalt": "ultron"}):
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as PNG, whole or not at all. Raises UltronError for another suffix or where it cannot be
    written."""
    if path.suffix.lower() != ".png":
        raise UltronError(f"pictures of pixels are PNG files; found {path.name!r}; name one that ends in .png")
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", dpi=(DPI, DPI))


def check_size(width_px: int, height_px: int, advice: str) -> None:
    """Raises UltronError with `advice` where a figure would be larger than figures may be."""
    if width_px > MAX_WIDTH_PX or height_px > MAX_HEIGHT_PX:
        raise UltronError(
            f"the figure would have {width_px} x {height_px} px, at most {MAX_WIDTH_PX} x {MAX_HEIGHT_PX} is "
            f"drawn; {advice}"
        )


@dataclass(frozen=True)
class Header:
    """Title and a note below it, broken into lines for the width of a sheet."""

    title: list[str]  # lines, at most 3
    note: list[str]  # lines, at most 3

    @classmethod
    def of(cls, title: str, note: str, sheet_width_px: int) -> "Header":
        """Breaks both for a sheet of this width."""
        room_px = sheet_width_px - 2 * MARGIN_PX
        return cls(wrap(title, room_px, TITLE_PX, n_lines=3, bold=True), wrap(note, room_px, BODY_PX, n_lines=3))

    @property
    def height_px(self) -> int:
        """From the top of the sheet to where the content may begin."""
        return MARGIN_PX + 28 * len(self.title) + 21 * len(self.note) + 12

    def lines(self) -> Iterator[tuple[int, int, str, TextStyle]]:
        """(x, y of the baseline, text, style) of each line, from the top left, in pixels."""
        y = MARGIN_PX - 9
        for line in self.title:
            y += 28
            yield MARGIN_PX, y, line, TextStyle(size_px=TITLE_PX, bold=True)
        for line in self.note:
            y += 21
            yield MARGIN_PX, y + 3, line, QUIET

    def draw(self, sheet: Sheet) -> None:
        """Draws it at the top of the sheet."""
        for x, y, line, style in self.lines():
            sheet.text(x, y, line, style)


def overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the photo in grey under the colours of heat (H, W), 0..1; grey, so that every colour is the
    heat's.

    The colours are inferno: even steps in perception, rising in lightness, safe for colour-blind readers.
    """
    if photo.shape[:2] != heat.shape:
        raise ValueError(f"photo and heat must be of one size, found {photo.shape[:2]} and {heat.shape}")
    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float64)[..., None]
    opacity = (HEAT_OPACITY[0] + (HEAT_OPACITY[1] - HEAT_OPACITY[0]) * heat)[..., None]
    return (grey * (1 - opacity) + colormaps["inferno"](heat)[..., :3] * 255.0 * opacity).round().astype(np.uint8)


def write_overlay(path: Path, photo: np.ndarray, heat: np.ndarray) -> None:
    """Writes overlay(photo, heat) as PNG at the photo's size. Raises UltronError for another suffix."""
    save_png(path, overlay(photo, heat))


def draw_heat_bar(
    sheet: Sheet, x: int, y: int, height_px: int, *, low: float = 0.0, high: float = 1.0, label: str = "relative weight"
) -> None:
    """A bar of the colours of heat, `low` below and `high` above, with its label."""
    values = np.linspace(1.0, 0.0, height_px)[:, None].repeat(HEAT_BAR_PX, axis=1)
    sheet.paste(x, y, overlay(np.full((height_px, HEAT_BAR_PX, 3), 128, np.uint8), values))
    for value in (0.0, 0.5, 1.0):
        level = y + round((1 - value) * (height_px - 1))
        sheet.fill(x + HEAT_BAR_PX, level, 4, 1, (90, 90, 90))
        sheet.text(x + 24, level + 5, f"{round(low + value * (high - low), 2):g}", SMALL_QUIET)
    sheet.upward_text(x + 58, y + height_px / 2, label, SMALL_QUIET)
