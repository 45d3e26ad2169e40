"""Similarity maps: which places of a database photo match a chosen point or box of the query, by the cosine of local
features.

Legend: C channels, H W photo size in pixels, h w map size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.layer_maps import map_at
from ultron_cli.visualization import drawing, plots, tiles
from ultron_cli.visualization.drawing import Header, Sheet, overlay
from ultron_cli.visualization.tiles import RankedPhoto, Tile

GAP_PX, QUERY_GAP_PX, ROW_LABEL_PX, BAR_PX, CAPTION_PX = 14, 34, 26, 102, 26
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 280, 170, 2400
MOST_PHOTOS = 10


def local_features(model: RetrievalModel, photo: np.ndarray, layer: str | None = None) -> torch.Tensor:
    """(C, h, w) float32: the local features of a photo (H, W, 3) uint8, each of unit norm (0 where the map is 0).
    layer: as in map_at."""
    device = next(model.parameters()).device
    images = normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
    return F.normalize(map_at(model, images, layer)[0], dim=0).cpu()


def place_text(place: Sequence[float]) -> str:
    """`30,20`: a point or a box as it is given on the command line."""
    return ",".join(f"{side:g}" for side in place)


def region_of(at: tuple[float, float] | None, box: Box | None, crop: Box | None, size: tuple[int, int]) -> Box:
    """A point (x, y) or a box (x1, y1, x2, y2) in pixels of the whole query photo, as a box in shares (0..1) of what
    the model saw.

    crop: the query's own box, if it was cropped to it. size: (width, height) of the whole photo. A point is a box of no
    area. Raises UltronError if it lies outside, or unless just one of the two is given.
    """
    if (at is None) == (box is None):
        raise UltronError(
            "choose a place of the query with either `at` X,Y or `box` X1,Y1,X2,Y2, in pixels of the whole photo"
        )
    left, top, right, bottom = crop or (0.0, 0.0, float(size[0]), float(size[1]))
    place: Sequence[float] = box or at or ()
    x1, y1, x2, y2 = box or (*place, *place)
    if x1 > x2 or y1 > y2 or (box and (x1 == x2 or y1 == y2)):
        raise UltronError(f"`box` takes X1,Y1,X2,Y2 with X1 < X2 and Y1 < Y2; found {place_text(place)}")
    if x1 < left or y1 < top or x2 > right or y2 > bottom:
        what = "the query's box" if crop else "the query photo"
        raise UltronError(
            f"{place_text(place)} lies outside of {what}, x {left:g} to {right:g} and y {top:g} to {bottom:g}; choose "
            "a place inside"
        )
    width = right - left
    height = bottom - top
    return (x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height


def region_feature(features: torch.Tensor, region: Box) -> torch.Tensor:
    """(C,) of unit norm: the mean of the local features (C, h, w) whose cells' centres lie in the region (shares,
    0..1).

    Where no centre does, as for a point, the features around the region's own centre, weighed bilinearly.
    """
    height, width = features.shape[1:]
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    inside_y = (rows >= region[1]) & (rows <= region[3])
    inside_x = (columns >= region[0]) & (columns <= region[2])
    if region[0] == region[2] or not (inside_y.any() and inside_x.any()):
        # -1 to 1, as grid_sample counts
        place = torch.tensor([region[0] + region[2] - 1, region[1] + region[3] - 1], dtype=torch.float32)
        sampled = F.grid_sample(features[None], place[None, None, None], padding_mode="border", align_corners=False)
        return F.normalize(sampled[0, :, 0, 0], dim=0)
    return F.normalize(features[:, inside_y][:, :, inside_x].mean(dim=(1, 2)), dim=0)


def match_map(feature: torch.Tensor, features: torch.Tensor) -> np.ndarray:
    """Cosine, -1 to 1, of one unit feature (C,) with unit local features (C, h, w): (h, w) float32."""
    return torch.einsum("c,chw->hw", feature, features).clamp(-1, 1).numpy()


@dataclass(frozen=True)
class Match:
    """A database photo and where it matches."""

    photo: RankedPhoto
    pixels: np.ndarray  # (H, W, 3) uint8, as drawn
    cosines: np.ndarray  # (h, w), with the feature of the query's region

    @property
    def best(self) -> tuple[float, float, float]:
        """(x, y, cosine) of the best place, in shares of the photo: the middle of its cell."""
        row, column = np.unravel_index(int(self.cosines.argmax()), self.cosines.shape)
        return (
            (float(column) + 0.5) / self.cosines.shape[1],
            (float(row) + 0.5) / self.cosines.shape[0],
            float(self.cosines[row, column]),
        )


@dataclass(frozen=True)
class QueryRegion:
    """The query, cropped as the model saw it, and its region that is looked for."""

    name: str
    pixels: np.ndarray  # (H, W, 3) uint8, as drawn
    region: Box  # in shares of the pixels, 0..1
    cosines: np.ndarray  # (h, w), of the query's features with that of the region


def _marked(pixels: np.ndarray, region: Box) -> np.ndarray:
    """(h, w, 3) uint8 with the chosen region: a cross for a point, else a box; yellow on dark to be seen
    on any photo."""
    height, width = pixels.shape[:2]
    x1, y1 = region[0] * width, region[1] * height
    if region[0] != region[2]:
        return tiles.with_box(Tile(pixels), (x1, y1, region[2] * width, region[3] * height))
    marked = pixels.copy()
    x, y = round(x1), round(y1)
    for half_px, thick_px, colour in ((13, 4, (0, 0, 0)), (11, 2, drawing.BOX_COLOUR)):
        for reach_x, reach_y in ((half_px, thick_px // 2), (thick_px // 2, half_px)):
            top, left = max(y - reach_y, 0), max(x - reach_x, 0)
            marked[top : y + reach_y, left : x + reach_x] = colour
    return marked


def match_figure(
    query: QueryRegion, matches: Sequence[Match], title: str, out: Path, *, layer: str | None = None
) -> Path:
    """Photos above with the chosen place and its best matches, their cosines as heat below, on one scale. PNG, PDF or
    SVG.

    title: model and dataset. Raises UltronError for no photo or more than MOST_PHOTOS, or another suffix.
    """
    if not 1 <= len(matches) <= MOST_PHOTOS:
        raise UltronError(
            f"a figure of matches takes 1 to {MOST_PHOTOS} database photos, found {len(matches)}; name them "
            "with `photo`, or change `k`"
        )
    drawing.check_suffix(out)
    panels = [(query.pixels, query.cosines), *((match.pixels, match.cosines) for match in matches)]
    low = min(float(cosines.min()) for _, cosines in panels)
    high = max(low + 1e-6, *(float(cosines.max()) for _, cosines in panels))
    columns_px = FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - ROW_LABEL_PX - BAR_PX - QUERY_GAP_PX
    tile_px = min(WIDEST_TILE_PX, columns_px // len(panels) - GAP_PX - 2 * drawing.FRAME_PX)
    photos = [tiles.tile_of(Image.fromarray(pixels), tile_px, tile_px).pixels for pixels, _ in panels]
    heats = []
    for photo, (_, cosines) in zip(photos, panels, strict=True):
        share = (plots.enlarged(cosines, *photo.shape[:2]) - low) / (high - low)
        heats.append(overlay(photo, share.clip(0, 1)))
    cell_px = max(NARROWEST_CELL_PX, *(photo.shape[1] for photo in photos))
    tallest_px = max(photo.shape[0] for photo in photos)
    step_px = cell_px + 2 * drawing.FRAME_PX + GAP_PX
    first_x = drawing.MARGIN_PX + ROW_LABEL_PX + drawing.FRAME_PX
    bar_x = first_x + len(panels) * step_px + QUERY_GAP_PX - GAP_PX + 4
    width_px = max(bar_x + BAR_PX, drawing.MIN_WIDTH_PX)
    place = "point" if query.region[0] == query.region[2] else "box"
    note = f"Bright places have local features like those of the query's yellow {place}; a ring marks the best place."
    header = Header.of(title, note, width_px)
    verdicts = {match.photo.verdict for match in matches}
    legend_px = drawing.LEGEND_HEIGHT_PX if verdicts - {"unknown"} else 0
    base = header.height_px + legend_px + drawing.FRAME_PX + tallest_px
    heat_base = base + 2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + tallest_px
    height_px = heat_base + CAPTION_PX + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer photos with `k`")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    tiles.draw_legend(sheet, drawing.MARGIN_PX, header.height_px + 8, verdicts, has_box=False)
    for text, bottom in (("photos", base), ("match", heat_base)):
        sheet.upward_text(drawing.MARGIN_PX, bottom - tallest_px / 2, text, drawing.QUIET)
    line_x = first_x + cell_px + drawing.FRAME_PX + QUERY_GAP_PX // 2
    sheet.fill(line_x, base - tallest_px, 1, heat_base - base + tallest_px, drawing.LINE_GREY)
    for column, (photo, heat) in enumerate(zip(photos, heats, strict=True)):
        match = matches[column - 1] if column else None
        x = first_x + column * step_px + (QUERY_GAP_PX - GAP_PX if column else 0)
        height, width = photo.shape[:2]
        left = x + (cell_px - width) // 2
        for pixels, bottom in ((photo, base), (heat, heat_base)):
            sheet.paste(left, bottom - height, pixels if match else _marked(pixels, query.region))
            if match:
                sheet.ring(left + match.best[0] * width, bottom - height + match.best[1] * height)
        if match:
            sheet.frame(left, base - height, width, height, drawing.VERDICT_COLOURS[match.photo.verdict])
            score = f"score {match.photo.score:.3f}"
            tiles.draw_label(sheet, x, base + drawing.FRAME_PX, cell_px, match.photo, score)
        else:
            tiles.draw_query_label(sheet, x, base + drawing.FRAME_PX, cell_px, query.name, "")
        caption = f"best place: cosine {match.best[2]:.3f}" if match else "the query with itself"
        sheet.text(x, heat_base + 19, caption, drawing.SMALL_QUIET)
    label = f"cosine at {layer}" if layer else "cosine"
    drawing.draw_heat_bar(sheet, bar_x, heat_base - tallest_px, tallest_px, low=low, high=high, label=label)
    sheet.save(out)
    return out
