"""Decodes photos to upright 8-bit RGB, crops and resizes them, and groups them by shape into batches."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.processes import kill_workers_at_exit, start_loader_worker

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
BOX_SLACK_PX = 2.0  # boxes drawn by hand end a pixel or two outside; they are clipped, more is a mistake


@dataclass(frozen=True, kw_only=True)
class PhotoShape:
    """How a photo becomes an array."""

    max_side_px: int | None = 1024  # the longest side; None leaves it as it is
    resize: Literal["down", "always"] = "down"  # "down" leaves smaller photos as they are
    interpolation: str = "bicubic"  # a key of INTERPOLATIONS
    min_side_px: int = 32

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing; each side at least min_side_px, so that thin photos pass the network."""
        longest = max(width, height)
        if self.max_side_px and (longest > self.max_side_px or self.resize == "always"):
            scale = self.max_side_px / longest
            width, height = round(width * scale), round(height * scale)
        return max(width, self.min_side_px), max(height, self.min_side_px)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as 8-bit RGB: 16-bit is scaled, not cut; transparent places become white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        highest = 1.0 if image.mode == "F" and values.max(initial=0) <= 1.0 else 255.0
        if values.max(initial=0) > 255.0:
            highest = 65535.0
        return Image.fromarray((values.clip(0, highest) * (255.0 / highest)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8: 1 is upright; 5 to 8 lie on a side, so that width and height change places."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def draft_jpeg(image: Image.Image, scale: float) -> None:
    """Has an opened JPEG decoded at 1/2, 1/4 or 1/8 of its sides, several times faster: the smallest that is not below
    `scale`.

    With a scale of 1 or more, and in other formats, the photo is decoded as it is.
    """
    if scale < 1.0:
        image.draft("RGB", (max(1, int(image.width * scale)), max(1, int(image.height * scale))))


def decode_photo(path: Path | BinaryIO, draft_side_px: int | None = None) -> Image.Image:
    """An upright (EXIF orientation applied) RGB photo. Raises UltronError naming the photo if it cannot be decoded.

    draft_side_px: a longest side that is enough, for draft_jpeg.
    """
    try:
        with Image.open(path) as image:
            if draft_side_px:
                draft_jpeg(image, draft_side_px / max(image.size))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UltronError(f"{path}: no such photo; complete the dataset", "go on without it with `skip_bad`") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged input; the reason is kept
        reason = (
            "not a photo that Pillow can read"
            if "cannot identify" in str(error)
            else f"{type(error).__name__}: {error}"
        )
        raise UltronError(
            f"{path}: cannot be decoded ({reason}); replace it", "go on without it with `skip_bad`"
        ) from error


def photo_size(path: Path | BinaryIO) -> tuple[int, int]:
    """(width, height) of the upright photo, read from its header. Raises UltronError as decode_photo."""
    try:
        with Image.open(path) as image:
            return (image.height, image.width) if orientation(image) >= 5 else (image.width, image.height)
    except FileNotFoundError:
        raise UltronError(f"{path}: no such photo; complete the dataset", "go on without it with `skip_bad`") from None
    except Exception as error:
        raise UltronError(
            f"{path}: not a photo that Pillow can read ({error}); replace it", "go on without it with `skip_bad`"
        ) from error


def clip_box(box: Box, width: int, height: int, where: str) -> tuple[int, int, int, int]:
    """The box in whole pixels inside the photo. Raises UltronError if it reaches more than 2 px outside."""
    x1, y1, x2, y2 = box
    if min(x1, y1) < -BOX_SLACK_PX or x2 > width + BOX_SLACK_PX or y2 > height + BOX_SLACK_PX:
        raise UltronError(
            f"{where}: bbx {[x1, y1, x2, y2]} reaches outside the photo of {width} x {height} px; correct the "
            "ground truth",
            "use `no_crop`",
        )
    left, top = min(max(0, round(x1)), width - 1), min(max(0, round(y1)), height - 1)
    return left, top, min(width, max(round(x2), left + 1)), min(height, max(round(y2), top + 1))


def load_photo(path: Path | BinaryIO, box: Box | None, shape: PhotoShape) -> np.ndarray:
    """(H, W, 3) uint8: decoded, cropped to `box` (pixels of the upright photo), resized. Raises UltronError."""
    image = decode_photo(path)
    if box is not None:
        image = image.crop(clip_box(box, *image.size, where=str(path)))
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


class PhotoReader(torch.utils.data.Dataset[LoadedPhoto]):
    """Decodes photos for a DataLoader: item i is photo rows[i]. A bad photo is an item with a reason, not an
    exception."""

    def __init__(self, rows: list[int], paths: list[Path], boxes: list[Box | None], shape: PhotoShape) -> None:
        self.rows = rows
        self.paths = paths  # of all photos of the list, as boxes
        self.boxes = boxes
        self.shape = shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> LoadedPhoto:
        try:
            return LoadedPhoto(self.rows[i], torch.from_numpy(load_photo(self.paths[i], self.boxes[i], self.shape)))
        except UltronError as error:
            return LoadedPhoto(self.rows[i], None, error.message)


def read_photos(reader: PhotoReader, n_workers: int) -> Iterator[LoadedPhoto]:
    """Photos in order, decoded ahead in `n_workers` processes (0: in this one)."""
    kill_workers_at_exit()
    yield from torch.utils.data.DataLoader(
        reader,
        batch_size=None,
        num_workers=n_workers,
        worker_init_fn=start_loader_worker,
        prefetch_factor=8 if n_workers else None,
        persistent_workers=False,
    )


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
