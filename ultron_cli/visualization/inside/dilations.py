"""Which dilation each channel of CDConv chose for each photo: a heat map over channels, and shares per block and stage.

Legend: N photos, C channels of one block's CDConv.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.parts.cdconv import CDConv, choose_dilation
from ultron_cli.visualization import drawing, plots

# From dark to light in even steps, so that they differ in grey too (of the cividis colours, made for colour-blind
# readers).
COLOURS = ("#00224e", "#7d7c78", "#fee838")
MOST_NAMED = 30
BAR_COLUMN_INCHES = 3.6
MAP_PX = 780  # about as many pixels as a heat map is wide


@dataclass(frozen=True, kw_only=True)
class Dilations:
    """What CDConv chose for photos."""

    names: list[str]  # of the photos
    choices: dict[str, list[np.ndarray]]  # stage name -> per block, (N, C) int64
    values: tuple[int, ...]  # the three dilations of the model, ascending

    def shares(self, stage: str, block: int | None = None) -> np.ndarray:
        """(3,) float64, summing to 1: share of each of `values` among photos and channels of a stage, or of one of its
        blocks (from 0)."""
        blocks = self.choices[stage] if block is None else [self.choices[stage][block]]
        counts = np.array([sum(int((block == value).sum()) for block in blocks) for value in self.values], np.float64)
        return counts / max(1.0, counts.sum())


def cdconvs_of(model: RetrievalModel) -> dict[str, list[CDConv]]:
    """The CDConvs per stage. Raises UltronError for models without any."""
    cdconvs: dict[str, list[CDConv]] = {}
    for i, layers in enumerate(model.stage_layers().values()):
        stage_cdconvs = [module for module in layers.modules() if isinstance(module, CDConv)]
        if stage_cdconvs:
            cdconvs[f"stage {i + 1}"] = stage_cdconvs
    if not cdconvs:
        raise UltronError(
            f"dilations are chosen by CDConv, in ULTRON models with depthwise=cdconv, found {model.label}; "
            "name a run or weights of one"
        )
    return cdconvs


@contextmanager
def _recorded(layers: Sequence[CDConv]) -> Iterator[list[torch.Tensor]]:
    """Inside, the dilations (B, C) that each layer chooses are appended in the order the network runs."""
    dilations: list[torch.Tensor] = []

    def keep(layer: CDConv, _: nn.Module, __: object, importance: torch.Tensor) -> None:
        dilations.append(choose_dilation(importance, layer.thresholds, layer.threshold_kind, layer.deltas).cpu())

    handles = [layer.importance.register_forward_hook(partial(keep, layer)) for layer in layers]
    try:
        yield dilations
    finally:
        for handle in handles:
            handle.remove()


def gather(model: RetrievalModel, photos: Iterator[tuple[str, np.ndarray]]) -> Dilations:
    """The dilations that a model chooses for photos, given as names and pixels (H, W, 3) uint8 of any size.

    Raises UltronError for models without CDConv and where there is no photo.
    """
    stages = cdconvs_of(model)
    layers = [layer for blocks in stages.values() for layer in blocks]
    device = next(model.parameters()).device
    names = []
    rows = []  # per photo and CDConv, (C,) int64
    model.eval()
    for name, pixels in photos:
        with _recorded(layers) as dilations, torch.inference_mode():
            model.feature_map(
                normalise_images(torch.tensor(np.ascontiguousarray(pixels), device=device)[None], model.preprocessing)
            )
        names.append(name)
        rows.append([of_layer[0].numpy() for of_layer in dilations])
    if not names:
        raise UltronError("there is no photo to choose dilations for; name a dataset with photos")
    stacked = iter([np.stack(block) for block in zip(*rows, strict=True)])
    values = tuple(sorted({1, *(delta for layer in layers for delta in layer.deltas)}))
    return Dilations(
        names=names, choices={stage: [next(stacked) for _ in blocks] for stage, blocks in stages.items()}, values=values
    )


def write_csv(result: Dilations, out: Path) -> None:
    """One line per photo, stage, block (from 1) and channel (from 0): the dilation."""
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["photo", "stage", "block", "channel", "dilation"])
    for stage, blocks in result.choices.items():
        for number, block in enumerate(blocks, start=1):
            for name, row in zip(result.names, block.tolist(), strict=True):
                writer.writerows(
                    [name, stage.removeprefix("stage "), number, channel, value] for channel, value in enumerate(row)
                )
    write_text(out, sheet.getvalue())


def _colours(values: tuple[int, ...]) -> np.ndarray:
    """(n, 3) float: of the values in their order."""
    colours = COLOURS[:: 2 if len(values) == 2 else 1]  # of two values the darkest and the lightest
    return np.array([to_rgb(colour) for colour in colours[: len(values)]])


def _draw_channels(axes: Axes, result: Dilations, stage: str) -> None:
    """Photos as rows, channels as columns, blocks side by side with a gap between; all blocks of a stage are equally
    wide."""
    blocks = result.choices[stage]
    colours = _colours(result.values)
    n_channels = sum(block.shape[1] for block in blocks)
    gap = 0.012 * n_channels
    first = 0.0  # left edge of a block
    ticks = {}
    for i, block in enumerate(blocks, start=1):
        width = block.shape[1]
        picture = (255 * colours[np.searchsorted(result.values, block)]).round().astype(np.uint8)
        if n_channels > MAP_PX:  # channels that share a pixel are averaged in colour, none is dropped
            share = (max(1, width * MAP_PX // n_channels), len(block))
            picture = np.asarray(Image.fromarray(picture).resize(share, Image.Resampling.BOX))
        axes.imshow(picture, extent=(first, first + width, len(block), 0), aspect="auto", interpolation="nearest")
        axes.text(
            first + width / 2, -0.02 * len(block), f"block {i}", ha="center", va="bottom", fontsize=plots.SMALL_PT
        )
        ticks |= {first + place: f"{place}" for place in (0, width // 2)}
        first += width + gap
    axes.set_xlim(0, first - gap)
    axes.set_xticks(list(ticks), list(ticks.values()))
    for spine in axes.spines.values():
        spine.set_visible(False)
    each = "1 block" if len(blocks) == 1 else f"{len(blocks)} blocks"
    note = ", neighbours mixed" if n_channels > MAP_PX else ""
    axes.set_xlabel(
        f"channel of CDConv within a block ({stage}: {each} of {blocks[0].shape[1]} channels{note})",
        fontsize=plots.LABEL_PT,
    )
    axes.set_ylim(len(result.names), 0)
    if len(result.names) <= MOST_NAMED:
        axes.set_yticks(
            np.arange(len(result.names)) + 0.5,
            [plots.shortened(name, 150) for name in result.names],
            fontsize=plots.SMALL_PT,
        )
    else:
        axes.set_ylabel("photo (row)", fontsize=plots.LABEL_PT)


def _draw_shares(axes: Axes, result: Dilations, stage: str) -> None:
    """One stacked bar for the stage, then one per block."""
    n_blocks = len(result.choices[stage])
    bars = [result.shares(stage)]
    labels = [stage]
    if n_blocks > 1:
        bars += [result.shares(stage, block) for block in range(n_blocks)]
        labels += [f"block {block + 1}" for block in range(n_blocks)]
    colours = _colours(result.values)
    for y, shares in enumerate(bars):
        left = 0.0
        for share, colour in zip(100 * shares, colours, strict=True):
            axes.barh(y, share, left=left, color=colour, edgecolor="white", height=0.7)
            if share >= 12:
                ink = "white" if colour.mean() < 0.45 else "black"
                axes.text(
                    left + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=plots.SMALL_PT, color=ink
                )
            left += share
    axes.set_yticks(range(len(bars)), labels, fontsize=plots.SMALL_PT)
    axes.set_ylim(max(len(bars), 4) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of channels \u00d7 photos (%)", fontsize=plots.LABEL_PT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def dilation_figure(result: Dilations, title: str, out: Path) -> Path:
    """Per stage: dilation by photo and channel, and its shares. PNG, PDF or SVG. title: model and dataset."""
    n_photos, n_stages = len(result.names), len(result.choices)
    row_inches = max(
        2.6, 0.22 * min(n_photos, 60) + 1.1, *(0.34 * len(blocks) + 1.4 for blocks in result.choices.values())
    )
    figure = plots.new_figure(13.0, row_inches * n_stages + 0.7, title)
    grid = figure.subplots(n_stages, 2, squeeze=False, width_ratios=[13.0 - BAR_COLUMN_INCHES, BAR_COLUMN_INCHES])
    for (channels, shares), stage in zip(grid, result.choices, strict=True):
        _draw_channels(channels, result, stage)
        _draw_shares(shares, result, stage)
    legend = zip(result.values, _colours(result.values), strict=True)
    handles = [
        Patch(facecolor=tuple(colour), edgecolor=drawing.INK, label=f"dilation {value}") for value, colour in legend
    ]
    plots.legend_below_header(figure, handles, most_columns=len(handles))
    return plots.save_figure(figure, out)
