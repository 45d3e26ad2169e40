"""SCALA's window weights at a point of a photo, per head: what that place attends to.

Legend: H W photo size in pixels, h w map size, k window.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from torch import nn
from ultron_kernels.reference import window_keys

from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.parts.scala import ScalaAttention
from ultron_cli.visualization import drawing, plots
from ultron_cli.visualization.drawing import overlay

PHOTO_INCHES, HEAD_INCHES, HEADS_PER_ROW = 5.2, 2.3, 6
POINT_COLOUR, WINDOW_COLOUR = "#F0E442", "#56B4E9"


@dataclass(frozen=True, kw_only=True)
class WindowWeights:
    """What one cell attends to, head by head."""

    weights: np.ndarray  # (heads, kh, kw) float32, each head's sum 1
    rows: np.ndarray  # (kh,) of the window's cells in the map
    columns: np.ndarray  # (kw,)
    cell: tuple[int, int]  # (row, column) of the point
    grid: tuple[int, int]  # (h, w)


def weights_at(attention: ScalaAttention, features: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """(heads, kh, kw): the softmax over the window of one cell, as scala_attention computes it (Algorithm 2). features:
    (1, h, w, C)."""
    _, height, width, _ = features.shape
    query, key, _ = attention.heads(features)
    rows, columns = (
        window_keys(length, attention.window, features.device)[at] for length, at in ((height, row), (width, column))
    )
    near = key[0][rows[:, None], columns[None]]  # (kh, kw, heads, d)
    scores = torch.einsum("hd,ijhd->hij", query[0, row, column] * query.shape[-1] ** -0.5, near)
    offsets_y = rows - row + attention.window - 1
    offsets_x = columns - column + attention.window - 1
    scores = scores + attention.position_bias[:, offsets_y[:, None], offsets_x[None]]
    return scores.flatten(1).softmax(dim=1).view(scores.shape)


def attentions_of(model: RetrievalModel, stage: int) -> list[ScalaAttention]:
    """The local attentions of stage 3 or 4 of a model with SCALA, block by block. Raises UltronError for others."""
    stages = list(model.stage_layers().values())
    if len(stages) < 4:
        raise UltronError(
            f"window weights are of SCALA, in ULTRON models, found {model.label}; name a run or weights of one"
        )
    if stage not in (3, 4):
        raise UltronError(f"`stage` must be 3 or 4, whose blocks attend; found {stage}")
    attentions = [module for module in stages[stage - 1].modules() if isinstance(module, ScalaAttention)]
    if not attentions:
        raise UltronError(
            f"stage {stage} of this {model.label} has no SCALA blocks; name a run or weights of a model with "
            "attention=scala or na"
        )
    return attentions


def window_weights(
    model: RetrievalModel, photo: np.ndarray, at: tuple[float, float], stage: int, block: int | None = None
) -> WindowWeights:
    """The weights at a point of a photo (H, W, 3) uint8. at: (x, y) in shares of it, 0..1. block: from 1; None: the
    stage's last."""
    layers = attentions_of(model, stage)
    number = block or len(layers)
    if not 1 <= number <= len(layers):
        raise UltronError(
            f"`block` must lie between 1 and {len(layers)}, the blocks of stage {stage} of {model.label}; "
            f"found {number}"
        )
    layer = layers[number - 1]
    layer_inputs: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        layer_inputs.append(inputs[0])

    handle = layer.register_forward_pre_hook(keep)
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.inference_mode():
            model.feature_map(
                normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
            )
            features = layer_inputs[-1]
            _, height, width, _ = features.shape
            row = min(int(at[1] * height), height - 1)
            column = min(int(at[0] * width), width - 1)
            weights = weights_at(layer, features, row, column).float().cpu().numpy()
    finally:
        handle.remove()
    rows, columns = (
        window_keys(length, layer.window, torch.device("cpu"))[place].numpy()
        for length, place in ((height, row), (width, column))
    )
    return WindowWeights(weights=weights, rows=rows, columns=columns, cell=(row, column), grid=(height, width))


def _frame(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    for line_colour, line_pt in (("black", 3.6), (colour, 1.8)):
        axes.add_patch(
            Rectangle((x, y), width, height, fill=False, edgecolor=line_colour, linewidth=line_pt, clip_on=False)
        )


def _draw_head(axes: Axes, photo: np.ndarray, window: WindowWeights, weights: np.ndarray, scale: Normalize) -> None:
    """The window's part of the photo in grey under one head's weights (kh, kw), cell by cell."""
    cell_height = photo.shape[0] / window.grid[0]
    cell_width = photo.shape[1] / window.grid[1]
    x = float(window.columns[0] * cell_width)
    y = float(window.rows[0] * cell_height)
    right = x + len(window.columns) * cell_width
    bottom = y + len(window.rows) * cell_height
    part = photo[int(y) : max(int(bottom), int(y) + 1), int(x) : max(int(right), int(x) + 1)]
    place_y = (np.arange(part.shape[0]) * len(window.rows) // part.shape[0])[:, None]
    place_x = (np.arange(part.shape[1]) * len(window.columns) // part.shape[1])[None]
    axes.imshow(
        overlay(part, np.asarray(scale(100 * weights))[place_y, place_x].clip(0, 1)),
        extent=(x, right, bottom, y),
        interpolation="nearest",
    )
    _frame(axes, window.cell[1] * cell_width, window.cell[0] * cell_height, cell_width, cell_height, POINT_COLOUR)
    plots.no_ticks(axes)


def attention_figure(photo: np.ndarray, window: WindowWeights, title: str, photo_name: str, out: Path) -> Path:
    """The photo with the point's cell and window, and every head's weights over the window on one scale. PNG, PDF or
    SVG."""
    panels = [
        ("mean of heads", window.weights.mean(axis=0)),
        *((f"head {i}", weights) for i, weights in enumerate(window.weights, start=1)),
    ]
    columns_of_two_rows = -(-len(panels) // 2)
    n_columns = min(HEADS_PER_ROW, columns_of_two_rows if len(panels) > 3 else len(panels))
    n_rows = -(-len(panels) // n_columns)
    cell_height = photo.shape[0] / window.grid[0]
    cell_width = photo.shape[1] / window.grid[1]
    window_ratio = len(window.rows) * cell_height / (len(window.columns) * cell_width)
    photo_inches = PHOTO_INCHES * min(1.3, photo.shape[0] / photo.shape[1]) + 0.6
    heads_inches = (HEAD_INCHES * min(window_ratio, 1.5) + 0.35) * n_rows
    height_inches = max(photo_inches, heads_inches) + 0.5
    note = "How much the marked cell takes from each cell of its window; pixels as the model saw them."
    figure = plots.new_figure(PHOTO_INCHES + HEAD_INCHES * n_columns + 1.2, height_inches, title, note)
    frames = ((POINT_COLOUR, "the point's cell"), (WINDOW_COLOUR, "its window"))
    plots.legend_below_header(figure, [plots.frame_mark(colour, words) for colour, words in frames], most_columns=2)
    width_ratios = [PHOTO_INCHES, HEAD_INCHES * n_columns + 1.2]
    ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=width_ratios)
    axes = left.subplots()
    axes.imshow(photo, extent=(0, photo.shape[1], photo.shape[0], 0), interpolation="lanczos")
    _frame(
        axes,
        window.columns[0] * cell_width,
        window.rows[0] * cell_height,
        len(window.columns) * cell_width,
        len(window.rows) * cell_height,
        WINDOW_COLOUR,
    )
    _frame(axes, window.cell[1] * cell_width, window.cell[0] * cell_height, cell_width, cell_height, POINT_COLOUR)
    axes.set_title(plots.shortened(photo_name, PHOTO_INCHES * drawing.DPI), fontsize=plots.LABEL_PT)
    axes.tick_params(labelsize=plots.SMALL_PT)
    scale = Normalize(100 * float(window.weights.min()), 100 * float(window.weights.max()))
    grid = right.subplots(n_rows, n_columns, squeeze=False)
    for panel in grid.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (name, weights) in zip(grid.flat, panels, strict=False):
        _draw_head(panel, photo, window, weights, scale)
        panel.set_title(f"{name}: {100 * weights.min():.1f} to {100 * weights.max():.1f} %", fontsize=plots.SMALL_PT)
    bar = right.colorbar(ScalarMappable(scale, plots.heat_colours()), ax=grid, fraction=0.05, pad=0.02)
    bar.set_label(f"attention weight (%; even would be {100 / window.weights[0].size:.1f})", fontsize=plots.LABEL_PT)
    return plots.save_figure(figure, out)
