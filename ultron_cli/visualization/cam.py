"""What drives the similarity of two photos: Grad-CAM with the cosine of their descriptors where a classifier has its class score.

Retrieval has no class (compare Chen et al., Adapting Grad-CAM for embedding networks, WACV 2020). The target here is the cosine
between the descriptor of the photo under study and the fixed descriptor of the other photo. A cosine does not change with the
length of a descriptor, so gradient times activation sums to 0 over the map of a GeM, average or maximum pooling: the heat shows
which places make the photos MORE alike than the photo as a whole, and between two equal descriptors there is no such place.

Grad-CAM weighs a channel by its mean gradient, also where the activation is negative and GeM, which clamps it, takes nothing from
it. For backbones whose last map has negative values (ViT, Swin) the result can be negative everywhere, and was so with random
weights; `hirescam` multiplies gradient and activation place by place and has no such error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import nn

from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization import drawing
from ultron_cli.visualization.drawing import Header, QueryPhoto, RankedPhoto, Sheet, Tile

__all__ = ["METHODS", "Cam", "CamPair", "QueryPhoto", "RankedPhoto", "cam_figure", "overlay", "similarity_cam", "write_overlay"]

# Descriptors nearer than this differ by rounding (float16 files: 3e-4); so would the gradient of their cosine.
SAME_DESCRIPTOR = 1e-3
ROUNDING = 1e-6  # of float32 sums, relative to their terms

HEAT_OPACITY = (0.35, 0.75)  # where heat is 0, where it is 1: the photo stays readable, the colours rise in lightness


@dataclass(frozen=True)
class Cam:
    """heat: (H, W) float32 from 0 to 1 at the photo's size; cosine: of the two descriptors; flat: nothing is above 0, so heat is all 0."""

    heat: np.ndarray
    cosine: float
    flat: bool = False
    method: str = "gradcam"


@dataclass(frozen=True)
class CamPair:
    """A database photo with its map for the query; cam: None where the photo could not be read."""

    photo: RankedPhoto
    cam: Cam | None


class _Traced(nn.Module):
    """The model with its feature map passing through `map`, a module that a CAM can watch whatever the backbone is."""

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        self.model = model
        self.map = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():  # gradients are wanted from the map on; none of the backbone is kept
            features = self.model.feature_map(images)
        traced = self.map(features.detach().requires_grad_())
        return F.normalize(self.model.pool(traced.clone()), dim=1)  # a clone, so that a pooling may work in place


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Frozen and in evaluation mode inside; modes, requires_grad and gradients as before outside."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for parameter, wanted, gradient in parameters:  # grad-cam calls zero_grad
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


def _cam_class(method: str) -> Any:
    one_of("CAM method", method, list(METHODS))
    try:
        import pytorch_grad_cam
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(f"maps of similarity need the grad-cam package, which cannot be imported ({reason}); run `pip install grad-cam`") from error
    return getattr(pytorch_grad_cam, METHODS[method].replace("-", ""))


def _check(model: RetrievalModel, photo: np.ndarray, other_descriptor: torch.Tensor) -> None:
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"photo must be (H, W, 3) uint8, found {photo.shape} {photo.dtype}")
    height, width = photo.shape[:2]
    if min(height, width) < model.min_side_px:
        raise UltronError(f"{model.label} takes photos of at least {model.min_side_px} px a side, found {width} x {height}; enlarge the photo")
    found, wanted = tuple(other_descriptor.shape), (model.descriptor_dim,)
    if found != wanted:
        raise UltronError(f"the other photo's descriptor has shape {found}, {model.label} gives {wanted}; take one of the same model")
    if not torch.isfinite(other_descriptor).all() or not other_descriptor.any():
        raise UltronError("the other photo's descriptor is zero or not finite; extract it again")


def similarity_cam(model: RetrievalModel, photo: np.ndarray, other_descriptor: torch.Tensor, *, method: str = "gradcam") -> Cam:
    """Where the photo is like the other photo: a CAM of the cosine between its descriptor (at scale 1) and the other's.

    photo: (H, W, 3) uint8, as the model is to see it (cropped, resized). other_descriptor: (D,), any length but 0. method: `gradcam`
    (Selvaraju et al., ICCV 2017, eq. 1 and 2), `hirescam` (Draelos and Carin 2020) or `layercam` (Jiang et al., TIP 2021). The map
    (h, w) is enlarged bilinearly to the photo and divided by its maximum; where a backbone pads a photo to whole patches it is
    stretched by less than one cell. The model's modes and gradients stay as they were.
    Raises UltronError for a descriptor of another model, a photo too small, an unknown method or if grad-cam is not installed.
    """
    _check(model, photo, other_descriptor)
    cam_class = _cam_class(method)
    device = next(model.parameters()).device
    with _left_as_found(model), torch.inference_mode(False), torch.enable_grad():
        other = F.normalize(other_descriptor.detach().clone().to(device, torch.float32), dim=0)
        images = normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
        traced = _Traced(model)
        tool, targets = cam_class(traced, [traced.map]), [lambda descriptor: descriptor @ other]
        tool(images, targets)  # scales its map from its own minimum to maximum; the map itself is taken below
        descriptor = tool.outputs[0].detach()
        activations, gradients = (kept[0].numpy() for kept in (tool.activations_and_grads.activations, tool.activations_and_grads.gradients))
        raw = tool.get_cam_image(images, traced.map, targets, activations, gradients, False)[0]  # no smoothing
        tool.activations_and_grads.release()
    if not torch.isfinite(descriptor).all() or not np.isfinite(raw).all():
        raise UltronError(f"{model.label} gives numbers that are not finite for this photo; its weights are damaged, load or train others")
    terms = (np.abs(gradients).mean(axis=(2, 3), keepdims=True) * np.abs(activations)).sum(axis=1)
    flat = bool(raw.max() <= ROUNDING * terms.max() or torch.linalg.vector_norm(descriptor - other) < SAME_DESCRIPTOR)
    return Cam(np.zeros(photo.shape[:2], np.float32) if flat else _enlarged(raw, *photo.shape[:2]), float(descriptor @ other), flat, method)


def _enlarged(raw: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(h, w) any sign, with a value above 0 -> (height_px, width_px) float32: negative as 0, bilinear, maximum 1."""
    positive = torch.from_numpy(raw).float().clamp(min=0)
    positive /= positive.max()  # first, so that tiny values do not underflow
    heat = F.interpolate(positive[None, None], size=(height_px, width_px), mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max()).numpy()


def overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the photo in grey under the colours of heat (H, W), 0..1; grey, so that every colour is the heat's.

    The colours are inferno: even steps in perception, rising in lightness, safe for colour-blind readers.
    """
    if photo.shape[:2] != heat.shape:
        raise ValueError(f"photo and heat must be of one size, found {photo.shape[:2]} and {heat.shape}")
    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float64)[..., None]
    opacity = (HEAT_OPACITY[0] + (HEAT_OPACITY[1] - HEAT_OPACITY[0]) * heat)[..., None]
    return (grey * (1 - opacity) + colormaps["inferno"](heat)[..., :3] * 255.0 * opacity).round().astype(np.uint8)


def write_overlay(path: Path, photo: np.ndarray, heat: np.ndarray) -> None:
    """Writes overlay(photo, heat) as PNG at the photo's size. Raises UltronError for another suffix."""
    drawing.save_png(path, overlay(photo, heat))


GAP_PX, QUERY_GAP_PX, BAND_GAP_PX, ROW_LABEL_PX, BAR_PX, CAPTION_PX = 14, 34, 22, 26, 78, 26
PAIRS_PER_BAND = 10
WIDEST_TILE_PX, NARROWEST_CELL_PX, FULL_WIDTH_PX = 280, 170, 2400
NOTE = "{method} of the cosine between query and photo. Bright places make the two alike; the query's own map is for rank {rank}."
# name -> as it is written; without hyphens, the class of the grad-cam package
METHODS = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM", "layercam": "LayerCAM"}


def _heat_tile(tile: Tile, cam: Cam | None, bbx: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """(h, w, 3) uint8: the tile with heat over it, or over its box only, the rest faded."""
    if cam is None or tile.problem:
        return tile.pixels
    height_px, width_px = tile.pixels.shape[:2]
    left, top, right, bottom = drawing.box_on_tile(tile, bbx) if bbx else (0, 0, width_px, height_px)
    heat = np.asarray(Image.fromarray(cam.heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)).clip(0, 1)
    drawn = (255 - (255 - tile.pixels.astype(np.float64)) * 0.35).round().astype(np.uint8)
    drawn[top:bottom, left:right] = overlay(tile.pixels[top:bottom, left:right], heat)
    return drawn


@dataclass(frozen=True)
class _Band:
    """Up to PAIRS_PER_BAND pairs with their tiles: photos above, the same photos with their heat below."""

    pairs: Sequence[CamPair]
    tiles: list[Tile]
    query_tile: Tile | None

    @property
    def photo_height_px(self) -> int:
        """Height of the tallest tile."""
        return max(tile.pixels.shape[0] for tile in [*self.tiles, *([self.query_tile] if self.query_tile else [])])

    @property
    def height_px(self) -> int:
        """Of both rows with labels."""
        return 2 * (self.photo_height_px + 2 * drawing.FRAME_PX) + drawing.LABEL_HEIGHT_PX + CAPTION_PX


def _draw_colour_bar(sheet: Sheet, x: int, y: int, height_px: int) -> None:
    """A bar of the colours of heat, 0 below and 1 above, with its label."""
    values = np.linspace(1.0, 0.0, height_px)[:, None].repeat(16, axis=1)
    sheet.paste(x, y, overlay(np.full((height_px, 16, 3), 128, np.uint8), values))
    for value in (0.0, 0.5, 1.0):
        level = y + round((1 - value) * (height_px - 1))
        sheet.fill(x + 16, level, 4, 1, (90, 90, 90))
        sheet.text(x + 24, level + 5, f"{value:g}", drawing.SMALL_PX, colour=drawing.QUIET_INK)
    sheet.text(x + 50, y + height_px / 2, "relative weight", drawing.SMALL_PX, colour=drawing.QUIET_INK, upright=False)


def _draw_band(sheet: Sheet, band: _Band, query: QueryPhoto, query_cam: Cam | None, y: int, cell_px: int, first_rank: int) -> None:
    """One band with its top at y."""
    base = y + drawing.FRAME_PX + band.photo_height_px
    heat_base = base + 2 * drawing.FRAME_PX + drawing.LABEL_HEIGHT_PX + band.photo_height_px
    for text, bottom in (("photos", base), ("similarity", heat_base)):
        sheet.text(drawing.MARGIN_PX, bottom - band.photo_height_px / 2, text, drawing.BODY_PX, colour=drawing.QUIET_INK, upright=False)
    x = drawing.MARGIN_PX + ROW_LABEL_PX + drawing.FRAME_PX
    if band.query_tile:
        height_px, width_px = band.query_tile.pixels.shape[:2]
        left = x + (cell_px - width_px) // 2
        sheet.paste(left, base - height_px, drawing.with_box(band.query_tile, query.bbx))
        sheet.paste(left, heat_base - height_px, _heat_tile(band.query_tile, query_cam, query.bbx))
        drawing.draw_problem(sheet, left, base - height_px, band.query_tile)
        drawing.draw_query_label(sheet, x, base + drawing.FRAME_PX, cell_px, query.name, "")
        _draw_caption(sheet, x, heat_base, query_cam, f"for rank {first_rank}")
    sheet.fill(x + cell_px + drawing.FRAME_PX + QUERY_GAP_PX // 2, y + drawing.FRAME_PX, 1, heat_base - y, drawing.LINE_GREY)
    x += cell_px + 2 * drawing.FRAME_PX + QUERY_GAP_PX
    for pair, tile in zip(band.pairs, band.tiles, strict=True):
        height_px, width_px = tile.pixels.shape[:2]
        left, colour = x + (cell_px - width_px) // 2, drawing.VERDICT_COLOURS[pair.photo.verdict]
        sheet.paste(left, base - height_px, tile.pixels)
        sheet.frame(left, base - height_px, width_px, height_px, colour)
        drawing.draw_problem(sheet, left, base - height_px, tile)
        drawing.draw_label(sheet, x, base + drawing.FRAME_PX, cell_px, pair.photo, f"cosine {pair.cam.cosine:.3f}" if pair.cam else "no map")
        sheet.paste(left, heat_base - height_px, _heat_tile(tile, pair.cam))
        _draw_caption(sheet, x, heat_base, pair.cam, "")
        x += cell_px + 2 * drawing.FRAME_PX + GAP_PX
    tallest_px = band.photo_height_px
    _draw_colour_bar(sheet, x + 4, heat_base - tallest_px, tallest_px)


def _draw_caption(sheet: Sheet, x: int, base: int, cam: Cam | None, text: str) -> None:
    if cam is not None and cam.flat:
        text = f"{text}, flat map" if text else "flat map"
    sheet.text(x, base + 19, text, drawing.SMALL_PX, colour=drawing.QUIET_INK)


def cam_figure(query: QueryPhoto, query_cam: Cam | None, pairs: Sequence[CamPair], title: str, out_path: Path) -> Path:
    """Draws photos above and their heat below as PNG: the query, then its matches with rank, cosine and verdict.

    query.bbx: the box to which query_cam's photo was cropped; the heat lies inside it. query_cam: the query's map for pairs[0].
    More than 10 pairs go on below. A photo that cannot be read is a grey tile with the reason, and a warning.
    title: model and dataset, as drawing.title_of makes it. Returns out_path. Raises UltronError for no pairs or too large a figure.
    """
    if not pairs:
        raise UltronError("a figure of similarity maps needs at least one database photo; found none; ask for more with -k")
    n_columns = 1 + min(PAIRS_PER_BAND, len(pairs))
    room_px = (FULL_WIDTH_PX - 2 * drawing.MARGIN_PX - ROW_LABEL_PX - BAR_PX - QUERY_GAP_PX) // n_columns - GAP_PX - 2 * drawing.FRAME_PX
    tile_px = min(WIDEST_TILE_PX, room_px)
    query_tile = drawing.load_tile(query.path_or_pixels, tile_px, tile_px)
    tiles = [drawing.load_tile(pair.photo.path_or_pixels, tile_px, tile_px) for pair in pairs]
    bands = [
        _Band(pairs[start : start + PAIRS_PER_BAND], tiles[start : start + PAIRS_PER_BAND], None if start else query_tile)
        for start in range(0, len(pairs), PAIRS_PER_BAND)
    ]
    cell_px = max(NARROWEST_CELL_PX, *(tile.pixels.shape[1] for tile in [query_tile, *tiles]))
    width_px = 2 * drawing.MARGIN_PX + ROW_LABEL_PX + n_columns * (cell_px + 2 * drawing.FRAME_PX + GAP_PX) + QUERY_GAP_PX - GAP_PX + BAR_PX
    width_px = max(width_px, drawing.MIN_WIDTH_PX)
    method = METHODS[next((pair.cam.method for pair in pairs if pair.cam), "gradcam")]
    header = Header.of(title, NOTE.format(method=method, rank=pairs[0].photo.rank), width_px)
    top = header.height_px + drawing.LEGEND_HEIGHT_PX
    height_px = top + sum(band.height_px + BAND_GAP_PX for band in bands) - BAND_GAP_PX + drawing.MARGIN_PX
    drawing.check_size(width_px, height_px, "draw fewer photos with -k")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    drawing.draw_legend(sheet, drawing.MARGIN_PX, header.height_px + 8, {pair.photo.verdict for pair in pairs}, query.bbx is not None)
    for band in bands:
        _draw_band(sheet, band, query, query_cam, top, cell_px, pairs[0].photo.rank)
        top += band.height_px + BAND_GAP_PX
    drawing.log_problems([(query.name, query_tile), *((pair.photo.name, tile) for pair, tile in zip(pairs, tiles, strict=True))])
    sheet.save(out_path)
    return out_path
