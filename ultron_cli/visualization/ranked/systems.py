"""The first photos of one query by several systems, a row each; lines show how photos moved from one row to the
next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, lettering, tiles
from ultron_cli.visualization.drawing import Header, Sheet, TextStyle
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile

MOST_PHOTOS, MOST_SYSTEMS = 10, 12
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 240, 160, 2400
GAP_PX, QUERY_GAP_PX, ROW_GAP_PX, BLOCK_GAP_PX = 14, 34, 18, 44
NAME_PX, NAME_LINES, NAME_LINE_PX = 170, 5, 21
MOVE_LINE_PX, MOVE_ROOM_PX = 22, 74  # the line below a label that says how far; the room for arrows between two rows
UP_SIGN, DOWN_SIGN = "\u25b2", "\u25bc"
# Blue and brown differ for every kind of colour blindness; down is dashed, too.
UP, DOWN, SAME = "#0072B2", "#994F00", "#8a8a8a"
LEAVING = TextStyle(size_px=drawing.SMALL_PX, colour=DOWN, bold=True, align="right")
MOVES_NOTE = (
    "An arrow leads from a photo's place to its place in the next search: blue, solid, up; brown, dashed, down; grey, "
    "the same. A photo without an arrow was not among those shown above and says from which rank it came."
)


@dataclass(frozen=True)
class SystemRow:
    """One system's first photos."""

    name: str
    photos: Sequence[RankedPhoto]
    subtitle: str = ""  # a word on the query's result, such as `AP 71.3`
    # Of each photo, its rank in the row above, None where that search lacks it; empty where moves are not drawn.
    ranks_above: Sequence[int | None] = ()
    ranks_below: Sequence[int | None] = ()  # the same of the row below


@dataclass(frozen=True)
class QueryBlock:
    """A query with the rows of all systems."""

    query: QueryPhoto
    systems: Sequence[SystemRow]


@dataclass(frozen=True)
class _Row:
    """A system's row on the sheet."""

    system: SystemRow
    photo_tiles: list[Tile]
    query_tile: Tile | None  # in the first row of a query
    y: int  # top of the tallest photo
    moves: bool  # whether a line below the labels says how far photos moved

    @property
    def photo_height_px(self) -> int:
        """Of the tallest photo, the query's included where it stands in this row."""
        row_tiles = [*self.photo_tiles, *([self.query_tile] if self.query_tile else [])]
        return max([60, *(tile.pixels.shape[0] for tile in row_tiles)])

    @property
    def base(self) -> int:
        """Where the photos stand."""
        return self.y + self.photo_height_px

    @property
    def bottom(self) -> int:
        """Of the labels."""
        return self.base + drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + (MOVE_LINE_PX if self.moves else 0)


def move_text(rank: int, rank_above: int | None, n_shown_above: int) -> tuple[str, str]:
    """(text, colour) of a photo's move to `rank`: `up 12`, `down 3`, `same place`, or `from 37` from below the photos
    shown."""
    if rank_above is None:
        return f"{UP_SIGN} newly found", UP
    if rank_above == rank:
        return "= same place", SAME
    sign, colour, word = (UP_SIGN, UP, "up") if rank_above > rank else (DOWN_SIGN, DOWN, "down")
    if rank_above > n_shown_above:
        return f"{sign} from {rank_above}", colour
    return f"{sign} {word} {abs(rank_above - rank)}", colour


def leaving_text(rank_below: int | None) -> str:
    """`to 24` for a photo that is not among those shown below."""
    return f"{DOWN_SIGN} to {rank_below}" if rank_below else f"{DOWN_SIGN} not found"


def _cell_x(place: int, cell_px: int) -> int:
    """Left edge of a photo's cell, from 0."""
    first = drawing.MARGIN_PX + 3 * drawing.FRAME_PX + cell_px + QUERY_GAP_PX + NAME_PX
    return first + place * (cell_px + 2 * drawing.FRAME_PX + GAP_PX)


def _draw_query(sheet: Sheet, row: _Row, query: QueryPhoto, cell_px: int) -> None:
    tile = row.query_tile
    assert tile is not None  # the query stands in its block's first row
    x = drawing.MARGIN_PX + drawing.FRAME_PX
    left = x + (cell_px - tile.pixels.shape[1]) // 2
    top = row.base - tile.pixels.shape[0]
    sheet.paste(left, top, tiles.with_box(tile, query.bbx))
    tiles.draw_problem(sheet, left, top, tile)
    tiles.draw_query_label(sheet, x, row.base + drawing.FRAME_PX, cell_px, query.name, "")


def _draw_row(sheet: Sheet, row: _Row, n_above: int, n_below: int, cell_px: int) -> None:
    """A system's name and AP, its photos with their labels and, below, how far each moved."""
    lines = lettering.wrap(row.system.name, NAME_PX - 16, drawing.BODY_PX, n_lines=NAME_LINES, bold=True)
    name_x = _cell_x(0, cell_px) - drawing.FRAME_PX - NAME_PX
    middle = row.base - row.photo_height_px / 2 - NAME_LINE_PX * len(lines) / 2
    for i, line in enumerate(lines):
        sheet.text(name_x, middle + NAME_LINE_PX * i, line, drawing.BOLD)
    for i, line in enumerate(lettering.wrap(row.system.subtitle, NAME_PX - 16, drawing.BODY_PX, n_lines=2)):
        sheet.text(name_x, middle + NAME_LINE_PX * (len(lines) + i) + 4, line)
    if not row.system.photos:
        sheet.text(_cell_x(0, cell_px), row.base - row.photo_height_px / 2, "nothing found")
    for place, (photo, tile) in enumerate(zip(row.system.photos, row.photo_tiles, strict=True)):
        height_px, width_px = tile.pixels.shape[:2]
        x = _cell_x(place, cell_px)
        left = x + (cell_px - width_px) // 2
        top = row.base - height_px
        sheet.paste(left, top, tile.pixels)
        sheet.frame(left, top, width_px, height_px, drawing.VERDICT_COLOURS[photo.verdict])
        tiles.draw_problem(sheet, left, top, tile)
        tiles.draw_label(sheet, x, row.base + drawing.FRAME_PX, cell_px, photo, photo.score_text)
        y = row.base + drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + 13
        rank_above = row.system.ranks_above[place] if row.system.ranks_above else None
        if rank_above is not None and rank_above <= n_above:
            text, colour = move_text(photo.rank, rank_above, n_above)
            sheet.text(x, y, text, TextStyle(size_px=drawing.SMALL_PX, colour=colour, bold=True))
        if row.system.ranks_below and not 1 <= (row.system.ranks_below[place] or 0) <= n_below:
            sheet.text(x + cell_px, y, leaving_text(row.system.ranks_below[place]), LEAVING)


def _draw_moves(sheet: Sheet, above: _Row, below: _Row, cell_px: int) -> None:
    """An arrow from each photo of the row above to its place in the row below. A photo that comes from further down has
    none, as it would seem to come from the photo above it: its rank there stands over it."""
    for place, (photo, tile, rank_above) in enumerate(
        zip(below.system.photos, below.photo_tiles, below.system.ranks_above, strict=True)
    ):
        x = _cell_x(place, cell_px) + cell_px / 2
        end = (x, below.base - tile.pixels.shape[0] - drawing.FRAME_PX - 2)
        turn = (x, below.y - drawing.FRAME_PX - 22)
        text, colour = move_text(photo.rank, rank_above, len(above.system.photos))
        if rank_above is None or rank_above > len(above.system.photos):
            style = TextStyle(size_px=drawing.SMALL_PX, colour=colour, bold=True, align="center")
            sheet.text(x, end[1] - 6, text, style)
        else:
            start_x = _cell_x(rank_above - 1, cell_px) + cell_px / 2
            start = (start_x, above.base + drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + 8)
            points = [start, (start_x, above.bottom + 4), turn, end]
            sheet.arrow(points, colour, dashed=colour == DOWN, line_px=2.0 if colour == SAME else 3.0)


def _rows_of(block: QueryBlock, tile_px: int, top: int) -> list[_Row]:
    """The block's rows, the first of which begins at `top`."""
    rows: list[_Row] = []
    moves = any(system.ranks_above for system in block.systems)
    query_tile: Tile | None = tiles.load_tile(block.query.path, tile_px, tile_px)
    for system in block.systems:
        y = top
        if rows:
            y = rows[-1].bottom + (MOVE_ROOM_PX if moves else ROW_GAP_PX) + drawing.FRAME_PX
        photo_tiles = [tiles.load_tile(photo.path, tile_px, tile_px) for photo in system.photos]
        rows.append(_Row(system, photo_tiles, query_tile, y, moves))
        query_tile = None
    return rows


def systems_figure(blocks: Sequence[QueryBlock], title: str, out_path: Path) -> Path:
    """Draws per query a row for each system as PNG: its name and AP, then its photos, framed and marked by verdict,
    with rank and score.

    title: dataset and protocol. Returns out_path. Raises UltronError for nothing to draw, more than 10 photos a row, or
    a figure that would be too large.
    """
    if not blocks or not 1 <= max(len(block.systems) for block in blocks) <= MOST_SYSTEMS:
        raise UltronError(f"searches side by side must be 1 to {MOST_SYSTEMS} with at least one query; draw fewer")
    n_photos = max(len(system.photos) for block in blocks for system in block.systems)  # of the longest row
    if n_photos > MOST_PHOTOS:
        raise UltronError(f"searches side by side show at most {MOST_PHOTOS} photos a row, found {n_photos}; lower `k`")
    n_columns = max(1, n_photos)
    columns_px = FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - QUERY_GAP_PX - NAME_PX
    tile_px = min(WIDEST_TILE_PX, columns_px // (1 + n_columns) - GAP_PX - 2 * drawing.FRAME_PX)
    cell_px = max(NARROWEST_CELL_PX, tile_px)
    width_px = max(_cell_x(n_columns, cell_px) - GAP_PX - drawing.FRAME_PX + drawing.MARGIN_PX, drawing.MIN_WIDTH_PX)
    moves = any(system.ranks_above for block in blocks for system in block.systems)
    header = Header.of(title, MOVES_NOTE if moves else "", width_px)
    verdicts = {photo.verdict for block in blocks for system in block.systems for photo in system.photos}
    has_box = any(block.query.bbx for block in blocks)
    top = header.height_px + (drawing.LEGEND_HEIGHT_PX if has_box or verdicts - {"unknown"} else 0) + drawing.FRAME_PX
    n_rows = sum(len(block.systems) for block in blocks)
    least_height_px = n_rows * (2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + ROW_GAP_PX)
    drawing.check_size(width_px, least_height_px, "draw fewer queries")  # before photos are read
    placed_rows: list[list[_Row]] = []
    for block in blocks:
        block_top = placed_rows[-1][-1].bottom + BLOCK_GAP_PX if placed_rows else top
        placed_rows.append(_rows_of(block, tile_px, block_top))
    height_px = placed_rows[-1][-1].bottom + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer queries")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    tiles.draw_legend(sheet, drawing.MARGIN_PX, header.height_px + 8, verdicts, has_box)
    for block, rows in zip(blocks, placed_rows, strict=True):
        if rows is not placed_rows[0]:
            sheet.fill(
                drawing.MARGIN_PX, rows[0].y - BLOCK_GAP_PX // 2, width_px - 2 * drawing.MARGIN_PX, 1, drawing.LINE_GREY
            )
        _draw_query(sheet, rows[0], block.query, cell_px)
        line_x = drawing.MARGIN_PX + 2 * drawing.FRAME_PX + cell_px + QUERY_GAP_PX // 2
        sheet.fill(line_x, rows[0].y, 1, rows[-1].bottom - rows[0].y, drawing.LINE_GREY)
        counts = [len(row.system.photos) for row in rows]
        for i, row in enumerate(rows):
            n_above = counts[i - 1] if i else 0
            n_below = counts[i + 1] if i + 1 < len(rows) else 0
            _draw_row(sheet, row, n_above, n_below, cell_px)
            if i and row.system.ranks_above:
                _draw_moves(sheet, rows[i - 1], row, cell_px)
    named_tiles = [
        (photo.name, tile)
        for rows in placed_rows
        for row in rows
        for photo, tile in zip(row.system.photos, row.photo_tiles, strict=True)
    ]
    for block, rows in zip(blocks, placed_rows, strict=True):
        if rows[0].query_tile:
            named_tiles.append((block.query.name, rows[0].query_tile))
    tiles.log_problems(named_tiles)
    tiles.warn_of_changed_photos(
        photo for block in blocks for system in block.systems for photo in (block.query, *system.photos)
    )
    sheet.save(out_path)
    return out_path
