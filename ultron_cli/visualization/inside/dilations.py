"""Which dilation each channel of CDConv chose for each photo: a heat map over channels, and shares per block and stage.

Legend: N photos, C channels of one block's CDConv.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.parts.cdconv import CDConv, choose_dilation
from ultron_cli.models.ultron import UltronModel
from ultron_cli.visualization import drawing, plots

# From dark to light in even steps, so that they differ in grey too (of the cividis colours, made for colour-blind
# readers).
COLOURS = ("#00224e", "#7d7c78", "#fee838")
MOST_NAMED = 30
BAR_COLUMN_INCHES = 3.6
MAP_PX = 780  # about as many pixels as a heat map is wide


@dataclass(frozen=True, kw_only=True)
class Dilations:
    """choices: per stage name and block, (N, C) int64; names: of the photos; values: the three dilations of the model,
    ascending."""

    names: list[str]
    choices: dict[str, list[np.ndarray]]
    values: tuple[int, ...]

    def shares(self, stage: str, block: int | None = None) -> np.ndarray:
        """(3,) float64, summing to 1: share of each of `values` among photos and channels of a stage, or of one of its
        blocks (from 0)."""
        blocks = self.choices[stage] if block is None else [self.choices[stage][block]]
        counts = np.array([sum(int((chosen == value).sum()) for chosen in blocks) for value in self.values], np.float64)
        return counts / max(1.0, counts.sum())


def cdconvs_of(model: RetrievalModel) -> dict[str, list[CDConv]]:
    """The CDConvs per stage. Raises UltronError for models without any."""
    found: dict[str, list[CDConv]] = {}
    if isinstance(model, UltronModel):
        for i, blocks in enumerate(model.stages):
            mine = [module for module in blocks.modules() if isinstance(module, CDConv)]
            if mine:
                found[f"stage {i + 1}"] = mine
    if not found:
        raise UltronError(
            f"dilations are chosen by CDConv, in ULTRON models with depthwise=cdconv, found {model.label}; "
            "name a run or weights of one"
        )
    return found


@contextmanager
def _recorded(layers: Sequence[CDConv]) -> Iterator[list[torch.Tensor]]:
    """Inside, the dilations (B, C) that each layer chooses are appended in the order the network runs."""
    chosen: list[torch.Tensor] = []
    handles = [
        layer.importance.register_forward_hook(
            lambda _, __, importance, layer=layer: chosen.append(
                choose_dilation(importance, layer.thresholds, layer.threshold_kind, layer.deltas).cpu()
            )
        )
        for layer in layers
    ]
    try:
        yield chosen
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
    names, rows = [], []
    model.eval()
    for name, pixels in photos:
        with _recorded(layers) as chosen, torch.inference_mode():
            model.feature_map(
                normalise_images(torch.tensor(np.ascontiguousarray(pixels), device=device)[None], model.preprocessing)
            )
        names.append(name)
        rows.append([part[0].numpy() for part in chosen])
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
        for block, chosen in enumerate(blocks, start=1):
            for name, row in zip(result.names, chosen.tolist(), strict=True):
                writer.writerows(
                    [name, stage.removeprefix("stage "), block, channel, value] for channel, value in enumerate(row)
                )
    write_text(out, sheet.getvalue())


def _colours(values: tuple[int, ...]) -> np.ndarray:
    """(n, 3) float: of the values in their order."""
    chosen = COLOURS if len(values) == 3 else COLOURS[:: 2 if len(values) == 2 else 1][: len(values)]
    return np.array([to_rgb(colour) for colour in chosen])


def _draw_channels(axes: Axes, result: Dilations, stage: str) -> None:
    """Photos as rows, channels as columns, blocks side by side with a gap between; all blocks of a stage are equally
    wide."""
    blocks, colours = result.choices[stage], _colours(result.values)
    n_channels = sum(block.shape[1] for block in blocks)
    gap, first, ticks = 0.012 * n_channels, 0.0, {}
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
    bars = (
        [result.shares(stage), *(result.shares(stage, block) for block in range(n_blocks))]
        if n_blocks > 1
        else [result.shares(stage)]
    )
    labels = [stage, *(f"block {block + 1}" for block in range(n_blocks))][: len(bars)]
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
    figure = plots.new_figure(13.0, row_inches * n_stages + 1.1, title)
    grid = figure.subplots(n_stages, 2, squeeze=False, width_ratios=[13.0 - BAR_COLUMN_INCHES, BAR_COLUMN_INCHES])
    for (channels, shares), stage in zip(grid, result.choices, strict=True):
        _draw_channels(channels, result, stage)
        _draw_shares(shares, result, stage)
    legend = zip(result.values, _colours(result.values), strict=True)
    handles = [
        Patch(facecolor=tuple(colour), edgecolor=drawing.INK, label=f"dilation {value}") for value, colour in legend
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=plots.LABEL_PT
    )
    return plots.save_figure(figure, out)
