"""The ground floor of figures of photos: a sheet of pixels written as PNG, text that fits, signs, the colours of heat.

A Sheet is laid out in whole pixels from the top left. Photos and frames are copied into it unchanged, matplotlib (its
object interface, no pyplot) draws text and signs on top; the same input gives the same bytes. tiles.py puts photos on a
sheet, plots.py makes figures with axes. Neither this module nor plots.py imports a model or torch.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.transforms import IdentityTransform
from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file

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
DPI = 100  # text sizes are given in pixels, so it only tells a viewer the size in print
HEAT_OPACITY = (0.35, 0.75)  # where heat is 0, where it is 1: the photo stays readable, the colours rise in lightness
HEAT_BAR_PX = 16

# Strokes of each sign in a circle of radius 1, y upwards; drawn, because a font may lack the glyphs.
SIGN_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "right": [[(-0.48, 0.02), (-0.12, -0.36), (0.50, 0.38)]],
    "wrong": [[(-0.38, -0.38), (0.38, 0.38)], [(-0.38, 0.38), (0.38, -0.38)]],
    "ignored": [[(-0.5, 0.0), (0.5, 0.0)]],
}
# Used, where installed, for characters that DejaVu Sans (which comes with matplotlib) lacks.
FALLBACK_FAMILIES = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
)


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


@lru_cache(maxsize=4)
def _font(bold: bool) -> font_manager.FontProperties:
    """DejaVu Sans with the fallbacks that are installed, whatever the user's matplotlibrc says."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(family for family in FALLBACK_FAMILIES if family in installed)]
    return font_manager.FontProperties(family=families, weight="bold" if bold else "normal")


@lru_cache(maxsize=4096)
def _can_draw(character: str, bold: bool) -> bool:
    font = _font(bold)
    for family in font.get_family():
        path = font_manager.findfont(font_manager.FontProperties(family=family, weight=font.get_weight()))
        if font_manager.get_font(path).get_char_index(ord(character)):
            return True
    return False


def plain_text(text: str, bold: bool = False) -> str:
    """The text on one line; control characters become spaces, characters that no font has (or is no text) become
    squares."""
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return "".join(c if unicodedata.category(c)[0] != "C" and _can_draw(c, bold) else "\u25a1" for c in spaced)


def text_width_px(text: str, size_px: int, *, bold: bool = False) -> float:
    """Width of one line of text as it will be drawn."""
    font = _font(bold).copy()
    font.set_size(size_px * 72 / DPI)
    return RendererAgg(8, 8, DPI).get_text_width_height_descent(plain_text(text, bold), font, ismath=False)[0]


def shorten_middle(text: str, width_px: float, size_px: int, *, bold: bool = False) -> str:
    """The text, or as much of its two ends as fits into width_px with an ellipsis between."""
    if text_width_px(text, size_px, bold=bold) <= width_px:
        return text

    def ends(n_characters: int) -> str:
        return text[: (n_characters + 1) // 2] + "\u2026" + text[len(text) - n_characters // 2 :]

    n_fitting = 0
    n_too_many = min(len(text), int(width_px))  # no character is drawn narrower than a pixel
    while n_too_many - n_fitting > 1:
        n = (n_fitting + n_too_many) // 2
        if text_width_px(ends(n), size_px, bold=bold) <= width_px:
            n_fitting = n
        else:
            n_too_many = n
    return ends(n_fitting)


def wrap(text: str, width_px: float, size_px: int, *, n_lines: int, bold: bool = False) -> list[str]:
    """The text in at most n_lines lines of at most width_px, broken at spaces; words too long are shortened, as is a
    last line."""
    lines: list[str] = []
    words = plain_text(text, bold).split()
    while words:
        line = words.pop(0)
        last = len(lines) == n_lines - 1
        while words and (last or text_width_px(f"{line} {words[0]}", size_px, bold=bold) <= width_px):
            line += f" {words.pop(0)}"
        lines.append(shorten_middle(line, width_px, size_px, bold=bold))
    return lines


class Sheet:
    """White paper of width_px x height_px; x to the right and y down, in pixels."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.pixels = np.full((height_px, width_px, 3), 255, np.uint8)
        # A hundredth of a pixel more, as 11.31 inches of 100 dpi may come out as 1130 whole pixels.
        self._figure = Figure(figsize=((width_px + 0.01) / DPI, (height_px + 0.01) / DPI), dpi=DPI)
        self._figure.patch.set_visible(False)
        self._canvas = FigureCanvasAgg(self._figure)

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
            fontproperties=_font(style.bold),
            fontsize=style.size_px * 72 / DPI,
            parse_math=False,
            usetex=False,
            transform=IdentityTransform(),
        )

    def sign(self, x: float, y: float, verdict: Verdict, radius_px: float = 9.0) -> None:
        """A disc with a check mark, a cross or a dash, its centre at (x, y); nothing for `unknown`."""
        if verdict == "unknown":
            return
        up = self.pixels.shape[0] - y
        colour = "#{:02x}{:02x}{:02x}".format(*VERDICT_COLOURS[verdict])
        self._figure.add_artist(
            Circle((x, up), radius_px, facecolor=colour, edgecolor="none", transform=IdentityTransform())
        )
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
                transform=IdentityTransform(),
            )
            self._figure.add_artist(line)

    def arrow(
        self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False, line_px: float = 2.5
    ) -> None:
        """A line through the points with a head at the last, to which it comes straight down."""
        height_px = self.pixels.shape[0]
        x, y = points[-1]
        head_px = 3.2 * line_px
        line = Line2D(
            [point[0] for point in points],
            [*(height_px - point[1] for point in points[:-1]), height_px - y + head_px],
            color=colour,
            linewidth=line_px * 72 / DPI,
            linestyle=(0, (3.0, 1.6)) if dashed else "-",
            marker="None",
            solid_joinstyle="round",
            solid_capstyle="butt",
            transform=IdentityTransform(),
        )
        self._figure.add_artist(line)
        up = height_px - y
        corners = [(x, up), (x - head_px * 0.6, up + head_px), (x + head_px * 0.6, up + head_px)]
        self._figure.add_artist(
            Polygon(corners, closed=True, facecolor=colour, edgecolor="none", transform=IdentityTransform())
        )

    def save(self, path: Path) -> None:
        """Writes the sheet as PNG, whole or not at all. Raises UltronError for another suffix or where it cannot be
        written."""
        self._canvas.draw()
        ink = np.asarray(self._canvas.buffer_rgba())
        has_ink = ink[..., 3] > 0
        opacity = ink[has_ink][:, 3:] / 255.0
        pixels = self.pixels.copy()
        pixels[has_ink] = (pixels[has_ink] * (1 - opacity) + ink[has_ink][:, :3] * opacity).round().astype(np.uint8)
        save_png(path, pixels)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as PNG, whole or not at all. Raises UltronError for another suffix or where it cannot be
    written."""
    if path.suffix.lower() != ".png":
        raise UltronError(f"figures are PNG files; found {path.name!r}; name one that ends in .png with `out`")
    with whole_file(path) as output:
        Image.fromarray(pixels).save(output, format="PNG", dpi=(DPI, DPI))


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

    def draw(self, sheet: Sheet) -> None:
        """Draws it at the top of the sheet."""
        y = MARGIN_PX - 9
        for line in self.title:
            y += 28
            sheet.text(MARGIN_PX, y, line, TextStyle(size_px=TITLE_PX, bold=True))
        for line in self.note:
            y += 21
            sheet.text(MARGIN_PX, y + 3, line, QUIET)


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


def draw_heat_bar(sheet: Sheet, x: int, y: int, height_px: int) -> None:
    """A bar of the colours of heat, 0 below and 1 above, with its label."""
    values = np.linspace(1.0, 0.0, height_px)[:, None].repeat(HEAT_BAR_PX, axis=1)
    sheet.paste(x, y, overlay(np.full((height_px, HEAT_BAR_PX, 3), 128, np.uint8), values))
    for value in (0.0, 0.5, 1.0):
        level = y + round((1 - value) * (height_px - 1))
        sheet.fill(x + HEAT_BAR_PX, level, 4, 1, (90, 90, 90))
        sheet.text(x + 24, level + 5, f"{value:g}", SMALL_QUIET)
    sheet.upward_text(x + 50, y + height_px / 2, "relative weight", SMALL_QUIET)
