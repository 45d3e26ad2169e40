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
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization import drawing, plots
from ultron_cli.visualization.drawing import overlay
from ultron_cli.visualization.inside.stages import map_at
from ultron_cli.visualization.tiles import RankedPhoto

PANEL_INCHES = 3.1
MOST_PHOTOS = 10
VERDICT_WORDS = {"right": "\u2713 right", "wrong": "\u2717 wrong", "ignored": "\u2013 ignored", "unknown": ""}


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
        raise UltronError(f"`box` is X1,Y1,X2,Y2 with X1 below X2 and Y1 below Y2, found {place_text(place)}")
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


def _mark(axes: Axes, region: Box, shape: tuple[int, ...]) -> None:
    """The chosen region: a cross for a point, else a box; light on dark, to be seen on any photo."""
    height, width = shape[:2]
    x1, y1 = region[0] * width, region[1] * height
    x2, y2 = region[2] * width, region[3] * height
    if x1 == x2:
        for colour, line_pt in (("black", 5.0), ("#F0E442", 2.4)):
            axes.plot(
                [x1],
                [y1],
                marker="+",
                markersize=18,
                markeredgewidth=line_pt,
                color=colour,
                linestyle="none",
                clip_on=False,
            )
        return
    for colour, line_pt in (("black", 4.5), ("#F0E442", 2.2)):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line_pt))


def _ring(axes: Axes, x: float, y: float, shape: tuple[int, ...]) -> None:
    """A ring around the best place, x and y in shares of the photo; light on dark."""
    for colour, line_pt in (("black", 4.5), ("white", 2.0)):
        axes.plot(
            [x * shape[1]],
            [y * shape[0]],
            marker="o",
            markersize=17,
            fillstyle="none",
            markeredgewidth=line_pt,
            color=colour,
            linestyle="none",
            clip_on=False,
        )


def _photo(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, extent=(0, pixels.shape[1], pixels.shape[0], 0), interpolation="lanczos")
    plots.no_ticks(axes)


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
            "with `photo`, or change -k"
        )
    panels = [(query.pixels, query.cosines), *((match.pixels, match.cosines) for match in matches)]
    low = min(float(cosines.min()) for _, cosines in panels)
    high = max(low + 1e-6, *(float(cosines.max()) for _, cosines in panels))
    tallest = max(pixels.shape[0] / pixels.shape[1] for pixels, _ in panels)
    figure = plots.new_figure(PANEL_INCHES * len(panels) + 1.0, 2 * PANEL_INCHES * min(tallest, 1.5) + 1.2, title)
    grid = figure.subplots(2, len(panels), squeeze=False)
    for column, (pixels, cosines) in enumerate(panels):
        _photo(grid[0, column], pixels)
        share = ((plots.enlarged(cosines, *pixels.shape[:2]) - low) / (high - low)).clip(0, 1)
        _photo(grid[1, column], overlay(pixels, share))
        match = matches[column - 1] if column else None
        name = query.name if match is None else match.photo.name
        verdict = f"  {VERDICT_WORDS[match.photo.verdict]}" if match else ""
        head = f"rank {match.photo.rank}{verdict}" if match else "query"
        grid[0, column].set_title(
            f"{head}\n{plots.shortened(name, (PANEL_INCHES - 0.3) * drawing.DPI)}", fontsize=plots.LABEL_PT
        )
        if match:
            x, y, cosine = match.best
            grid[1, column].set_xlabel(f"best place (ring): cosine {cosine:.3f}", fontsize=plots.LABEL_PT)
            for row in range(2):
                _ring(grid[row, column], x, y, pixels.shape)
        else:
            grid[1, column].set_xlabel("the query with itself", fontsize=plots.LABEL_PT)
            for row in range(2):
                _mark(grid[row, column], query.region, pixels.shape)
    grid[0, 0].set_ylabel("photos", fontsize=plots.LABEL_PT)
    grid[1, 0].set_ylabel("match of the marked place", fontsize=plots.LABEL_PT)
    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), plots.heat_colours()), ax=list(grid[1]), fraction=0.03, pad=0.01
    )
    bar.set_label(f"cosine of local features{f' at {layer}' if layer else ''}", fontsize=plots.LABEL_PT)
    return plots.save_figure(figure, out)
