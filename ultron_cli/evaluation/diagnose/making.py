"""Descriptors by a recipe: each photo is decoded once, each input passes the network once, whatever recipes ask."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ultron_cli.datasets.photo_files import open_photo
from ultron_cli.datasets.photo_tags import TURNS
from ultron_cli.datasets.photos import INTERPOLATIONS
from ultron_cli.datasets.protocols import Box
from ultron_cli.evaluation.diagnose.recipes import Recipe
from ultron_cli.evaluation.diagnose.settings import EXPONENTS
from ultron_cli.models.core import PRECISIONS, RetrievalModel
from ultron_cli.models.gem import GemModel
from ultron_cli.models.parts.pooling import Average, GeM, Maximum, power_mean
from ultron_cli.retrieval.extraction.scales import at_scale
from ultron_cli.retrieval.whitening import Whitening

QUARTERS = {6: 8, 8: 6}  # what undoes a turn; the others undo themselves
TORCH_FILTERS = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}


@dataclass(frozen=True)
class Photo:
    """A photo that is described both ways."""

    name: str
    path: Path
    box: Box | None  # the part that is searched for, pixels of the upright photo

    @cached_property
    def _upright(self) -> tuple[Image.Image, int]:
        with open_photo(self.path) as photo:
            orientation = photo.orientation
            return photo.rgb(), orientation

    def pixels(self, exif: str) -> Image.Image:
        """RGB, turned upright by its tag or as it is stored. Raises UltronError if it cannot be decoded."""
        upright, orientation = self._upright
        if exif == "upright" or orientation == 1:
            return upright
        return upright.transpose(TURNS[QUARTERS.get(orientation, orientation)])


def cropped(image: Image.Image, box: Box | None, recipe: Recipe) -> Image.Image:
    """The part of a photo that is described: the box as far as it is inside, of a pixel at least. Of a photo that lies
    on its side a box may reach outside: black there, as Pillow crops."""
    if box is None or recipe.crop == "none":
        return image
    lower, upper = {"rounded": (round, round), "truncated": (int, int), "outward": (math.floor, math.ceil)}[
        recipe.box_edges
    ]
    left, top = lower(box[0]), lower(box[1])
    right, bottom = max(upper(box[2]), left + 1), max(upper(box[3]), top + 1)
    if recipe.exif == "as stored":
        return image.crop((left, top, right, bottom))
    left, top = min(max(0, left), image.width - 1), min(max(0, top), image.height - 1)
    return image.crop((left, top, min(image.width, max(right, left + 1)), min(image.height, max(bottom, top + 1))))


def target_size(
    size: tuple[int, int], whole_size: tuple[int, int], recipe: Recipe, min_side_px: int
) -> tuple[int, int]:
    """(width, height) that a crop of `size` out of a photo of `whole_size` is brought to."""
    limit = recipe.max_side_px
    if limit is None:
        return max(size[0], min_side_px), max(size[1], min_side_px)
    length = {"shortest": min(size), "whole photo": max(whole_size)}.get(recipe.measured, max(size))
    if limit >= length and recipe.resize == "down":
        return max(size[0], min_side_px), max(size[1], min_side_px)
    if recipe.measured == "square":
        return max(limit, min_side_px), max(limit, min_side_px)
    scale = limit / length
    if recipe.rounding == "thumbnail":
        sides = _thumbnail_sides(size, math.floor(round(max(size) * scale, 9)))
    else:
        whole = {"nearest": round, "down": math.floor, "up": math.ceil}[recipe.rounding]
        # Rounding up must not make 321 of 320.00000000000006.
        sides = [whole(round(side * scale, 9)) for side in size]
    return max(sides[0], min_side_px), max(sides[1], min_side_px)


def _thumbnail_sides(size: tuple[int, int], longest: int) -> list[int]:
    """The sides that PIL.Image.thumbnail gives: the shorter is the one of two whole numbers whose ratio is nearer."""
    ratio = size[0] / size[1]
    exact = longest * ratio if ratio <= 1 else longest / ratio
    wholes = [max(1, math.floor(exact)), max(1, math.ceil(exact))]
    if ratio <= 1:
        return [min(wholes, key=lambda width: abs(ratio - width / longest)), longest]
    return [longest, min(wholes, key=lambda height: abs(ratio - longest / height))]


def resized(image: Image.Image, target: tuple[int, int], recipe: Recipe) -> np.ndarray:
    """(H, W, 3) uint8: by Pillow, whose filters are as wide as the step, or without that, as OpenCV does it."""
    if target == image.size:
        return np.array(image)
    if recipe.antialias or recipe.interpolation not in TORCH_FILTERS:
        return np.array(image.resize(target, INTERPOLATIONS[recipe.interpolation]))
    mode = TORCH_FILTERS[recipe.interpolation]
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    align = None if mode == "nearest-exact" else False
    values = F.interpolate(values, size=target[::-1], mode=mode, align_corners=align)
    return values[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


class Maker:
    """Makes descriptors of some photos by recipes. What passed the network once is remembered by its pixels."""

    def __init__(
        self,
        model: RetrievalModel,
        photos: Sequence[Photo],
        device: torch.device,
        whitening: Whitening | None = None,
        precision: str = "float32",
    ) -> None:
        self.photos = photos
        self.whitening = whitening
        self.n_passes = 0  # of one photo at one scale through the network
        self._model = model
        self._network = model.per_scale
        self._device = device
        self._precision = precision
        self._poolings: list[float | None] = [None]  # in the order of the rows that a pass gives
        self.exponent: float | None = None
        pooling = self._network.pooling if isinstance(self._network, GemModel) else None
        self.may_pool = isinstance(pooling, (GeM, Average, Maximum))
        if self.may_pool:
            if isinstance(pooling, GeM):
                self.exponent = float(pooling.p)
            else:
                self.exponent = 1.0 if isinstance(pooling, Average) else math.inf
            self._poolings += [value for value in EXPONENTS if value != self.exponent]
        self._pixels: dict[object, np.ndarray] = {}  # (photo's row, photo_key)
        self._of_input: dict[object, np.ndarray] = {}  # (photo's row, recipe's part before the network, scale)
        self._of_content: dict[bytes, np.ndarray] = {}  # by the hash of what passes the network

    def rows(self, recipe: Recipe, photo_rows: Sequence[int]) -> np.ndarray:
        """(n, D) float64 unit descriptors of photos, by their rows."""
        sides = {"none": (False,), "mirrored": (True,), "both": (False, True)}[recipe.flip]
        of_sides = [_unit(self._joined(recipe, photo_rows, mirrored)) for mirrored in sides]
        rows = _unit(np.mean(of_sides, axis=0))
        if self._network is not self._model:
            rows = _unit(self._finished(rows))
        if self.whitening is not None and recipe.whitening == "after joining":
            rows = self._whitened(rows)
        return _unit(np.sign(rows) * np.sqrt(np.abs(rows))) if recipe.power == "signed root" else rows

    def has_same_pixels(self, recipe: Recipe, other: Recipe) -> bool:
        """Whether two recipes differ only in how photos become pixels, and give all photos the same: no network is
        asked."""
        if recipe.after_pixels() != other.after_pixels():
            return False
        return all(
            np.array_equal(self._pixels_of(row, recipe), self._pixels_of(row, other)) for row in range(len(self.photos))
        )

    def _finished(self, rows: np.ndarray) -> np.ndarray:
        """What the model makes of joined descriptors (a trained head)."""
        with torch.inference_mode():
            return self._model.finish(torch.from_numpy(rows).float().to(self._device)).double().cpu().numpy()

    def _whitened(self, rows: np.ndarray) -> np.ndarray:
        whitening = self.whitening
        assert whitening is not None
        return _unit((rows - whitening.mean) @ whitening.projection.T)

    def _joined(self, recipe: Recipe, photo_rows: Sequence[int], mirrored: bool) -> np.ndarray:
        """(n, D), not of unit norm."""
        pooled = self._poolings.index(recipe.exponent)
        of_scales = np.stack(
            [
                np.stack([self._pooled(row, recipe, scale, mirrored)[pooled] for row in photo_rows])
                for scale in recipe.scales
            ]
        ).astype(np.float64)
        if recipe.scale_norm:
            of_scales = _unit(of_scales)
        if self.whitening is not None and recipe.whitening == "of each scale":
            of_scales = self._whitened(of_scales)
        if len(recipe.scales) == 1:
            return of_scales[0]
        match recipe.join:
            case "mean":
                return of_scales.mean(axis=0)
            case "max":
                return of_scales.max(axis=0)
            case "gem":
                exponent = recipe.exponent or self.exponent or 3.0
                values = torch.from_numpy(of_scales.clip(min=1e-12))
                return power_mean(values, exponent, dims=(0,)).numpy() if exponent < math.inf else of_scales.max(axis=0)

    def _pooled(self, row: int, recipe: Recipe, scale: float, mirrored: bool) -> np.ndarray:
        """(poolings, D) float32 of one photo at one scale."""
        scaling = recipe.scaling if scale != 1.0 else None
        key = (row, recipe.photo_key(), recipe.channels, recipe.colours, mirrored, scaling, scale)
        if key not in self._of_input:
            images = self._images(row, recipe, scale, mirrored)
            content = hashlib.blake2b(images.numpy().tobytes(), digest_size=16)
            content.update(str(tuple(images.shape)).encode())
            digest = content.digest()
            if digest not in self._of_content:
                self._of_content[digest] = self._pass(images)
            self._of_input[key] = self._of_content[digest]
        return self._of_input[key]

    def _pixels_of(self, row: int, recipe: Recipe) -> np.ndarray:
        """(H, W, 3) uint8 RGB: a photo cropped and sized."""
        key = (row, recipe.photo_key())
        if key not in self._pixels:
            photo = self.photos[row]
            whole = photo.pixels(recipe.exif)
            part = cropped(whole, photo.box, recipe)
            target = target_size(part.size, whole.size, recipe, self._model.min_side_px)
            self._pixels[key] = resized(part, target, recipe)
        return self._pixels[key]

    def _images(self, row: int, recipe: Recipe, scale: float, mirrored: bool) -> torch.Tensor:
        """(1, 3, H, W) float32: what the network gets."""
        pixels = self._pixels_of(row, recipe)
        if recipe.channels == "BGR":
            pixels = pixels[..., ::-1]
        if mirrored:
            pixels = pixels[:, ::-1]
        mean, sd = recipe.colours
        preprocessing = replace(self._model.preprocessing, mean=mean, sd=sd, scaling=recipe.scaling)
        return at_scale(torch.from_numpy(pixels.copy())[None], scale, preprocessing, self._model.min_side_px)

    def _pass(self, images: torch.Tensor) -> np.ndarray:
        """(poolings, D) float32 by one pass of the network."""
        self.n_passes += 1
        network, images = self._network, images.to(self._device)
        dtype = PRECISIONS[self._precision]
        with torch.inference_mode(), torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32):
            if not self.may_pool:
                return network.describe(images).float().cpu().numpy()
            assert isinstance(network, GemModel)
            feature_map = network.feature_map(images)
            pooled = []
            trained = network.pooling
            try:
                for exponent in self._poolings:
                    if exponent is not None:
                        network.pooling = Maximum() if exponent == math.inf else GeM(exponent).to(self._device)
                    pooled.append(network.pool(feature_map).float())
            finally:
                network.pooling = trained
            return torch.cat(pooled).cpu().numpy()


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit norm along the last axis; one of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)
