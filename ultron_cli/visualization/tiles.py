"""Photos on a sheet: scaled to tiles, with the query's box, the verdict's frame and sign, and their labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ultron_cli.console import counted, log
from ultron_cli.datasets.photo_files import decode_photo
from ultron_cli.datasets.photo_marks import PhotoMark, warn_of_changed
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.visualization.drawing import (
    BODY_PX,
    BOLD,
    BOX_COLOUR,
    FRAME_PX,
    RIGHT_ALIGNED,
    SMALL_PX,
    SMALL_QUIET,
    VERDICT_COLOURS,
    Colour,
    Sheet,
    TextStyle,
    Verdict,
)
from ultron_cli.visualization.lettering import shorten_middle, text_width_px, wrap

TILE_GREY: Colour = (226, 226, 226)


@dataclass(frozen=True)
class QueryPhoto:
    """A query as drawn."""

    path: Path
    name: str
    bbx: Box | None = None  # its box (x1, y1, x2, y2) in pixels of the upright photo
    mark: PhotoMark | None = None  # of the photo that was described, where it is recorded


@dataclass(frozen=True)
class RankedPhoto:
    """A database photo in a ranking."""

    path: Path
    rank: int  # from 1
    score: float  # similarity
    verdict: Verdict  # `unknown` where there is no ground truth
    name: str
    mark: PhotoMark | None = None  # of the photo that was described, where it is recorded
    n_inliers: int | None = None  # that count, where geometry verified the photo
    is_promoted: bool = False  # by them

    @property
    def score_text(self) -> str:
        """What put it there, as a figure's label says it: its similarity, or the inliers that promoted it."""
        return f"{self.n_inliers} inliers" if self.is_promoted else f"{self.score:.3f}"


@dataclass(frozen=True)
class Tile:
    """A photo scaled to fit, or grey with the problem for which there is no photo."""

    pixels: np.ndarray  # (h, w, 3) uint8
    scale: tuple[float, float] = (1.0, 1.0)  # horizontal, vertical
    problem: str = ""


def load_tile(path: Path, width_px: int, height_px: int) -> Tile:
    """The photo, as large as fits into width_px x height_px; a grey tile with the reason if it cannot be read."""
    try:
        image = decode_photo(path)
    except UltronError as error:
        # "PATH: no such photo; complete the dataset ...": the name stands below the tile, the remedy in the log.
        problem = str(error).removeprefix(f"{path}: ").split(";")[0]
        return Tile(np.full((round(height_px * 0.75), width_px, 3), TILE_GREY, np.uint8), problem=problem)
    return tile_of(image, width_px, height_px)


def tile_of(image: Image.Image, width_px: int, height_px: int) -> Tile:
    """A photo as large as fits into width_px x height_px."""
    factor = min(width_px / image.width, height_px / image.height)
    width = max(1, round(image.width * factor))
    height = max(1, round(image.height * factor))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return Tile(pixels, (width / image.width, height / image.height))


def box_on_tile(tile: Tile, bbx: Box) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a box given in pixels of the whole photo, in pixels of the tile and clipped to
    it."""
    height, width = tile.pixels.shape[:2]
    left = min(max(round(bbx[0] * tile.scale[0]), 0), width - 1)
    top = min(max(round(bbx[1] * tile.scale[1]), 0), height - 1)
    right = min(round(bbx[2] * tile.scale[0]), width)
    bottom = min(round(bbx[3] * tile.scale[1]), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def with_box(tile: Tile, bbx: Box | None) -> np.ndarray:
    """(h, w, 3) uint8: the tile with the box drawn in yellow between thin dark lines, to be seen on any photo."""
    if bbx is None or tile.problem:
        return tile.pixels
    pixels = tile.pixels.copy()
    left, top, right, bottom = box_on_tile(tile, bbx)
    for inset, line_px, colour in ((0, 5, (0, 0, 0)), (1, 3, BOX_COLOUR)):
        x1, y1 = left + inset, top + inset
        x2, y2 = right - inset, bottom - inset
        pixels[y1 : y1 + line_px, x1:x2] = pixels[max(y2 - line_px, 0) : y2, x1:x2] = colour
        pixels[y1:y2, x1 : x1 + line_px] = pixels[y1:y2, max(x2 - line_px, 0) : x2] = colour
    return pixels


def draw_problem(sheet: Sheet, x: int, y: int, tile: Tile) -> None:
    """Writes on a grey tile at (x, y) why there is no photo."""
    height_px, width_px = tile.pixels.shape[:2]
    lines = wrap(tile.problem, width_px - 12, SMALL_PX, n_lines=max(1, height_px // 18 - 1))
    for i, line in enumerate(lines):
        baseline = y + height_px / 2 + 18 * (i - (len(lines) - 1) / 2) + 5
        sheet.text(x + width_px / 2, baseline, line, TextStyle(size_px=SMALL_PX, align="center"))


def draw_label(sheet: Sheet, x: int, y: int, width_px: int, photo: RankedPhoto, score_text: str) -> None:
    """The two lines below a database photo whose frame ends at y: sign, rank and score; the name."""
    has_sign = photo.verdict != "unknown"
    sheet.sign(x + 9, y + 16, photo.verdict)
    sheet.text(x + (25 if has_sign else 0), y + 21, f"{photo.rank}", BOLD)
    sheet.text(x + width_px, y + 21, score_text, RIGHT_ALIGNED)
    sheet.text(x, y + 41, shorten_middle(photo.name, width_px, SMALL_PX), SMALL_QUIET)


def draw_query_label(sheet: Sheet, x: int, y: int, width_px: int, name: str, subtitle: str) -> None:
    """The two lines below a query photo that ends at y: the word query and a subtitle; the name."""
    sheet.text(x, y + 21, "query", BOLD)
    room_px = width_px - text_width_px("query", BODY_PX, bold=True) - 10
    if subtitle:
        sheet.text(x + width_px, y + 21, shorten_middle(subtitle, room_px, BODY_PX), RIGHT_ALIGNED)
    sheet.text(x, y + 41, shorten_middle(name, width_px, SMALL_PX), SMALL_QUIET)


def draw_legend(sheet: Sheet, x: int, y: int, verdicts: set[str], has_box: bool) -> None:
    """One line that explains frames and signs (all three, if any verdict is known) and the query's box; y is its
    middle."""
    entries: tuple[Verdict, ...] = ("right", "wrong", "ignored") if verdicts - {"unknown"} else ()
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


def warn_of_changed_photos(photos: Iterable[QueryPhoto | RankedPhoto]) -> None:
    """Says which of the photos shown are no longer those that the search described."""
    warn_of_changed((photo.name, photo.path, photo.mark) for photo in photos)


def log_problems(named_tiles: list[tuple[str, Tile]]) -> None:
    """Says on the log which photos could not be shown."""
    bad = [f"{name}: {tile.problem}" for name, tile in named_tiles if tile.problem]
    if bad:
        rest = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        log.warning("%s not shown in the figure: %s%s", counted(len(bad), "photo"), "; ".join(bad[:3]), rest)
