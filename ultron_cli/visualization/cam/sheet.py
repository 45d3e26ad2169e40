"""The figure of similarity maps: photos above, the same photos with their heat below."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, tiles
from ultron_cli.visualization.cam.method_table import map_method
from ultron_cli.visualization.cam.similarity import Cam
from ultron_cli.visualization.drawing import Header, Sheet, overlay
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile

GAP_PX, QUERY_GAP_PX, BAND_GAP_PX, ROW_LABEL_PX, BAR_PX, CAPTION_PX = 14, 34, 22, 26, 78, 26
PAIRS_PER_BAND = 10
COSINES_NOTE = "Scores are the search's; the cosine below a map is of descriptors at one scale, before whitening."
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 280, 170, 2400


@dataclass(frozen=True)
class CamPair:
    """A database photo with its map for the query."""

    photo: RankedPhoto
    cam: Cam | None  # None where the photo could not be read


def heat_tile(tile: Tile, cam: Cam | None, bbx: Box | None = None) -> np.ndarray:
    """(h, w, 3) uint8: the tile with heat over it, or over its box only, the rest faded."""
    if cam is None or tile.problem:
        return tile.pixels
    height_px, width_px = tile.pixels.shape[:2]
    left, top, right, bottom = tiles.box_on_tile(tile, bbx) if bbx else (0, 0, width_px, height_px)
    resized = Image.fromarray(cam.heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    heat = np.asarray(resized).clip(0, 1)
    pixels = (255 - (255 - tile.pixels.astype(np.float64)) * 0.35).round().astype(np.uint8)
    pixels[top:bottom, left:right] = overlay(tile.pixels[top:bottom, left:right], heat)
    return pixels


@dataclass(frozen=True)
class _Band:
    """Up to PAIRS_PER_BAND pairs with their tiles: photos above, the same photos with their heat below."""

    pairs: Sequence[CamPair]
    tiles: list[Tile]
    query_tile: Tile | None

    @property
    def photo_height_px(self) -> int:
        """Height of the tallest tile."""
        band_tiles = [*self.tiles, *([self.query_tile] if self.query_tile else [])]
        return max(tile.pixels.shape[0] for tile in band_tiles)

    @property
    def height_px(self) -> int:
        """Of both rows with labels."""
        return 2 * (self.photo_height_px + 2 * drawing.FRAME_PX) + drawing.LABEL_HEIGHT_PX + CAPTION_PX


def _draw_band(
    sheet: Sheet, band: _Band, query: QueryPhoto, query_cam: Cam | None, y: int, cell_px: int, first_rank: int
) -> None:
    """One band with its top at y."""
    base = y + drawing.FRAME_PX + band.photo_height_px
    heat_base = base + 2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + band.photo_height_px
    of_pair = all(map_method(cam.method).of_pair for cam in (query_cam, *(pair.cam for pair in band.pairs)) if cam)
    for text, bottom in (("photos", base), ("similarity" if of_pair else "attention", heat_base)):
        sheet.upward_text(drawing.MARGIN_PX, bottom - band.photo_height_px / 2, text, drawing.QUIET)
    x = drawing.MARGIN_PX + ROW_LABEL_PX + drawing.FRAME_PX
    if band.query_tile:
        height_px, width_px = band.query_tile.pixels.shape[:2]
        left = x + (cell_px - width_px) // 2
        sheet.paste(left, base - height_px, tiles.with_box(band.query_tile, query.bbx))
        sheet.paste(left, heat_base - height_px, heat_tile(band.query_tile, query_cam, query.bbx))
        tiles.draw_problem(sheet, left, base - height_px, band.query_tile)
        tiles.draw_query_label(sheet, x, base + drawing.FRAME_PX, cell_px, query.name, "")
        draw_caption(sheet, x, heat_base, query_cam, f"for rank {first_rank}" if of_pair else "")
    sheet.fill(
        x + cell_px + drawing.FRAME_PX + QUERY_GAP_PX // 2, y + drawing.FRAME_PX, 1, heat_base - y, drawing.LINE_GREY
    )
    x += cell_px + 2 * drawing.FRAME_PX + QUERY_GAP_PX
    for pair, tile in zip(band.pairs, band.tiles, strict=True):
        height_px, width_px = tile.pixels.shape[:2]
        left, colour = x + (cell_px - width_px) // 2, drawing.VERDICT_COLOURS[pair.photo.verdict]
        sheet.paste(left, base - height_px, tile.pixels)
        sheet.frame(left, base - height_px, width_px, height_px, colour)
        tiles.draw_problem(sheet, left, base - height_px, tile)
        tiles.draw_label(
            sheet,
            x,
            base + drawing.FRAME_PX,
            cell_px,
            pair.photo,
            f"score {pair.photo.score:.3f}",
        )
        sheet.paste(left, heat_base - height_px, heat_tile(tile, pair.cam))
        draw_caption(sheet, x, heat_base, pair.cam, f"cosine {pair.cam.cosine:.3f}" if pair.cam else "no map")
        x += cell_px + 2 * drawing.FRAME_PX + GAP_PX
    tallest_px = band.photo_height_px
    drawing.draw_heat_bar(sheet, x + 4, heat_base - tallest_px, tallest_px)


def draw_caption(sheet: Sheet, x: int, base: int, cam: Cam | None, text: str) -> None:
    """The line below a map that ends at `base`; it says where a map is flat."""
    if cam is not None and cam.flat:
        text = f"{text}, flat map" if text else "flat map"
    sheet.text(x, base + 19, text, drawing.SMALL_QUIET)


def note_of(cam: Cam | None, rank: int, *, with_layer: bool = True) -> str:
    """What the figure's heat is, below its title. rank: of the photo that the query's own map is for."""
    method = map_method(cam.method if cam else "gradcam")
    layer = f" at {cam.layer}" if cam and cam.layer and with_layer else ""
    return f"{method.note.format(method=method.title, layer=layer, rank=rank)} {COSINES_NOTE}"


def cam_figure(query: QueryPhoto, query_cam: Cam | None, pairs: Sequence[CamPair], title: str, out_path: Path) -> Path:
    """Draws photos above and their heat below as PNG: the query, then its matches with rank, cosine and verdict.

    query.bbx: the box to which query_cam's photo was cropped; the heat lies inside it. query_cam: the query's map for
    pairs[0]. More than 10 pairs go on below. A photo that cannot be read is a grey tile with the reason, and a warning.
    title: model and dataset, as drawing.title_of makes it. Returns out_path. Raises UltronError for no pairs or too
    large a figure.
    """
    if not pairs:
        raise UltronError(
            "a figure of similarity maps needs at least one database photo; found none; ask for more with `k`"
        )
    n_columns = 1 + min(PAIRS_PER_BAND, len(pairs))
    columns_px = FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - ROW_LABEL_PX - BAR_PX - QUERY_GAP_PX
    tile_px = min(WIDEST_TILE_PX, columns_px // n_columns - GAP_PX - 2 * drawing.FRAME_PX)
    query_tile = tiles.load_tile(query.path, tile_px, tile_px)
    pair_tiles = [tiles.load_tile(pair.photo.path, tile_px, tile_px) for pair in pairs]
    bands = [
        _Band(
            pairs[start : start + PAIRS_PER_BAND],
            pair_tiles[start : start + PAIRS_PER_BAND],
            None if start else query_tile,
        )
        for start in range(0, len(pairs), PAIRS_PER_BAND)
    ]
    cell_px = max(NARROWEST_CELL_PX, *(tile.pixels.shape[1] for tile in [query_tile, *pair_tiles]))
    width_px = (
        2 * drawing.MARGIN_PX
        + ROW_LABEL_PX
        + n_columns * (cell_px + 2 * drawing.FRAME_PX + GAP_PX)
        + QUERY_GAP_PX
        - GAP_PX
        + BAR_PX
    )
    width_px = max(width_px, drawing.MIN_WIDTH_PX)
    first_cam = next((pair.cam for pair in pairs if pair.cam), None)
    header = Header.of(title, note_of(first_cam, pairs[0].photo.rank), width_px)
    top = header.height_px + drawing.LEGEND_HEIGHT_PX
    height_px = top + sum(band.height_px + BAND_GAP_PX for band in bands) - BAND_GAP_PX + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer photos with `k`")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    tiles.draw_legend(
        sheet, drawing.MARGIN_PX, header.height_px + 8, {pair.photo.verdict for pair in pairs}, query.bbx is not None
    )
    for band in bands:
        _draw_band(sheet, band, query, query_cam, top, cell_px, pairs[0].photo.rank)
        top += band.height_px + BAND_GAP_PX
    tiles.log_problems(
        [(query.name, query_tile), *((pair.photo.name, tile) for pair, tile in zip(pairs, pair_tiles, strict=True))]
    )
    sheet.save(out_path)
    return out_path
