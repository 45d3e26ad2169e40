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
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ultron_cli.datasets.photos import Box
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization import drawing, plots
from ultron_cli.visualization.cam.similarity import overlay
from ultron_cli.visualization.drawing import RankedPhoto
from ultron_cli.visualization.inside.stages import map_at

PANEL_INCHES = 3.1
MOST_PHOTOS = 10
VERDICT_WORDS = {"right": "\u2713 right", "wrong": "\u2717 wrong", "ignored": "\u2013 ignored", "unknown": ""}


def local_features(model: RetrievalModel, photo: np.ndarray, layer: str | None = None) -> torch.Tensor:
    """(C, h, w) float32: the local features of a photo (H, W, 3) uint8, each of unit norm (0 where the map is 0).
    layer: as in map_at."""
    device = next(model.parameters()).device
    images = normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
    return F.normalize(map_at(model, images, layer)[0], dim=0).cpu()


def region_of(at: tuple[float, float] | None, box: Box | None, crop: Box | None, size: tuple[int, int]) -> Box:
    """A point (x, y) or a box (x1, y1, x2, y2) in pixels of the whole query photo, as a box in shares (0..1) of what
    the model saw.

    crop: the query's own box, if it was cropped to it. size: (width, height) of the whole photo. A point is a box of no
    area. Raises UltronError if it lies outside, or unless just one of the two is given.
    """
    if (at is None) == (box is None):
        raise UltronError(
            "choose a place of the query with either --at X,Y or --box X1,Y1,X2,Y2, in pixels of the whole photo"
        )
    left, top, right, bottom = crop or (0.0, 0.0, float(size[0]), float(size[1]))
    chosen = box or (*at, *at)  # type: ignore[misc]
    if chosen[0] > chosen[2] or chosen[1] > chosen[3] or (box and (chosen[0] == chosen[2] or chosen[1] == chosen[3])):
        raise UltronError(
            f"--box is X1,Y1,X2,Y2 with X1 below X2 and Y1 below Y2, found {','.join(f'{side:g}' for side in chosen)}"
        )
    if chosen[0] < left or chosen[1] < top or chosen[2] > right or chosen[3] > bottom:
        what = "the query's box" if crop else "the query photo"
        found = ",".join(f"{side:g}" for side in (box or at or ()))
        raise UltronError(
            f"{found} lies outside of {what}, x {left:g} to {right:g} and y {top:g} to {bottom:g}; choose a "
            "place inside"
        )
    width, height = right - left, bottom - top
    return (
        (chosen[0] - left) / width,
        (chosen[1] - top) / height,
        (chosen[2] - left) / width,
        (chosen[3] - top) / height,
    )


def region_feature(features: torch.Tensor, region: Box) -> torch.Tensor:
    """(C,) of unit norm: the mean of the local features (C, h, w) whose cells' centres lie in the region (shares,
    0..1).

    Where no centre does, as for a point, the features around the region's own centre, weighed bilinearly.
    """
    height, width = features.shape[1:]
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    inside_y, inside_x = (rows >= region[1]) & (rows <= region[3]), (columns >= region[0]) & (columns <= region[2])
    if region[0] == region[2] or not (inside_y.any() and inside_x.any()):
        place = torch.tensor(
            [region[0] + region[2] - 1, region[1] + region[3] - 1], dtype=torch.float32
        )  # -1 to 1, as grid_sample counts
        return F.normalize(
            F.grid_sample(features[None], place[None, None, None], padding_mode="border", align_corners=False)[
                0, :, 0, 0
            ],
            dim=0,
        )
    return F.normalize(features[:, inside_y][:, :, inside_x].mean(dim=(1, 2)), dim=0)


def match_map(feature: torch.Tensor, features: torch.Tensor) -> np.ndarray:
    """Cosine, -1 to 1, of one unit feature (C,) with unit local features (C, h, w): (h, w) float32."""
    return torch.einsum("c,chw->hw", feature, features).clamp(-1, 1).numpy()


@dataclass(frozen=True)
class Match:
    """A database photo as drawn, (H, W, 3) uint8, and its cosines (h, w)."""

    photo: RankedPhoto
    pixels: np.ndarray
    cosines: np.ndarray

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
class Chosen:
    """The query as drawn, cropped as the model saw it; the region in shares of it; its own cosines with that region."""

    name: str
    pixels: np.ndarray
    region: Box
    cosines: np.ndarray


def _mark(axes: Axes, region: Box, shape: tuple[int, ...]) -> None:
    """The chosen region: a cross for a point, else a box; light on dark, to be seen on any photo."""
    height, width = shape[:2]
    x1, y1, x2, y2 = region[0] * width, region[1] * height, region[2] * width, region[3] * height
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


def match_figure(query: Chosen, matches: Sequence[Match], title: str, out: Path, *, layer: str | None = None) -> Path:
    """Photos above with the chosen place and its best matches, their cosines as heat below, on one scale. PNG, PDF or
    SVG.

    title: model and dataset. Raises UltronError for no photo or more than MOST_PHOTOS, or another suffix.
    """
    if not 1 <= len(matches) <= MOST_PHOTOS:
        raise UltronError(
            f"a figure of matches takes 1 to {MOST_PHOTOS} database photos, found {len(matches)}; name them "
            "with --photo, or change -k"
        )
    shown = [(query.pixels, query.cosines), *((match.pixels, match.cosines) for match in matches)]
    low, high = min(float(cosines.min()) for _, cosines in shown), max(float(cosines.max()) for _, cosines in shown)
    high = max(high, low + 1e-6)
    tallest = max(pixels.shape[0] / pixels.shape[1] for pixels, _ in shown)
    figure: Figure = plots.new_figure(
        PANEL_INCHES * len(shown) + 1.0, 2 * PANEL_INCHES * min(tallest, 1.5) + 1.2, title
    )
    grid = figure.subplots(2, len(shown), squeeze=False)
    for column, (pixels, cosines) in enumerate(shown):
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
