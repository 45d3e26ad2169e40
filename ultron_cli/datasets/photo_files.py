"""How a photo's file becomes upright pixels: the only place that opens one.

Only regular files are opened, only as the types of photo_types.py, and only what fits into the memory budget is
decoded. What is upright is said by the one tag that tells it; no other is read, as damaged ones are common.
"""

import contextlib
import functools
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from ultron_cli.datasets.photo_tags import (
    TIFF_HEADS,
    TURNS,
    has_text_after_pixels,
    orientation_in_exif,
    orientation_in_xmp,
    with_needed_tags_only,
)
from ultron_cli.datasets.photo_types import HEIF_INSTALL, SUFFIXES_OF_FORMAT, has_heif
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.memory import OverBudget, check_memory

SKIP = "go on without it with `skip_bad`"
DRAFTED_FORMATS = ("JPEG", "MPO")  # which OpenPhoto.draft makes smaller
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
# Bytes per pixel at most, as measured (tests/datasets/test_photo_memory.py): of an image by its mode, else 4; beside it
# of what makes it upright RGB, by its mode, else 8; or, before that, of the decoder of its format, else 4.
STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
CONVERTED_BYTES = {"RGB": 5} | dict.fromkeys(
    ("RGBA", "LA", "PA", "La", "RGBa", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"), 20
)
DECODER_BYTES = {"JPEG": 9, "MPO": 9, "PNG": 1, "WEBP": 16, "TIFF": 12, "AVIF": 20, "JPEG2000": 28, "HEIF": 20}


@functools.cache
def _formats() -> tuple[str, ...]:
    """Pillow's names of the types that it reads here, their decoders loaded. Pillow's own limit of pixels is off from
    now on: the memory budget is in its place. Its log, which does not name the photo, goes only where someone asked."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for name in ("Jpeg", "Mpo", "Png", "WebP", "Tiff", "Avif", "Jpeg2K", "Bmp", "Gif", "Ppm"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"PIL.{name}ImagePlugin")
    Image.MAX_IMAGE_PIXELS = None
    return tuple(name for name in SUFFIXES_OF_FORMAT if name in Image.OPEN)


@functools.cache
def _load_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


@contextlib.contextmanager
def _failures_said(source: Path | BinaryIO) -> Iterator[None]:
    """Inside, whatever Pillow raises becomes an UltronError that names the photo."""
    try:
        yield
    except OverBudget as error:
        raise OverBudget(error.message, SKIP) from None
    except UltronError:
        raise
    except FileNotFoundError:
        raise UltronError(f"{source}: no such photo; complete the dataset", SKIP) from None
    except Exception as error:  # Pillow's decoders raise many types on damaged input; the reason is kept
        if isinstance(error, OSError) and error.strerror:  # the system's; Pillow's have none
            raise UltronError(
                f"{source}: cannot be read ({error.strerror}); check its permissions and the disk", SKIP
            ) from error
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not a photo that Pillow can read" if unknown else f"{type(error).__name__}: {error}"
        raise UltronError(f"{source}: cannot be decoded ({reason}); replace it", SKIP) from error


def draft_divisor(size: tuple[int, int], scale: float) -> int:
    """By how much OpenPhoto.draft divides the sides of a JPEG, 1, 2, 4 or 8. size: (width, height), upright or not."""
    if scale >= 1.0:
        return 1
    least = min(whole // enough for whole, enough in zip(size, _enough(size, scale), strict=True))
    return next(divisor for divisor in (8, 4, 2, 1) if least >= divisor)


def _enough(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) at `scale`."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


class OpenPhoto:
    """A photo whose header is read, and whose pixels are not until they are asked for. A context manager."""

    def __init__(self, source: Path | BinaryIO, image: ImageFile.ImageFile) -> None:
        self.source = source
        self.image = image
        self.format = image.format or ""  # a name of SUFFIXES_OF_FORMAT, or HEIF
        tags = getattr(image, "tag_v2", None)
        # A TIFF is turned by Pillow itself when it is decoded: then it has no orientation any more. Since version 11.2
        # Pillow calls its size what it will be; the tags say how it is stored.
        self._stored_size: tuple[int, int] = (tags[256], tags[257]) if tags is not None else image.size
        self._tiff_orientation = self._orientation if tags is not None else None

    def __enter__(self) -> "OpenPhoto":
        return self

    def __exit__(self, *_: object) -> None:
        self.image.__exit__(None, None, None)  # closes the file; decoded pixels stay

    @property
    def orientation(self) -> int:
        """How the photo is stored, 1 to 8: 1 is upright, from 5 on it lies on a side."""
        with _failures_said(self.source):
            return self._orientation if self._tiff_orientation is None else self._tiff_orientation

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright photo, undrafted. Raises UltronError if it is damaged."""
        width, height = self._stored_size
        return (height, width) if self.orientation >= 5 else (width, height)

    def draft(self, scale: float) -> None:
        """Has a JPEG decoded at 1/2, 1/4 or 1/8 of its sides, several times faster: the smallest that is not below
        `scale`. With a scale of 1 or more, and in other formats, the photo is decoded as it is."""
        if scale < 1.0 and self.format in DRAFTED_FORMATS:
            self.image.draft("RGB", _enough(self.image.size, scale))

    def decoding_bytes(self) -> int:
        """The most memory that it takes until the photo is upright RGB, by its header."""
        mode = self.image.mode
        beside = max(DECODER_BYTES.get(self.format, 4), CONVERTED_BYTES.get(mode, 8))
        return self.image.width * self.image.height * (STORED_BYTES.get(mode, 4) + beside)

    def rgb(self, beside_bytes: int = 0) -> Image.Image:
        """The pixels, upright and 8-bit RGB.

        Raises UltronError, naming the photo, if it cannot be decoded; and before that (OverBudget) if it would not fit
        into the memory budget, together with what the caller needs beside.
        """
        with _failures_said(self.source):
            turn = TURNS.get(self._orientation) if self._tiff_orientation is None else None
            self._load(beside_bytes)
            return _to_rgb(self.image.transpose(turn) if turn is not None else self.image)

    def _load(self, beside_bytes: int = 0) -> None:
        image = self.image
        width, height = image.size
        check_memory(self.decoding_bytes() + beside_bytes, f"{self.source}: {width:,} x {height:,} pixels")
        if self._tiff_orientation is not None:
            # Pillow reads all tags to turn a TIFF, and damaged ones would stop it: it gets those of the first group.
            if not isinstance(image.info.get("xmp"), bytes):
                image.info.pop("xmp", None)
            exif = image.getexif()
            for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
                if group in exif:
                    del exif[group]
        image.load()
        # A HEIF may say that it is cut out of the coded picture where there is none: boxes would lie elsewhere.
        if self._tiff_orientation is None and image.size != (width, height):
            raise OSError(f"its header says {width:,} x {height:,} pixels, it has {image.width:,} x {image.height:,}")

    @functools.cached_property
    def _orientation(self) -> int:
        """Asked before the pixels are read, and only then: a PNG may say something else behind them."""
        info = self.image.info
        stream = self.image.fp if self.image.tile and self.format == "PNG" and "exif" not in info else None
        if stream is not None and has_text_after_pixels(stream):
            self._load()
        stored: object = None
        if self.format == "TIFF":
            stored = self.image.tag_v2.get(ExifTags.Base.Orientation)  # type: ignore[attr-defined]  # a TIFF has it
        elif isinstance(info.get("exif"), bytes):
            stored = orientation_in_exif(info["exif"])
        elif isinstance(info.get("Raw profile type exif"), str):  # so ImageMagick puts it into a PNG
            with contextlib.suppress(ValueError):
                stored = orientation_in_exif(bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:])))
        for key in ("XML:com.adobe.xmp", "xmp"):
            if stored is None:
                stored = orientation_in_xmp(info.get(key))
        return next((number for number in TURNS if number == stored), 1)


def open_photo(source: Path | BinaryIO) -> OpenPhoto:
    """Reads the header of a photo.

    Raises UltronError, naming the photo, if it is no regular file, is none of the types that are read, or has more
    bytes than the memory budget.
    """
    with _failures_said(source):
        if isinstance(source, Path):
            _require_file(source)
        # Pillow's warnings do not name the photo. Others restore older filters, so it is said at every photo.
        warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
        try:
            return OpenPhoto(source, Image.open(source, formats=_formats()))
        except Exception as error:  # Pillow raises many types
            return OpenPhoto(source, _opened_otherwise(source, error))


def _opened_otherwise(source: Path | BinaryIO, error: Exception) -> ImageFile.ImageFile:
    """What Image.open refused with `error`: HEIF by a decoder of its own; TIFF and AVIF, which Pillow refuses for any
    damaged tag, without the tags that do not matter. Raises `error` for anything else."""
    with open(source, "rb") if isinstance(source, Path) else contextlib.nullcontext(source) as stream:
        stream.seek(0)
        head = stream.read(12)
        is_heif = head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS
        has_tags = head[4:8] == b"ftyp" or head[:4] in TIFF_HEADS
        content = head + stream.read() if has_tags and not is_heif else b""
    if is_heif:
        if not has_heif():
            raise UltronError(f"{source} is a HEIF photo, which needs pillow-heif; install it: {HEIF_INSTALL}", SKIP)
        _load_heif()
        return Image.open(source, formats=("HEIF",))
    sound_content = with_needed_tags_only(content)
    if sound_content == content:
        raise error
    return Image.open(io.BytesIO(sound_content), formats=_formats())


def _require_file(path: Path) -> None:
    """Raises FileNotFoundError, UltronError for what is no regular file, OverBudget for one of too many bytes: some
    decoders read all of them first."""
    n_bytes = path.stat().st_size
    require_regular_file(path, "photo")
    check_memory(n_bytes, f"{path}: a photo of {n_bytes:,} bytes")


def read_photo(path: Path) -> bytes:
    """The bytes of a photo's file, not decoded. Raises OSError, UltronError for what is no regular file, OverBudget."""
    _require_file(path)
    return path.read_bytes()


def decode_photo(source: Path | BinaryIO, draft_side_px: int | None = None) -> Image.Image:
    """An upright RGB photo. Raises UltronError naming the photo if it cannot be decoded.

    draft_side_px: a longest side that is enough, for OpenPhoto.draft.
    """
    with open_photo(source) as photo:
        if draft_side_px:
            photo.draft(draft_side_px / max(photo.image.size))
        return photo.rgb()


def photo_size(source: Path | BinaryIO) -> tuple[int, int]:
    """(width, height) of the upright photo, read from its header. Raises UltronError as decode_photo."""
    with open_photo(source) as photo:
        return photo.size


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as 8-bit RGB: 16-bit is scaled, not cut; transparent places become white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image, dtype=np.float64)
        highest = 1.0 if image.mode == "F" and values.max(initial=0) <= 1.0 else 255.0
        if values.max(initial=0) > 255.0:
            highest = 65535.0
        values.clip(0, highest, out=values)
        values *= 255.0 / highest
        return Image.fromarray(values.round(out=values).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
