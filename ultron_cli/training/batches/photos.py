"""Training photos from files to augmented batches, in decoding processes of their own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import RandomResizedCrop, v2

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photos import worker_start
from ultron_cli.errors import UltronError
from ultron_cli.training.batches.decoded import DecodedPhotos, cut
from ultron_cli.training.batches.draws import EpochBatches, PhotoDraw
from ultron_cli.training.config import AugmentConfig

BLOCK_ROWS = 64
MOST_REPLACEMENTS = 8  # photos tried for one that cannot be read


class Batch(NamedTuple):
    """Photos of a step."""

    pixels: (
        torch.Tensor
    )  # (B, 3, H, W) uint8, channels last in memory; empty where not even a replacement could be read
    labels: torch.Tensor  # (B,) int64
    rows: torch.Tensor  # (B,) int64
    problems: list[tuple[int, str]]  # (row, reason) of each unreadable photo


def turn_hue(colours: torch.Tensor, turns: float) -> torch.Tensor:
    """(3, ...) float 0..255 -> the same with the hue of HSV turned, -0.5..0.5 of the circle, as torchvision's
    adjust_hue.

    A channel of hue h is v - (v - least) clamp(min(k, 4 - k), 0, 1) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for red,
    green and blue.
    """
    red, green, blue = colours.unbind(0)
    value = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    divisor = chroma.clamp(min=1e-3)  # a grey pixel has any hue
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    turned = torch.empty_like(colours)
    for channel, n in enumerate((5.0, 3.0, 1.0)):
        k = sixths + (n + 6.0 * turns)
        k = k.sub_(torch.floor(k / 6.0).mul_(6.0))
        share = torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
        torch.addcmul(value, chroma, share, value=-1.0, out=turned[channel])
    return turned


def change_colours(
    pixels: torch.Tensor, brightness: float, contrast: float, saturation: float, turns: float
) -> torch.Tensor:
    """(3, H, W) uint8 -> the same, by the factors of torchvision's adjust_brightness, _contrast and _saturation and the
    turn of adjust_hue.

    The first three are one affine map of the colours, clipped once at the end instead of after each; in blocks of rows,
    so that what lies between the operations stays in the processor's cache. Several times faster than torchvision's
    four passes, most of all the hue.
    """
    grey = torch.tensor([0.2989, 0.587, 0.114])
    matrix = (brightness * contrast) * (saturation * torch.eye(3) + (1.0 - saturation) * grey.expand(3, 3))
    offset = (
        float((1.0 - contrast) * brightness * (grey @ torch.mean(pixels, dim=(1, 2), dtype=torch.float32)))
        if contrast != 1.0
        else 0.0
    )
    parts = []
    for rows in pixels.split(BLOCK_ROWS, dim=1):
        colours = (matrix @ rows.reshape(3, -1).float()).add_(offset).clamp_(0.0, 255.0)
        parts.append((turn_hue(colours, turns) if turns else colours).round_().to(torch.uint8).view(rows.shape))
    return torch.cat(parts, dim=1)


class ColourJitter(torch.nn.Module):
    """torchvision's ColorJitter with factors from 1 - x to 1 + x (not below 0) and a turn of the hue of up to `hue`, in
    this order."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        super().__init__()
        self.ranges = [(max(0.0, 1.0 - x), 1.0 + x) for x in (brightness, contrast, saturation)]
        self.hue = hue

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        draws = torch.rand(4).tolist()
        factors = [low + (high - low) * draw for (low, high), draw in zip(self.ranges, draws, strict=False)]
        return change_colours(pixels, *factors, turns=self.hue * (2.0 * draws[3] - 1.0))


class Augmentation:
    """A photo file -> (3, H, W) uint8 of one of `shapes`, at random.

    The crop is drawn on the header alone; a JPEG is then decoded at the least of 1, 1/2, 1/4, 1/8 of its size that
    still has the pixels the crop needs, several times faster than whole. decoded: what keeps decoded photos; None
    keeps none.
    """

    def __init__(
        self, config: AugmentConfig, shapes: list[tuple[int, int]], decoded: DecodedPhotos | None = None
    ) -> None:
        self.config = config
        self.decoded = decoded or DecodedPhotos(n_photos=None)
        self.shapes = shapes
        jitter = (config.brightness, config.contrast, config.saturation, config.hue)
        steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip()] if config.flip else []
        steps += [ColourJitter(*jitter)] if any(jitter) else []
        steps += [v2.RandomGrayscale(config.grey)] if config.grey else []
        self.change = v2.Compose(steps) if steps else torch.nn.Identity()

    def __call__(self, path: Path, shape: int) -> torch.Tensor:
        height, width = self.shapes[shape]
        if self.config.pad_px:
            return self.change(self._padded(path, height, width))
        with self.decoded.open(path) as photo:
            (photo_width, photo_height), _ = photo.header
            aspects = [aspect * width / height for aspect in self.config.crop_aspect]
            empty = torch.empty((1, photo_height, photo_width), device="meta")  # get_params looks at the size only
            top, left, crop_height, crop_width = RandomResizedCrop.get_params(
                empty, list(self.config.crop_area), aspects
            )
            needed = min(1.0, max(height / crop_height, width / crop_width))
            longest_px = max(photo_width, photo_height)
            whole = photo.pixels(math.ceil(longest_px * needed) / longest_px)
        scale_y, scale_x = whole.shape[0] / photo_height, whole.shape[1] / photo_width
        left_px, top_px = round(left * scale_x), round(top * scale_y)
        width_px = max(1, round(crop_width * scale_x))
        height_px = max(1, round(crop_height * scale_y))
        pixels = torch.from_numpy(cut(whole, top_px, left_px, height_px, width_px)).permute(2, 0, 1)
        return self.change(v2.functional.resize(pixels, [height, width], antialias=True))

    def _padded(self, path: Path, height: int, width: int) -> torch.Tensor:
        """The whole photo in the shape, moved at random by up to pad_px in each direction over black."""
        with self.decoded.open(path) as photo:
            whole = photo.pixels(2 * max(height, width) / max(photo.header[0]))
        pad = self.config.pad_px
        pixels = v2.functional.resize(torch.from_numpy(whole).permute(2, 0, 1), [height, width], antialias=True)
        top, left = torch.randint(0, 2 * pad + 1, (2,)).tolist()
        return torch.nn.functional.pad(pixels, (pad, pad, pad, pad))[:, top : top + height, left : left + width]


@contextmanager
def seeded_randomness(seed: int) -> Iterator[None]:
    """Torch's CPU generator seeded for the block, and afterwards as it was before."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


class TrainingPhotos(torch.utils.data.Dataset[Batch]):
    """The item of a PhotoDraw is a batch of one photo. A photo that cannot be read is replaced by the next of its
    landmark, else by any other."""

    def __init__(self, photos: LandmarkPhotos, augment: Augmentation) -> None:
        self.photos = photos
        self.augment = augment
        self.by_landmark = np.argsort(photos.labels, kind="stable")  # rows, landmark after landmark
        # Where each landmark begins in by_landmark, and the end.
        self.starts = np.searchsorted(photos.labels[self.by_landmark], np.arange(len(photos.landmark_names) + 1))

    def __len__(self) -> int:
        return len(self.photos.paths)

    def _candidates(self, draw: PhotoDraw) -> Iterator[int]:
        """The photo itself, then those that may stand in for it."""
        yield draw.row
        label = self.photos.labels[draw.row]
        siblings = self.by_landmark[self.starts[label] : self.starts[label + 1]]
        place = int(np.flatnonzero(siblings == draw.row)[0])
        for i in range(1, min(len(siblings), MOST_REPLACEMENTS // 2)):
            yield int(siblings[(place + i) % len(siblings)])
        draws = np.random.Generator(np.random.PCG64(draw.seed))
        for row in draws.integers(0, len(self), MOST_REPLACEMENTS // 2):
            yield int(row)

    def __getitem__(self, draw: PhotoDraw) -> Batch:
        problems = []
        for row in self._candidates(draw):
            try:
                with seeded_randomness(draw.seed):
                    pixels = self.augment(self.photos.paths[row], draw.shape)
                return Batch(pixels[None], torch.tensor([self.photos.labels[row]]), torch.tensor([row]), problems)
            except UltronError as error:
                problems.append((row, str(error).split("; ")[0]))
        return Batch(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.tensor([draw.row]), problems)


def _join(items: list[Batch]) -> Batch:
    problems = [problem for item in items for problem in item.problems]
    if not all(len(item.pixels) for item in items):
        return Batch(
            torch.empty(0), torch.empty(0, dtype=torch.int64), torch.cat([item.rows for item in items]), problems
        )
    pixels = torch.empty((len(items), *items[0].pixels.shape[1:]), dtype=torch.uint8, memory_format=torch.channels_last)
    return Batch(
        torch.cat([item.pixels for item in items], out=pixels),
        torch.cat([item.labels for item in items]),
        torch.cat([item.rows for item in items]),
        problems,
    )


def make_loader(photos: TrainingPhotos, batches: EpochBatches, n_workers: int, pin: bool) -> DataLoader[Batch]:
    """Batches in the order of `batches`, prepared ahead by `n_workers` processes (0: by this one, when asked)."""
    return DataLoader(
        photos,
        batch_sampler=batches,
        num_workers=n_workers,
        collate_fn=_join,
        pin_memory=pin,
        prefetch_factor=4 if n_workers else None,
        worker_init_fn=worker_start(n_workers),
        generator=torch.Generator(),
    )
