"""The first photos of one query by several systems, a row each; lines show how photos moved from one row to the
next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing
from ultron_cli.visualization.drawing import Header, QueryPhoto, RankedPhoto, Sheet, Tile

MOST_PHOTOS, MOST_SYSTEMS = 10, 12
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 240, 160, 2400
GAP_PX, QUERY_GAP_PX, ROW_GAP_PX, BLOCK_GAP_PX = 14, 34, 18, 44
NAME_PX, NAME_LINES, NAME_LINE_PX = 170, 5, 21
MOVE_LINE_PX, MOVE_ROOM_PX = 22, 74  # the line below a label that says how far; the room for arrows between two rows
UP_SIGN, DOWN_SIGN = "\u25b2", "\u25bc"
UP, DOWN, SAME = (
    "#0072B2",
    "#994F00",
    "#8a8a8a",
)  # blue and brown differ for every kind of colour blindness; down is dashed, too
MOVES_NOTE = (
    "Arrows join the places of a photo in two searches: blue, solid, up; brown, dashed, down; grey, the same. "
    "A photo that was not among those shown above says from which rank it came."
)


@dataclass(frozen=True)
class SystemRow:
    """One system's first photos. subtitle: a word on the query's result, such as `AP 71.3`.

    came_from: of each photo, its rank in the row above, None where that search does not hold it; went_to: the same of
    the row below. Empty where moves are not drawn.
    """

    name: str
    photos: Sequence[RankedPhoto]
    subtitle: str = ""
    came_from: Sequence[int | None] = ()
    went_to: Sequence[int | None] = ()


@dataclass(frozen=True)
class QueryBlock:
    """A query with the rows of all systems."""

    query: QueryPhoto
    systems: Sequence[SystemRow]


@dataclass(frozen=True)
class _Row:
    """A system's row on the sheet: y is the top of its tallest photo."""

    system: SystemRow
    tiles: list[Tile]
    query_tile: Tile | None
    y: int
    moves: bool

    @property
    def photo_height_px(self) -> int:
        """Of the tallest photo, the query's included where it stands here."""
        return max(
            [60, *(tile.pixels.shape[0] for tile in [*self.tiles, *([self.query_tile] if self.query_tile else [])])]
        )

    @property
    def base(self) -> int:
        """Where the photos stand."""
        return self.y + self.photo_height_px

    @property
    def bottom(self) -> int:
        """Of the labels."""
        return self.base + drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + (MOVE_LINE_PX if self.moves else 0)


def move_text(rank: int, came_from: int | None, n_shown_above: int) -> tuple[str, str]:
    """(text, colour) of a photo's move to `rank`: `up 12`, `down 3`, `same place`, or `from 37` from below the photos
    shown."""
    if came_from is None:
        return f"{UP_SIGN} newly found", UP
    if came_from == rank:
        return "= same place", SAME
    sign, colour, word = (UP_SIGN, UP, "up") if came_from > rank else (DOWN_SIGN, DOWN, "down")
    return f"{sign} from {came_from}" if came_from > n_shown_above else f"{sign} {word} {abs(came_from - rank)}", colour


def leaving_text(went_to: int | None) -> str:
    """`to 24` for a photo that is not among those shown below."""
    return f"{DOWN_SIGN} to {went_to}" if went_to else f"{DOWN_SIGN} not found"


def _cell_x(place: int, cell_px: int) -> int:
    """Left edge of a photo's cell, from 0."""
    first = drawing.MARGIN_PX + 3 * drawing.FRAME_PX + cell_px + QUERY_GAP_PX + NAME_PX
    return first + place * (cell_px + 2 * drawing.FRAME_PX + GAP_PX)


def _draw_query(sheet: Sheet, row: _Row, query: QueryPhoto, cell_px: int) -> None:
    tile, x = row.query_tile, drawing.MARGIN_PX + drawing.FRAME_PX
    assert tile is not None
    left, top = x + (cell_px - tile.pixels.shape[1]) // 2, row.base - tile.pixels.shape[0]
    sheet.paste(left, top, drawing.with_box(tile, query.bbx))
    drawing.draw_problem(sheet, left, top, tile)
    drawing.draw_query_label(sheet, x, row.base + drawing.FRAME_PX, cell_px, query.name, "")


def _draw_row(sheet: Sheet, row: _Row, n_above: int, n_below: int, cell_px: int) -> None:
    """A system's name and AP, its photos with their labels and, below, how far each moved."""
    lines = drawing.wrap(row.system.name, NAME_PX - 16, drawing.BODY_PX, n_lines=NAME_LINES, bold=True)
    name_x = _cell_x(0, cell_px) - drawing.FRAME_PX - NAME_PX
    middle = row.base - row.photo_height_px / 2 - NAME_LINE_PX * len(lines) / 2
    for i, line in enumerate(lines):
        sheet.text(name_x, middle + NAME_LINE_PX * i, line, bold=True)
    for i, line in enumerate(drawing.wrap(row.system.subtitle, NAME_PX - 16, drawing.BODY_PX, n_lines=2)):
        sheet.text(name_x, middle + NAME_LINE_PX * (len(lines) + i) + 4, line)
    if not row.system.photos:
        sheet.text(_cell_x(0, cell_px), row.base - row.photo_height_px / 2, "nothing found")
    for place, (photo, tile) in enumerate(zip(row.system.photos, row.tiles, strict=True)):
        x, (height_px, width_px) = _cell_x(place, cell_px), tile.pixels.shape[:2]
        left, top = x + (cell_px - width_px) // 2, row.base - height_px
        sheet.paste(left, top, tile.pixels)
        sheet.frame(left, top, width_px, height_px, drawing.VERDICT_COLOURS[photo.verdict])
        drawing.draw_problem(sheet, left, top, tile)
        drawing.draw_label(sheet, x, row.base + drawing.FRAME_PX, cell_px, photo, f"{photo.score:.3f}")
        y = row.base + drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + 13
        if row.system.came_from:
            text, colour = move_text(photo.rank, row.system.came_from[place], n_above)
            sheet.text(x, y, text, drawing.SMALL_PX, colour=colour, bold=True)
        if row.system.went_to and not 1 <= (row.system.went_to[place] or 0) <= n_below:
            sheet.text(
                x + cell_px,
                y,
                leaving_text(row.system.went_to[place]),
                drawing.SMALL_PX,
                colour=DOWN,
                bold=True,
                align="right",
            )


def _draw_moves(sheet: Sheet, above: _Row, below: _Row, cell_px: int) -> None:
    """An arrow from each photo of the row above to its place in the row below; a short one where a photo comes from
    further down."""
    for place, (photo, tile, came_from) in enumerate(
        zip(below.system.photos, below.tiles, below.system.came_from, strict=True)
    ):
        x = _cell_x(place, cell_px) + cell_px / 2
        end = (x, below.base - tile.pixels.shape[0] - drawing.FRAME_PX - 2)
        turn = (x, below.y - drawing.FRAME_PX - 22)
        _, colour = move_text(photo.rank, came_from, len(above.system.photos))
        if came_from is None or came_from > len(above.system.photos):
            sheet.arrow([(x, turn[1] - 16), turn, end], colour, dashed=colour == DOWN)
        else:
            start = (_cell_x(came_from - 1, cell_px) + cell_px / 2, above.bottom + 4)
            sheet.arrow([start, turn, end], colour, dashed=colour == DOWN, line_px=2.0 if colour == SAME else 3.0)


def _rows_of(block: QueryBlock, tile_px: int, top: int) -> list[_Row]:
    """The block's rows, the first of which begins at `top`."""
    rows: list[_Row] = []
    moves = any(system.came_from for system in block.systems)
    query_tile: Tile | None = drawing.load_tile(block.query.path_or_pixels, tile_px, tile_px)
    for system in block.systems:
        y = rows[-1].bottom + (MOVE_ROOM_PX if moves else ROW_GAP_PX) + drawing.FRAME_PX if rows else top
        tiles = [drawing.load_tile(photo.path_or_pixels, tile_px, tile_px) for photo in system.photos]
        rows.append(_Row(system, tiles, query_tile, y, moves))
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
    most = max(len(system.photos) for block in blocks for system in block.systems)
    if most > MOST_PHOTOS:
        raise UltronError(f"searches side by side show at most {MOST_PHOTOS} photos a row, found {most}; lower -k")
    n_columns = 1 + max(1, most)
    room_px = (
        (FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - QUERY_GAP_PX - NAME_PX) // n_columns - GAP_PX - 2 * drawing.FRAME_PX
    )
    tile_px = min(WIDEST_TILE_PX, room_px)
    cell_px = max(NARROWEST_CELL_PX, tile_px)
    width_px = max(_cell_x(max(1, most), cell_px) - GAP_PX - drawing.FRAME_PX + drawing.MARGIN_PX, drawing.MIN_WIDTH_PX)
    moves = any(system.came_from for block in blocks for system in block.systems)
    header = Header.of(title, MOVES_NOTE if moves else "", width_px)
    verdicts = {photo.verdict for block in blocks for system in block.systems for photo in system.photos}
    has_box = any(block.query.bbx for block in blocks)
    top = header.height_px + (drawing.LEGEND_HEIGHT_PX if has_box or verdicts - {"unknown"} else 0) + drawing.FRAME_PX
    n_rows = sum(len(block.systems) for block in blocks)
    drawing.check_size(
        width_px, n_rows * (2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + ROW_GAP_PX), "draw fewer queries"
    )  # before photos are read
    placed: list[list[_Row]] = []
    for block in blocks:
        placed.append(_rows_of(block, tile_px, placed[-1][-1].bottom + BLOCK_GAP_PX if placed else top))
    height_px = placed[-1][-1].bottom + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer queries")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    drawing.draw_legend(sheet, drawing.MARGIN_PX, header.height_px + 8, verdicts, has_box)
    for block, rows in zip(blocks, placed, strict=True):
        if rows is not placed[0]:
            sheet.fill(
                drawing.MARGIN_PX, rows[0].y - BLOCK_GAP_PX // 2, width_px - 2 * drawing.MARGIN_PX, 1, drawing.LINE_GREY
            )
        _draw_query(sheet, rows[0], block.query, cell_px)
        line_x = drawing.MARGIN_PX + 2 * drawing.FRAME_PX + cell_px + QUERY_GAP_PX // 2
        sheet.fill(line_x, rows[0].y, 1, rows[-1].bottom - rows[0].y, drawing.LINE_GREY)
        counts = [len(row.system.photos) for row in rows]
        for i, row in enumerate(rows):
            _draw_row(sheet, row, counts[i - 1] if i else 0, counts[i + 1] if i + 1 < len(rows) else 0, cell_px)
            if i and row.system.came_from:
                _draw_moves(sheet, rows[i - 1], row, cell_px)
    tiles = [
        (photo.name, tile)
        for rows in placed
        for row in rows
        for photo, tile in zip(row.system.photos, row.tiles, strict=True)
    ]
    tiles += [
        (block.query.name, rows[0].query_tile) for block, rows in zip(blocks, placed, strict=True) if rows[0].query_tile
    ]
    drawing.log_problems(tiles)
    sheet.save(out_path)
    return out_path
