"""What the geometry of a query and photos of its ranking says, as a picture: lines between inliers, and the query's box
as it appears in each photo; several systems side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import cv2
import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.visualization.drawing import (
    BODY_PX,
    BOLD,
    BOX_COLOUR,
    MARGIN_PX,
    SMALL_PX,
    VERDICT_COLOURS,
    Header,
    Sheet,
    TextStyle,
    check_size,
)
from ultron_cli.visualization.lettering import shorten_middle, wrap
from ultron_cli.visualization.pair_geometry import PairGeometry, SceneGeometry
from ultron_cli.visualization.scene import PhotoChoice, Scene, require_same_queries
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile, load_tile, warn_of_changed_photos

PANEL_WIDTHS_PX = (520, 400, 300, 240)  # of a photo, by the number of systems
HEIGHT_OF_WIDTH = 0.77
PAIR_GAP_PX, SYSTEM_GAP_PX = 28, 44
ROW_GAP_PX, LABEL_PX, NAME_PX = 28, 52, 34
SUBPIXEL_BITS = 4  # of OpenCV's places
SMALL = TextStyle(size_px=SMALL_PX)


class VerifiedPhoto(TypedDict):
    """What the geometry of the query and one photo says."""

    rank: int
    name: str
    verdict: str
    n_matches: int
    n_inliers: int
    score: int
    promoted: bool
    transform: list[list[float]] | None  # pixels of the query to pixels of the photo


class SystemSummary(TypedDict):
    """What was drawn of one search."""

    search: str
    model: str
    photos: list[VerifiedPhoto]


class GeometrySummary(TypedDict):
    """What was drawn. Of one search its model and photos, of several those of each."""

    query: str
    figure: str
    model: NotRequired[str]
    photos: NotRequired[list[VerifiedPhoto]]
    systems: NotRequired[list[SystemSummary]]


@dataclass(frozen=True, eq=False)
class Panel:
    """A photo and what its geometry says."""

    photo: RankedPhoto
    pair: PairGeometry


@dataclass(frozen=True, eq=False)
class Column:
    """A search and its photos, one below the other."""

    label: str
    model: str  # of transforms
    panels: Sequence[Panel]


def draw_geometry(
    scenes: Sequence[Scene], labels: Sequence[str], query_name: str, choice: PhotoChoice, out: Path
) -> GeometrySummary:
    """The figure of the inliers of a query and photos in one search or several, verified as each search verified them,
    else by default.

    choice: its query is that of the first search. Raises UltronError for unknown photos, searches of other queries, or
    where there are no local features.
    """
    if len(scenes) > len(PANEL_WIDTHS_PX):
        raise UltronError(
            f"at most {len(PANEL_WIDTHS_PX)} searches are drawn side by side, found {len(scenes)}; leave some out"
        )
    require_same_queries(scenes, query_name)
    columns = []
    for scene, label in zip(scenes, labels, strict=True):
        row = scene.query_row(query_name)
        photos = scene.photos_of(PhotoChoice(query_row=row, k=choice.k, protocol=choice.protocol, names=choice.names))
        with SceneGeometry(scene) as geometry:
            panels = [Panel(photo, geometry.pair(row, photo.name)) for photo in photos]
            columns.append(Column(label, geometry.settings.model, panels))
    first = scenes[0]
    query = first.query_photo(choice.query_row)
    warn_of_changed_photos((query, *(panel.photo for column in columns for panel in column.panels)))
    kinds = " or ".join(dict.fromkeys(column.model for column in columns))
    models = " and ".join(dict.fromkeys(scene.model for scene in scenes))
    title = f"Local features that one {kinds} explains: {first.title(choice.query_row, choice.protocol, models)}"
    _draw(query, columns, title, out)
    summaries: list[SystemSummary] = [
        {"search": column.label, "model": column.model, "photos": [_summary(panel) for panel in column.panels]}
        for column in columns
    ]
    if len(summaries) > 1:
        return {"query": query.name, "figure": str(out), "systems": summaries}
    return {
        "query": query.name,
        "figure": str(out),
        "model": summaries[0]["model"],
        "photos": summaries[0]["photos"],
    }


def _summary(panel: Panel) -> VerifiedPhoto:
    photo, verified = panel.photo, panel.pair.verified
    return {
        "rank": photo.rank,
        "name": photo.name,
        "verdict": photo.verdict,
        "n_matches": verified.n_matches,
        "n_inliers": verified.n_inliers,
        "score": verified.score,
        "promoted": photo.is_promoted,
        "transform": None if verified.transform is None else verified.transform.tolist(),
    }


def _draw(query: QueryPhoto, columns: Sequence[Column], title: str, out: Path) -> None:
    width = PANEL_WIDTHS_PX[len(columns) - 1]
    height = round(width * HEIGHT_OF_WIDTH)
    pair_width = 2 * width + PAIR_GAP_PX
    query_tile = load_tile(query.path, width, height)
    tiles = [[load_tile(panel.photo.path, width, height) for panel in column.panels] for column in columns]
    n_rows = max(len(column.panels) for column in columns)
    heights = [
        max([query_tile.pixels.shape[0], *(of_column[i].pixels.shape[0] for of_column in tiles if i < len(of_column))])
        for i in range(n_rows)
    ]
    sheet_width = 2 * MARGIN_PX + len(columns) * pair_width + (len(columns) - 1) * SYSTEM_GAP_PX
    note = "Yellow: the query's box, and where the transform takes it. A green line is an inlier."
    header = Header.of(title, note, sheet_width)
    top = header.height_px + (NAME_PX if len(columns) > 1 else 0)
    sheet_height = top + sum(heights) + n_rows * (LABEL_PX + ROW_GAP_PX) + MARGIN_PX
    check_size(sheet_width, sheet_height, "draw fewer photos with `k`")
    sheet = Sheet(sheet_width, sheet_height)
    header.draw(sheet)
    for i, (column, of_column) in enumerate(zip(columns, tiles, strict=True)):
        x, y = MARGIN_PX + i * (pair_width + SYSTEM_GAP_PX), top
        if len(columns) > 1:
            sheet.text(x, y - 12, wrap(column.label, pair_width, BODY_PX, n_lines=1, bold=True)[0], BOLD)
        for panel, tile, row_height in zip(column.panels, of_column, heights, strict=False):
            _draw_label(sheet, x, y, pair_width, panel)
            sheet.paste(x, y + LABEL_PX, _pair_pixels(query, query_tile, panel.pair, tile, width, row_height))
            y += row_height + LABEL_PX + ROW_GAP_PX
    sheet.save(out)


def _draw_label(sheet: Sheet, x: int, y: int, width: int, panel: Panel) -> None:
    """The two lines above a pair: rank and name; what its geometry says."""
    photo, verified = panel.photo, panel.pair.verified
    sheet.sign(x + 9, y + 15, photo.verdict)
    left = x + (0 if photo.verdict == "unknown" else 25)
    sheet.text(left, y + 20, shorten_middle(f"rank {photo.rank}  {photo.name}", width - (left - x), BODY_PX))
    promoted = "promoted: " if photo.is_promoted else ""
    text = f"{promoted}{verified.n_inliers} inliers of {verified.n_matches} matches, {verified.score} counted"
    sheet.text(x, y + 41, text, SMALL)


def _pair_pixels(
    query: QueryPhoto, query_tile: Tile, pair: PairGeometry, tile: Tile, width: int, height: int
) -> np.ndarray:
    """(height, w, 3) uint8: the query, the photo and what joins them. width: of each."""
    row = np.full((height, 2 * width + PAIR_GAP_PX, 3), 255, np.uint8)
    row[: query_tile.pixels.shape[0], : query_tile.pixels.shape[1]] = query_tile.pixels
    left = width + PAIR_GAP_PX
    photo = tile.pixels.copy()
    warped = pair.warped_box
    if warped is not None and not tile.problem:
        _outline(photo, _on_tile(warped, tile))
    row[: photo.shape[0], left : left + photo.shape[1]] = photo
    if query.bbx is not None:
        x1, y1, x2, y2 = query.bbx
        _outline(row, _on_tile(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64), query_tile))
    starts, ends = pair.places()
    starts, ends = _on_tile(starts, query_tile), _on_tile(ends, tile) + np.array([left, 0])
    for start, end in zip(_fixed(starts), _fixed(ends), strict=True):
        cv2.line(row, start, end, VERDICT_COLOURS["right"], 1, cv2.LINE_AA, SUBPIXEL_BITS)
        for place in (start, end):
            cv2.circle(row, place, 2 << SUBPIXEL_BITS, VERDICT_COLOURS["right"], -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return row


def _on_tile(places: np.ndarray, tile: Tile) -> np.ndarray:
    """(n, 2) pixels of a photo as pixels of its tile."""
    return (places + 0.5) * tile.scale - 0.5


def _fixed(places: np.ndarray) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in np.rint(np.clip(places, -1e4, 1e4) * (1 << SUBPIXEL_BITS))]


def _outline(pixels: np.ndarray, corners: np.ndarray) -> None:
    """Draws a polygon onto (h, w, 3) uint8."""
    points = [np.array(_fixed(corners), np.int32)]
    cv2.polylines(pixels, points, isClosed=True, color=BOX_COLOUR, thickness=2, lineType=cv2.LINE_AA, shift=4)
