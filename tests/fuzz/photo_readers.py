"""The reader of photos, once for every kind of file."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.photo_formats import orientation_tag, photo_of, quarters
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.photo_mutations import mutate_photo
from tests.fuzz.reader import Make, Reader, bytes_file


def _tagged(kind: str) -> Make:
    """A photo that lies on its side."""
    return bytes_file("a.photo", lambda: photo_of(kind, quarters(24, 16), [orientation_tag(6)]))


def _saved(kind: str, mode: str = "RGB", **options: object) -> Make:
    def content() -> bytes:
        output = io.BytesIO()
        image = Image.fromarray(quarters(24, 16)).convert(mode)
        image.save(output, kind, **options)
        return output.getvalue()

    return bytes_file("a.photo", content)


def _deep() -> bytes:
    output = io.BytesIO()
    Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 170).save(output, "PNG")
    return output.getvalue()


def _read_photo(folder: Path) -> None:
    from ultron_cli.datasets.photo_files import open_photo

    with open_photo(folder / "a.photo") as photo:
        size = photo.size
        image = photo.rgb()
    assert image.mode == "RGB" and image.size == size


def _photo_reader(*seeds: Make) -> Reader:
    return Reader(file="a.photo", seeds=seeds, read=_read_photo, mutations=(mutate_bytes, mutate_photo, mutate_photo))


PHOTO_READERS: dict[str, Reader] = {
    "photo-jpeg": _photo_reader(
        _tagged("JPEG"), _tagged("MPO"), _saved("JPEG", progressive=True), _saved("JPEG", "CMYK"), _saved("JPEG", "L")
    ),
    "photo-png": _photo_reader(
        _tagged("PNG"), _saved("PNG", "P"), _saved("PNG", "RGBA"), _saved("PNG", "1"), bytes_file("a.photo", _deep)
    ),
    "photo-webp": _photo_reader(_tagged("WEBP"), _saved("WEBP", lossless=True), _saved("WEBP", "RGBA", quality=50)),
    "photo-tiff": _photo_reader(
        _tagged("TIFF"), _tagged("TIFF packed"), _saved("TIFF", compression="tiff_adobe_deflate"), _saved("TIFF", "1")
    ),
    "photo-avif": _photo_reader(_tagged("AVIF"), _saved("AVIF", "RGBA")),
    "photo-heif": _photo_reader(_tagged("HEIF")),
    "photo-others": _photo_reader(
        _saved("GIF", "P"), _saved("BMP"), _saved("BMP", "1"), _saved("PPM"), _saved("PPM", "1"), _saved("JPEG2000")
    ),
}
