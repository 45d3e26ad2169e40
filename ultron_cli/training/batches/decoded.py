"""The pixels of training photos, kept in memory from epoch to epoch where all photos of the set fit."""

import functools
from pathlib import Path

import numpy as np

from ultron_cli.datasets.photo_files import DRAFTED_FORMATS, OpenPhoto, draft_divisor, open_photo
from ultron_cli.memory import memory_budget

KEPT_BYTES = 512 * 2**20  # of decoded photos in one process; and at most this share of what it may take for one file:
KEPT_SHARE = 0.25


class DecodedPhotos:
    """Photos by path, as they were last decoded.

    A photo is kept if a set of n_photos like it fits into the memory; None: none is kept.
    """

    def __init__(self, n_photos: int | None) -> None:
        self.n_photos = n_photos
        self.headers: dict[Path, tuple[tuple[int, int], bool]] = {}  # upright (width, height), whether it is drafted
        self.pixels: dict[tuple[Path, int], np.ndarray] = {}  # by draft divisor: (H, W, 3) uint8
        self._most_bytes: float | None = None

    def open(self, path: Path) -> "TrainingPhoto":
        """The photo; nothing is read yet."""
        return TrainingPhoto(path, self)

    def keep(self, photo: "TrainingPhoto", divisor: int, pixels: np.ndarray) -> None:
        """Keeps the pixels if there is memory for the whole set."""
        if self.n_photos is None:
            return
        if self._most_bytes is None:
            self._most_bytes = min(KEPT_BYTES, KEPT_SHARE * memory_budget())
        if self.n_photos * pixels.nbytes <= self._most_bytes:
            self.headers[photo.path] = photo.header
            self.pixels[photo.path, divisor] = pixels


class TrainingPhoto:
    """One photo, whose file is opened only for what is not known of it yet. A context manager."""

    def __init__(self, path: Path, decoded: DecodedPhotos) -> None:
        self.path = path
        self.decoded = decoded
        self._photo: OpenPhoto | None = None

    @functools.cached_property
    def header(self) -> tuple[tuple[int, int], bool]:
        """Upright (width, height) in pixels, and whether it can be decoded smaller. Raises UltronError."""
        known = self.decoded.headers.get(self.path)
        return known or (self._open().size, self._open().format in DRAFTED_FORMATS)

    def __enter__(self) -> "TrainingPhoto":
        return self

    def __exit__(self, *_: object) -> None:
        if self._photo is not None:
            self._photo.__exit__()

    def _open(self) -> OpenPhoto:
        if self._photo is None:
            self._photo = open_photo(self.path)
        return self._photo

    def pixels(self, scale: float) -> np.ndarray:
        """(H, W, 3) uint8, upright, decoded at the least size that is not below `scale`; not to be written to."""
        size, is_drafted = self.header
        divisor = draft_divisor(size, scale) if is_drafted else 1
        pixels = self.decoded.pixels.get((self.path, divisor))
        if pixels is not None:
            return pixels
        photo = self._open()
        photo.draft(scale)
        pixels = np.array(photo.rgb())
        self.decoded.keep(self, divisor, pixels)
        return pixels


def cut(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3): a part, with black where it reaches beyond the right and lower edge by a rounded pixel."""
    part = pixels[top : top + height, left : left + width]
    if part.shape[:2] == (height, width):
        return np.ascontiguousarray(part)
    whole = np.zeros((height, width, 3), np.uint8)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole
