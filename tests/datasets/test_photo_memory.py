"""What decoding a photo takes is no more than was said before it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.photo_formats import exif, orientation_tag

WIDTH, HEIGHT = 1800, 1200
# Each photo in a process of its own: a peak is not forgotten.
CHILD = """
import sys
from pathlib import Path
from ultron_cli.datasets.photo_files import open_photo
from ultron_cli.machine import peak_mib

with open_photo(Path(sys.argv[1])) as photo:
    before_mib = peak_mib()
    photo.rgb()
    print((peak_mib() - before_mib) * 2**20 / photo.decoding_bytes())
"""


def photo(folder: Path, name: str) -> Path:
    """A photo that takes much for its type, lying on a side where it can."""
    values = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint32).reshape(HEIGHT, WIDTH, 3)
    image = Image.fromarray((values // 999 % 256).astype(np.uint8))
    on_side = exif([orientation_tag(6)])
    options: dict[str, object] = {
        "progressive.jpg": {"progressive": True, "subsampling": 0, "exif": on_side},
        "cmyk.jpg": {"progressive": True, "exif": on_side},
        "rgb.png": {"exif": on_side},
        "rgba.png": {"exif": on_side},
        "photo.webp": {"exif": on_side},
        "photo.avif": {"exif": on_side, "speed": 10},
        "one_strip.tif": {"compression": "tiff_lzw", "tiffinfo": {0x112: 6, 278: HEIGHT}},
    }.get(name, {})
    mode = {"cmyk.jpg": "CMYK", "rgba.png": "RGBA", "rgba.jp2": "RGBA", "palette.gif": "P"}.get(name, "RGB")
    image = image.convert(mode) if name != "deep.png" else Image.fromarray(values[..., 0].astype(np.uint16))
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program's own peak")
@pytest.mark.parametrize(
    "name",
    [
        "progressive.jpg",
        "cmyk.jpg",
        "rgb.png",
        "rgba.png",
        "deep.png",
        "photo.webp",
        "photo.avif",
        "one_strip.tif",
        "rgba.jp2",
        "palette.gif",
    ],
)
def test_decoding_takes_no_more_than_was_said(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(photo(tmp_path, name))]
    share = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.3 < share < 1.05
