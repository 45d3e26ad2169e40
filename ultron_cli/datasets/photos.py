"""Crops and resizes photos, reads many ahead, and groups them by shape into batches.

Importing this module loads no torch, which a photo needs only on its way to a network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import numpy as np
from PIL import Image

from ultron_cli import user_code
from ultron_cli.datasets.corruptions import Corruption
from ultron_cli.datasets.photo_files import open_photo
from ultron_cli.datasets.photo_marks import PhotoMark
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.memory import memory_budget, set_memory_budget
from ultron_cli.processes import kill_workers_at_exit, start_loader_worker
from ultron_cli.stops import undisturbed

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
BoxEdges = Literal["rounded", "truncated"]  # how the edges of a box become whole pixels
BOX_SLACK_PX = 2.0  # boxes drawn by hand end a pixel or two outside; they are clipped, more is a mistake


@dataclass(frozen=True, kw_only=True)
class PhotoShape:
    """How a photo becomes an array."""

    max_side_px: int | None = 1024  # the longest side; None leaves it as it is
    resize: Literal["down", "always"] = "down"  # "down" leaves smaller photos as they are
    interpolation: str = "bicubic"  # a key of INTERPOLATIONS
    min_side_px: int = 32
    box_edges: BoxEdges = "rounded"
    sides_px: tuple[int, int] | None = None  # (H, W) of every photo, whatever its shape

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing; each side at least min_side_px, so that thin photos pass the network."""
        if self.sides_px:
            return self.sides_px[1], self.sides_px[0]
        longest = max(width, height)
        if self.max_side_px and (longest > self.max_side_px or self.resize == "always"):
            scale = self.max_side_px / longest
            width, height = round(width * scale), round(height * scale)
        return max(width, self.min_side_px), max(height, self.min_side_px)


def require_photo(path: Path) -> None:
    """Raises UltronError if there is no file of this name."""
    if not path.exists():
        raise UltronError(f"{path}: no such photo; check the path")


def resizing_bytes(size: tuple[int, int], target: tuple[int, int]) -> int:
    """The most memory that resizing from (width, height) to `target` takes, upright or not: what lies between its two
    passes (the first makes thin photos wide), the resized photo and its array."""
    return 4 * max(target[0] * size[1], target[1] * size[0]) + 13 * target[0] * target[1]


def clip_box(box: Box, width: int, height: int, where: str, edges: BoxEdges = "rounded") -> tuple[int, int, int, int]:
    """The box in whole pixels inside the photo, of one pixel at least. Raises UltronError if it reaches more than 2 px
    outside."""
    x1, y1, x2, y2 = box
    if min(x1, y1) < -BOX_SLACK_PX or x2 > width + BOX_SLACK_PX or y2 > height + BOX_SLACK_PX:
        raise UltronError(
            f"{where}: bbx {[x1, y1, x2, y2]} reaches outside the photo of {width} x {height} px; give one inside it",
            "use whole photos with `no_crop`",
        )
    whole = int if edges == "truncated" else round
    left, top = min(max(0, whole(x1)), width - 1), min(max(0, whole(y1)), height - 1)
    return left, top, min(width, max(whole(x2), left + 1)), min(height, max(whole(y2), top + 1))


@dataclass(frozen=True, kw_only=True)
class PlacedPixels:
    """A photo as an array, or the part of it within a box, and where that is in the photo."""

    pixels: np.ndarray  # (H, W, 3) uint8, resized
    left_top: tuple[int, int]  # of the part, in pixels of the upright photo
    part_size: tuple[int, int]  # its width and height there, before it was resized
    photo_size: tuple[int, int]  # width and height of the upright photo


def load_photo(
    path: Path | BinaryIO,
    box: Box | None,
    shape: PhotoShape,
    corruption: Corruption | None = None,
    name: str = "",
) -> np.ndarray:
    """(H, W, 3) uint8: the pixels of load_placed."""
    return load_placed(path, box, shape, corruption, name).pixels


def load_placed(
    path: Path | BinaryIO,
    box: Box | None,
    shape: PhotoShape,
    corruption: Corruption | None = None,
    name: str = "",
) -> PlacedPixels:
    """A photo decoded, cropped to `box` (pixels of the upright photo), resized, and corrupted. Raises UltronError.

    name: of the photo, from which a corruption draws.
    """
    with open_photo(path) as photo:
        stored_size = photo.image.size
        image = photo.rgb(resizing_bytes(stored_size, shape.target(*stored_size)))
    photo_size, left_top = image.size, (0, 0)
    if box is not None:
        box = corruption.box(box, *image.size, name) if corruption else box
        edges = clip_box(box, *image.size, where=str(path), edges=shape.box_edges)
        image, left_top = image.crop(edges), edges[:2]
    pixels = sized(image, shape)
    if corruption is not None:
        pixels = sized(corruption.photo(Image.fromarray(pixels), name), shape)
    return PlacedPixels(pixels=pixels, left_top=left_top, part_size=image.size, photo_size=photo_size)


def sized(image: Image.Image, shape: PhotoShape) -> np.ndarray:
    """(H, W, 3) uint8 of an RGB image, resized."""
    target = shape.target(*image.size)
    if target != image.size:
        image = image.resize(target, INTERPOLATIONS[shape.interpolation])
    return np.array(image)


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo as it was read, or the reason why it could not be."""

    row: int  # of the photo in its list
    pixels: torch.Tensor | None  # (H, W, 3) uint8
    problem: str = ""  # why there are no pixels
    mark: PhotoMark | None = None  # of the file that was read, where a reader marks what it reads


class PhotoReader:
    """Decodes photos for a DataLoader, which takes any sequence: item i is photo rows[i]. A bad photo is an item with a
    reason, not an exception."""

    def __init__(
        self,
        rows: list[int],
        paths: list[Path],
        boxes: list[Box | None],
        shape: PhotoShape,
        corruption: Corruption | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """names: of all photos, for a corruption."""
        self.rows = rows
        self.paths = paths  # of all photos of the list, as boxes
        self.boxes = boxes
        self.shape = shape
        self.corruption = corruption
        self.names = names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> LoadedPhoto:
        import torch

        try:
            name = self.names[i] if self.corruption else ""
            pixels = load_photo(self.paths[i], self.boxes[i], self.shape, self.corruption, name)
            return LoadedPhoto(self.rows[i], torch.from_numpy(pixels))
        except UltronError as error:
            return LoadedPhoto(self.rows[i], None, error.message)


def worker_start(n_workers: int) -> Callable[[int], None]:
    """What each of the `n_workers` processes of a DataLoader that decodes photos does first: it leaves signals to this
    process, ends with it, and takes its part of the memory."""
    kill_workers_at_exit()
    return partial(_start_worker, memory_budget(), n_workers, user_code.permissions())


def _start_worker(max_memory: int, n_workers: int, permissions: tuple[Sequence[str], bool], worker: int) -> None:
    start_loader_worker()
    user_code.take_over(permissions)
    set_memory_budget(max_memory, n_workers)


def read_photos(reader: PhotoReader, n_workers: int) -> Iterator[LoadedPhoto]:
    """Photos in order, decoded ahead in `n_workers` processes (0: in this one)."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        cast("Dataset[LoadedPhoto]", reader),
        batch_size=None,
        num_workers=n_workers,
        prefetch_factor=8 if n_workers else None,
        persistent_workers=False,
        worker_init_fn=worker_start(n_workers),
    )
    with undisturbed():
        photos = iter(loader)
    yield from photos


def batches_by_shape(photos: Iterable[LoadedPhoto], batch_size: int, max_waiting: int) -> Iterator[list[LoadedPhoto]]:
    """Groups photos of equal shape into batches; at most `max_waiting` photos wait for company at any time.

    Rows of a batch need not be consecutive. Photos without pixels come out at once, alone.
    """
    waiting: OrderedDict[tuple[int, ...], list[LoadedPhoto]] = OrderedDict()  # least recently filled first
    n_waiting = 0
    for photo in photos:
        if photo.pixels is None:
            yield [photo]
            continue
        key = tuple(photo.pixels.shape)
        waiting.setdefault(key, []).append(photo)
        waiting.move_to_end(key)
        n_waiting += 1
        if len(waiting[key]) == batch_size:
            batch = waiting.pop(key)
        elif n_waiting > max_waiting:
            _, batch = waiting.popitem(last=False)
        else:
            continue
        n_waiting -= len(batch)
        yield batch
    yield from waiting.values()
