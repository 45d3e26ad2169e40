"""Photos that tests draw with: a few shapes from a seed, and pixels as PNG files."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Removed when the tests end."""
    return tempfile.TemporaryDirectory(prefix="photos-of-tests-")


def png_of(pixels: np.ndarray) -> Path:
    """A PNG file of (H, W, 3) uint8; the same pixels are the same file."""
    name = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
    path = Path(_folder().name) / f"{name}.png"
    if not path.exists():
        Image.fromarray(pixels).save(path)
    return path


def pixels_of(path: Path) -> np.ndarray:
    """(H, W, channels) uint8 of a picture file."""
    return np.asarray(Image.open(path))


def plain(value: int, width: int = 100, height: int = 100) -> Path:
    """A photo of one grey."""
    return png_of(np.full((height, width, 3), value, np.uint8))


def photo_of(seed: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: a few shapes."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(int(value) for value in random.integers(0, 255, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        box, colour = (x - 20, y - 15, x + 20, y + 15), tuple(int(value) for value in random.integers(0, 255, 3))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return np.array(image)
