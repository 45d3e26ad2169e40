"""What the figures share: photos as tiles, verdict frames and signs, text that fits, and a sheet of pixels written as
PNG.

Everything is laid out in whole pixels from the top left. Photos and frames are copied into the sheet unchanged,
matplotlib (its object interface, no pyplot) draws text and signs on top; the same input gives the same bytes.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.transforms import IdentityTransform
from PIL import Image

from ultron_cli.console import counted, log
from ultron_cli.datasets.photos import Box, decode_photo
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
TILE_GREY: Colour = (226, 226, 226)

TITLE_PX, BODY_PX, SMALL_PX = 20, 15, 13
MARGIN_PX, FRAME_PX = 24, 5
LABEL_HEIGHT_PX, LEGEND_HEIGHT_PX = 48, 34
MIN_WIDTH_PX, MAX_WIDTH_PX, MAX_HEIGHT_PX = 740, 4000, 20000
DPI = 100  # text sizes are given in pixels, so it only tells a viewer the size in print

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


@dataclass(frozen=True)
class QueryPhoto:
    """A query as drawn. path_or_pixels: a file, or (H, W, 3) uint8. bbx: its box (x1, y1, x2, y2) in pixels of the
    upright photo."""

    path_or_pixels: Path | np.ndarray
    name: str
    bbx: Box | None = None


@dataclass(frozen=True)
class RankedPhoto:
    """A database photo in a ranking. rank: from 1. score: similarity. verdict: `unknown` where there is no ground
    truth."""

    path_or_pixels: Path | np.ndarray
    rank: int
    score: float
    verdict: Verdict
    name: str


@dataclass(frozen=True)
class Tile:
    """A photo scaled to fit: pixels (h, w, 3) uint8, the two scale factors, or the problem for which there is grey
    instead."""

    pixels: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)  # horizontal, vertical
    problem: str = ""


def title_of(model: str, dataset: str, protocol: str | None = None) -> str:
    """`gem-resnet50 on roxford5k, hard protocol`."""
    return f"{model} on {dataset}" + (f", {protocol} protocol" if protocol else "")


def load_tile(path_or_pixels: Path | np.ndarray, width_px: int, height_px: int) -> Tile:
    """The photo, as large as fits into width_px x height_px; a grey tile with the reason if it cannot be read."""
    if isinstance(path_or_pixels, np.ndarray):
        if path_or_pixels.dtype != np.uint8 or path_or_pixels.ndim != 3 or path_or_pixels.shape[2] != 3:
            raise ValueError(
                f"photo pixels must be (H, W, 3) uint8, found {path_or_pixels.shape} {path_or_pixels.dtype}"
            )
        image = Image.fromarray(path_or_pixels)
    else:
        try:
            image = decode_photo(path_or_pixels)
        except UltronError as error:
            # "PATH: no such photo; complete the dataset ...": the name stands below the tile, the remedy in the log.
            problem = str(error).removeprefix(f"{path_or_pixels}: ").split(";")[0]
            return Tile(np.full((round(height_px * 0.75), width_px, 3), TILE_GREY, np.uint8), problem=problem)
    factor = min(width_px / image.width, height_px / image.height)
    width, height = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return Tile(pixels, (width / image.width, height / image.height))


def box_on_tile(tile: Tile, bbx: Box) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a box given in pixels of the whole photo, in pixels of the tile and clipped to
    it."""
    height, width = tile.pixels.shape[:2]
    left, top = (
        min(max(round(bbx[0] * tile.scale[0]), 0), width - 1),
        min(max(round(bbx[1] * tile.scale[1]), 0), height - 1),
    )
    right, bottom = min(round(bbx[2] * tile.scale[0]), width), min(round(bbx[3] * tile.scale[1]), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def with_box(tile: Tile, bbx: Box | None) -> np.ndarray:
    """(h, w, 3) uint8: the tile with the box drawn in yellow between thin dark lines, to be seen on any photo."""
    if bbx is None or tile.problem:
        return tile.pixels
    drawn = tile.pixels.copy()
    left, top, right, bottom = box_on_tile(tile, bbx)
    for inset, line_px, colour in ((0, 5, (0, 0, 0)), (1, 3, BOX_COLOUR)):
        x1, y1, x2, y2 = left + inset, top + inset, right - inset, bottom - inset
        drawn[y1 : y1 + line_px, x1:x2] = drawn[max(y2 - line_px, 0) : y2, x1:x2] = colour
        drawn[y1:y2, x1 : x1 + line_px] = drawn[y1:y2, max(x2 - line_px, 0) : x2] = colour
    return drawn


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
    fits, too_many = 0, min(len(text), int(width_px))  # no character is drawn narrower than a pixel
    while too_many - fits > 1:
        n = (fits + too_many) // 2
        candidate = text[: (n + 1) // 2] + "\u2026" + text[len(text) - n // 2 :]
        fits, too_many = (n, too_many) if text_width_px(candidate, size_px, bold=bold) <= width_px else (fits, n)
    return text[: (fits + 1) // 2] + "\u2026" + text[len(text) - fits // 2 :]


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
        full_width_px, full_height_px = width_px + 2 * line_px, height_px + 2 * line_px
        left, top = x - line_px, y - line_px
        self.fill(left, top, full_width_px, line_px, colour)
        self.fill(left, y + height_px, full_width_px, line_px, colour)
        self.fill(left, top, line_px, full_height_px, colour)
        self.fill(x + width_px, top, line_px, full_height_px, colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size_px: int = BODY_PX,
        *,
        colour: str = INK,
        bold: bool = False,
        align: Literal["left", "center", "right"] = "left",
        upright: bool = True,
    ) -> None:
        """One line of plain text with its baseline at y (not upright: turned to run upwards, centred on y, its left
        edge at x)."""
        self._figure.text(
            x,
            self.pixels.shape[0] - y,
            plain_text(text, bold),
            color=colour,
            ha=align if upright else "left",
            va="baseline" if upright else "center",
            rotation=0 if upright else 90,
            fontproperties=_font(bold),
            fontsize=size_px * 72 / DPI,
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
        (x, y), head_px = points[-1], 3.2 * line_px
        line = Line2D(
            [at[0] for at in points],
            [*(height_px - at[1] for at in points[:-1]), height_px - y + head_px],
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
        drawn = np.asarray(self._canvas.buffer_rgba())
        touched = drawn[..., 3] > 0
        opacity = drawn[touched][:, 3:] / 255.0
        pixels = self.pixels.copy()
        pixels[touched] = (pixels[touched] * (1 - opacity) + drawn[touched][:, :3] * opacity).round().astype(np.uint8)
        save_png(path, pixels)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as PNG, whole or not at all. Raises UltronError for another suffix or where it cannot be
    written."""
    if path.suffix.lower() != ".png":
        raise UltronError(f"figures are PNG files; found {path.name!r}; name one that ends in .png with --out")
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

    title: list[str]
    note: list[str]

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
            sheet.text(MARGIN_PX, y, line, TITLE_PX, bold=True)
        for line in self.note:
            y += 21
            sheet.text(MARGIN_PX, y + 3, line, BODY_PX, colour=QUIET_INK)


def draw_problem(sheet: Sheet, x: int, y: int, tile: Tile) -> None:
    """Writes on a grey tile at (x, y) why there is no photo."""
    height_px, width_px = tile.pixels.shape[:2]
    lines = wrap(tile.problem, width_px - 12, SMALL_PX, n_lines=max(1, height_px // 18 - 1))
    for i, line in enumerate(lines):
        sheet.text(
            x + width_px / 2,
            y + height_px / 2 + 18 * (i - (len(lines) - 1) / 2) + 5,
            line,
            SMALL_PX,
            colour=INK,
            align="center",
        )


def draw_label(sheet: Sheet, x: int, y: int, width_px: int, photo: RankedPhoto, score_text: str) -> None:
    """The two lines below a database photo whose frame ends at y: sign, rank and score; the name."""
    known = photo.verdict != "unknown"
    sheet.sign(x + 9, y + 16, photo.verdict)
    sheet.text(x + (25 if known else 0), y + 21, f"{photo.rank}", bold=True)
    sheet.text(x + width_px, y + 21, score_text, align="right")
    sheet.text(x, y + 41, shorten_middle(photo.name, width_px, SMALL_PX), SMALL_PX, colour=QUIET_INK)


def draw_query_label(sheet: Sheet, x: int, y: int, width_px: int, name: str, subtitle: str) -> None:
    """The two lines below a query photo that ends at y: the word query and a subtitle; the name."""
    sheet.text(x, y + 21, "query", bold=True)
    room_px = width_px - text_width_px("query", BODY_PX, bold=True) - 10
    if subtitle:
        sheet.text(x + width_px, y + 21, shorten_middle(subtitle, room_px, BODY_PX), align="right")
    sheet.text(x, y + 41, shorten_middle(name, width_px, SMALL_PX), SMALL_PX, colour=QUIET_INK)


def draw_legend(sheet: Sheet, x: int, y: int, verdicts: set[str], has_box: bool) -> None:
    """One line that explains frames and signs (all three, if any verdict is known) and the query's box; y is its
    middle."""
    entries = ["right", "wrong", "ignored"] if verdicts - {"unknown"} else []
    for verdict in entries:
        sheet.frame(x + FRAME_PX, y - 7, 18, 14, VERDICT_COLOURS[verdict])
        sheet.sign(x + 44, y, verdict)
        text = "ignored (counts neither way)" if verdict == "ignored" else verdict
        sheet.text(x + 60, y + 5, text)
        x += 60 + round(text_width_px(text, BODY_PX)) + 28
    if has_box:
        sheet.fill(x, y - 10, 28, 20, (0, 0, 0))
        sheet.fill(x + 1, y - 9, 26, 18, BOX_COLOUR)
        sheet.fill(x + 4, y - 6, 20, 12, (0, 0, 0))
        sheet.fill(x + 5, y - 5, 18, 10, (255, 255, 255))
        sheet.text(x + 38, y + 5, "query box")


def log_problems(named_tiles: list[tuple[str, Tile]]) -> None:
    """Says on the log which photos could not be shown."""
    bad = [f"{name}: {tile.problem}" for name, tile in named_tiles if tile.problem]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        log.warning("%s not shown in the figure: %s%s", counted(len(bad), "photo"), "; ".join(bad[:3]), more)
