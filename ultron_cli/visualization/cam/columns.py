"""The figure of several models' similarity maps: the same photos in rows, a model in each column, the photos themselves
at the left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, lettering, tiles
from ultron_cli.visualization.cam.method_table import map_method
from ultron_cli.visualization.cam.sheet import BAR_PX, GAP_PX, draw_caption, heat_tile, note_of
from ultron_cli.visualization.cam.similarity import Cam
from ultron_cli.visualization.drawing import Header, Sheet, TextStyle
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile

MOST_MODELS = 8
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 280, 170, 2400
PHOTO_GAP_PX, ROW_GAP_PX = 34, 12
NAME_LINE_PX, NAME_LINES = 21, 3


@dataclass(frozen=True)
class CamColumn:
    """One model's maps."""

    name: str
    query_cam: Cam  # of the query, for the first photo
    cams: Sequence[Cam]  # of the photos, in their order
    crop: Box | None = None  # the part of the query that this model saw
    # Of the photos in the search by this model, None where it lacks one; empty where the model made no search.
    ranks: Sequence[int | None] = ()

    @property
    def layer(self) -> str | None:
        """Whose map it is of; None: the last before pooling."""
        return self.query_cam.layer


@dataclass(frozen=True)
class _Grid:
    """Where the columns' cells lie, all of one width."""

    cell_px: int

    def x(self, column: int) -> int:
        """Left edge of a column's cells; column 0 holds the photos."""
        step = self.cell_px + 2 * drawing.FRAME_PX + GAP_PX
        return drawing.MARGIN_PX + drawing.FRAME_PX + column * step + (PHOTO_GAP_PX - GAP_PX if column else 0)


def _names(columns: Sequence[CamColumn], cell_px: int) -> list[list[str]]:
    """The lines over each column: the model's name, and its layer where not all have the same."""
    same_layer = len({column.layer for column in columns}) == 1
    return [
        [
            *lettering.wrap(column.name, cell_px, drawing.BODY_PX, n_lines=NAME_LINES, bold=True),
            *([] if same_layer else [f"at {column.layer or 'the last map'}"]),
        ]
        for column in columns
    ]


def _draw_names(sheet: Sheet, names: Sequence[Sequence[str]], grid: _Grid, bottom: int) -> None:
    sheet.text(grid.x(0), bottom - 8, "photos", drawing.QUIET)
    for i, lines in enumerate(names, start=1):
        for j, line in enumerate(lines):
            is_layer = line.startswith("at ") and j == len(lines) - 1 and j > 0
            style: TextStyle = drawing.QUIET if is_layer else drawing.BOLD
            sheet.text(grid.x(i), bottom - 8 - NAME_LINE_PX * (len(lines) - 1 - j), line, style)


def _draw_row(sheet: Sheet, tile: Tile, cams: Sequence[tuple[Cam, Box | None, str]], grid: _Grid, y: int) -> int:
    """The heat of one photo in every column, below y; returns the bottom of the photos."""
    height_px, width_px = tile.pixels.shape[:2]
    base = y + drawing.FRAME_PX + height_px
    for i, (cam, box, caption) in enumerate(cams, start=1):
        sheet.paste(grid.x(i) + (grid.cell_px - width_px) // 2, base - height_px, heat_tile(tile, cam, box))
        draw_caption(sheet, grid.x(i), base, None if tile.problem else cam, caption)
    return base


def _caption(column: CamColumn, place: int) -> str:
    rank = column.ranks[place] if place < len(column.ranks) else None
    return f"cosine {column.cams[place].cosine:.3f}" + (f", rank {rank}" if rank else "")


def columns_figure(
    query: QueryPhoto,
    photos: Sequence[RankedPhoto],
    columns: Sequence[CamColumn],
    title: str,
    out_path: Path,
    *,
    searched: str,
) -> Path:
    """Draws the query and its photos in rows and each model's heat of them in a column, as PNG. Returns out_path.

    photos: with the rank and verdict of the search by the model `searched`. title: dataset and protocol. Every map is
    divided by its own largest value, so that models of other scales can be compared. Raises UltronError for no photos,
    fewer than 2 or more than 8 models.
    """
    if not 2 <= len(columns) <= MOST_MODELS:
        raise UltronError(f"maps side by side are of 2 to {MOST_MODELS} models, found {len(columns)}; draw fewer")
    if not photos:
        raise UltronError(
            "a figure of similarity maps needs at least one database photo; found none; ask for more with `k`"
        )
    columns_px = FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - BAR_PX - PHOTO_GAP_PX
    tile_px = min(WIDEST_TILE_PX, columns_px // (1 + len(columns)) - GAP_PX - 2 * drawing.FRAME_PX)
    row_tiles = [tiles.load_tile(photo.path, tile_px, tile_px) for photo in (query, *photos)]
    cell_px = max(NARROWEST_CELL_PX, *(tile.pixels.shape[1] for tile in row_tiles))
    names = _names(columns, cell_px)
    columns_end = _Grid(cell_px).x(len(columns)) + cell_px + drawing.FRAME_PX
    width_px = max(columns_end + GAP_PX + BAR_PX + drawing.MARGIN_PX, drawing.MIN_WIDTH_PX)
    same_layer = len({column.layer for column in columns}) == 1
    note = note_of(columns[0].query_cam, photos[0].rank, with_layer=same_layer)
    header = Header.of(title, f"{note} Ranks at the left: the search by {searched}.", width_px)
    names_bottom = header.height_px + drawing.LEGEND_HEIGHT_PX + NAME_LINE_PX * max(len(lines) for lines in names) + 6
    tops = [names_bottom]
    for tile in row_tiles:
        tops.append(tops[-1] + tile.pixels.shape[0] + 2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + ROW_GAP_PX)
    height_px = tops[-1] - ROW_GAP_PX + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer photos with `k`")
    sheet = Sheet(width_px, height_px)
    grid = _Grid(cell_px)
    header.draw(sheet)
    tiles.draw_legend(
        sheet, drawing.MARGIN_PX, header.height_px + 8, {photo.verdict for photo in photos}, query.bbx is not None
    )
    _draw_names(sheet, names, grid, names_bottom)
    line_x = grid.x(0) + cell_px + drawing.FRAME_PX + PHOTO_GAP_PX // 2
    sheet.fill(line_x, names_bottom, 1, height_px - names_bottom - drawing.MARGIN_PX, drawing.LINE_GREY)
    query_caption = f"for rank {photos[0].rank}" if map_method(columns[0].query_cam.method).of_pair else ""
    for place, tile in enumerate(row_tiles):
        if place == 0:
            cells = [(column.query_cam, column.crop, query_caption) for column in columns]
        else:
            cells = [(column.cams[place - 1], None, _caption(column, place - 1)) for column in columns]
        base = _draw_row(sheet, tile, cells, grid, tops[place])
        left, top = grid.x(0) + (cell_px - tile.pixels.shape[1]) // 2, base - tile.pixels.shape[0]
        if place == 0:
            sheet.paste(left, top, tiles.with_box(tile, query.bbx))
            tiles.draw_query_label(sheet, grid.x(0), base + drawing.FRAME_PX, cell_px, query.name, "")
        else:
            photo = photos[place - 1]
            sheet.paste(left, top, tile.pixels)
            sheet.frame(left, top, tile.pixels.shape[1], tile.pixels.shape[0], drawing.VERDICT_COLOURS[photo.verdict])
            tiles.draw_label(sheet, grid.x(0), base + drawing.FRAME_PX, cell_px, photo, f"score {photo.score:.3f}")
        tiles.draw_problem(sheet, left, top, tile)
    bar_x = grid.x(len(columns)) + cell_px + drawing.FRAME_PX + GAP_PX
    drawing.draw_heat_bar(sheet, bar_x, tops[0] + drawing.FRAME_PX, row_tiles[0].pixels.shape[0])
    tiles.log_problems([(photo.name, tile) for photo, tile in zip((query, *photos), row_tiles, strict=True)])
    sheet.save(out_path)
    return out_path
