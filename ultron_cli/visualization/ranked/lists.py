"""Ranked lists as a picture: each query with its first photos, right, wrong and ignored ones told apart by colour and
by sign."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, tiles
from ultron_cli.visualization.drawing import Header, Sheet
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile

GAP_PX, QUERY_GAP_PX, ROW_GAP_PX = 14, 34, 14
PHOTOS_PER_LINE = 10
WIDEST_TILE_PX, FULL_WIDTH_PX = 240, 2400
NARROWEST_CELL_PX = 160  # a narrow photo's label needs room
FEWER = "draw fewer queries, or fewer photos of each with `k`"


@dataclass(frozen=True)
class RankedRow:
    """A query and its first photos."""

    query: QueryPhoto
    photos: Sequence[RankedPhoto]  # best first
    subtitle: str = ""  # a word on the query's result, such as `AP 71.3`


@dataclass(frozen=True)
class _Line:
    """One line of the figure: up to PHOTOS_PER_LINE photos of a row; the query stands in the first line of its row."""

    row: RankedRow
    query_tile: Tile | None
    photos: Sequence[RankedPhoto]
    photo_tiles: list[Tile]

    @property
    def all_tiles(self) -> list[Tile]:
        """The query's, if it stands here, and those of the photos."""
        return [*([self.query_tile] if self.query_tile else []), *self.photo_tiles]

    @property
    def photo_height_px(self) -> int:
        """Height of the tallest tile."""
        return max(tile.pixels.shape[0] for tile in self.all_tiles)


def _lines(rows: Sequence[RankedRow], tile_px: int) -> list[_Line]:
    lines = []
    for row in rows:
        query_tile: Tile | None = tiles.load_tile(row.query.path, tile_px, tile_px)
        for start in range(0, max(1, len(row.photos)), PHOTOS_PER_LINE):
            photos = row.photos[start : start + PHOTOS_PER_LINE]
            photo_tiles = [tiles.load_tile(photo.path, tile_px, tile_px) for photo in photos]
            lines.append(_Line(row, query_tile, photos, photo_tiles))
            query_tile = None
    return lines


def _draw_line(sheet: Sheet, line: _Line, y: int, cell_px: int) -> None:
    """One line of photos, standing on a common base, with their labels; y is the top of the tallest."""
    base = y + line.photo_height_px
    x = drawing.MARGIN_PX + drawing.FRAME_PX
    if line.query_tile:
        left = x + (cell_px - line.query_tile.pixels.shape[1]) // 2
        top = base - line.query_tile.pixels.shape[0]
        sheet.paste(left, top, tiles.with_box(line.query_tile, line.row.query.bbx))
        tiles.draw_problem(sheet, left, top, line.query_tile)
        tiles.draw_query_label(sheet, x, base + drawing.FRAME_PX, cell_px, line.row.query.name, line.row.subtitle)
    sheet.fill(
        x + cell_px + drawing.FRAME_PX + QUERY_GAP_PX // 2,
        y,
        1,
        line.photo_height_px + drawing.LABEL_HEIGHT_PX,
        drawing.LINE_GREY,
    )
    x += cell_px + 2 * drawing.FRAME_PX + QUERY_GAP_PX
    for photo, tile in zip(line.photos, line.photo_tiles, strict=True):
        height_px, width_px = tile.pixels.shape[:2]
        left = x + (cell_px - width_px) // 2
        top = base - height_px
        sheet.paste(left, top, tile.pixels)
        sheet.frame(left, top, width_px, height_px, drawing.VERDICT_COLOURS[photo.verdict])
        tiles.draw_problem(sheet, left, top, tile)
        tiles.draw_label(sheet, x, base + drawing.FRAME_PX, cell_px, photo, photo.score_text)
        x += cell_px + 2 * drawing.FRAME_PX + GAP_PX
    if not line.photos:
        sheet.text(x, base - line.photo_height_px / 2, "nothing found")


def ranks_figure(rows: Sequence[RankedRow], title: str, out_path: Path) -> Path:
    """Draws one row per query as PNG: the query with its box, then its photos, framed by verdict, with rank, score and
    name.

    More than 10 photos go on below. A photo that cannot be read is a grey tile with the reason, and a warning. title:
    model, dataset and protocol, as drawing.title_of makes it. Returns out_path. Raises UltronError for no rows or a
    figure that would be too large.
    """
    if not rows:
        raise UltronError("a figure of ranked photos needs at least one query; found none; name a query of the ranking")
    n_lines = sum(-(-max(1, len(row.photos)) // PHOTOS_PER_LINE) for row in rows)
    drawing.check_size(
        0, n_lines * (2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + ROW_GAP_PX), FEWER
    )  # before photos are read
    n_columns = 1 + min(PHOTOS_PER_LINE, max([1, *(len(row.photos) for row in rows)]))
    room_px = (FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - QUERY_GAP_PX) // n_columns - GAP_PX - 2 * drawing.FRAME_PX
    tile_px = min(WIDEST_TILE_PX, room_px)
    lines = _lines(rows, tile_px)
    cell_px = max(NARROWEST_CELL_PX, *(tile.pixels.shape[1] for line in lines for tile in line.all_tiles))
    width_px = (
        2 * drawing.MARGIN_PX + n_columns * (cell_px + 2 * drawing.FRAME_PX) + QUERY_GAP_PX + (n_columns - 2) * GAP_PX
    )
    width_px = max(width_px, drawing.MIN_WIDTH_PX)
    verdicts = {photo.verdict for row in rows for photo in row.photos}
    has_box = any(row.query.bbx for row in rows)
    header = Header.of(title, "", width_px)
    top = header.height_px + (drawing.LEGEND_HEIGHT_PX if has_box or verdicts - {"unknown"} else 0)
    line_heights = [
        line.photo_height_px + 2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + ROW_GAP_PX for line in lines
    ]
    sheet_height_px = top + sum(line_heights) - ROW_GAP_PX + drawing.MARGIN_PX
    drawing.check_size(width_px, sheet_height_px, FEWER)
    sheet = Sheet(width_px, sheet_height_px)
    header.draw(sheet)
    tiles.draw_legend(sheet, drawing.MARGIN_PX, header.height_px + 8, verdicts, has_box)
    for line, height_px in zip(lines, line_heights, strict=True):
        _draw_line(sheet, line, top + drawing.FRAME_PX, cell_px)
        top += height_px
    named = [(line.row.query.name, line.query_tile) for line in lines if line.query_tile]
    tiles.log_problems(
        named
        + [(photo.name, tile) for line in lines for photo, tile in zip(line.photos, line.photo_tiles, strict=True)]
    )
    tiles.warn_of_changed_photos(photo for row in rows for photo in (row.query, *row.photos))
    sheet.save(out_path)
    return out_path
