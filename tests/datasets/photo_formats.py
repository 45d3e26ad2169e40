"""Photos made byte by byte: of every type, stored in all eight orientations, with tags that are damaged."""

import io
import struct

import numpy as np
from PIL import Image

from ultron_cli.datasets.photo_tags import TURNS

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_RATIONAL, FLOAT = 1, 2, 3, 4, 5, 7, 10, 11
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "TIFF packed")
BACK = {5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another, where it is not itself
Tag = tuple[int, int, int, bytes]  # number, type, count, and the value or (longer than 4 bytes) what is put elsewhere


def quarters(width: int = 96, height: int = 48) -> np.ndarray:
    """(height, width, 3) uint8: four quarters of different colours, so that every turn shows."""
    pixels = np.full((height, width, 3), 250, np.uint8)
    pixels[: height // 2, : width // 2] = (200, 30, 40)
    pixels[height // 2 :, : width // 2] = (10, 200, 40)
    pixels[: height // 2, width // 2 :] = (10, 20, 240)
    return pixels


def stored_as(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels as a camera stores them that writes this orientation."""
    image = Image.fromarray(pixels)
    return np.array(image.transpose(TURNS[BACK.get(orientation, orientation)]) if orientation != 1 else image)


def directory(tags: list[Tag], order: str = "<") -> bytes:
    """A TIFF without pixels, as EXIF is."""
    tags = sorted(tags)
    place = 8 + 2 + 12 * len(tags) + 4
    entries, elsewhere = b"", b""
    for number, kind, count, value in tags:
        if len(value) > 4:
            value, elsewhere = struct.pack(f"{order}L", place + len(elsewhere)), elsewhere + value
        entries += struct.pack(f"{order}HHL", number, kind, count) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}LH", 8, len(tags))
    return head + entries + bytes(4) + elsewhere


def orientation_tag(orientation: int, order: str = "<") -> Tag:
    """The one tag that tells what is upright."""
    return (0x112, SHORT, 1, struct.pack(f"{order}H", orientation))


def exif(tags: list[Tag], order: str = "<") -> bytes:
    """A block of EXIF as JPEG has it."""
    return b"Exif\0\0" + directory(tags, order)


def tiff(pixels: np.ndarray, tags: list[Tag]) -> bytes:
    """A TIFF of one strip, not compressed."""
    height, width = pixels.shape[:2]

    def with_strip_at(place: int) -> bytes:
        numbers = {256: width, 257: height, 259: 1, 262: 2, 273: place, 277: 3, 278: height, 279: pixels.size}
        stored = [(number, LONG, 1, struct.pack("<L", value)) for number, value in numbers.items()]
        return directory([*stored, (258, SHORT, 3, struct.pack("<3H", 8, 8, 8)), *tags])

    return with_strip_at(len(with_strip_at(0))) + pixels.tobytes()


def photo_of(kind: str, pixels: np.ndarray, tags: list[Tag]) -> bytes:
    """A photo of one of FORMATS whose pixels are stored so, with these tags; the first one is the orientation."""
    if kind == "TIFF":
        return tiff(pixels, tags)
    image, stream = Image.fromarray(pixels), io.BytesIO()
    if kind == "TIFF packed":
        image.save(stream, "TIFF", compression="tiff_lzw", tiffinfo={0x112: struct.unpack("<H", tags[0][3])[0]})
    elif kind == "MPO":
        image.save(stream, "MPO", save_all=True, append_images=[image], exif=exif(tags), quality=95)
    elif kind == "HEIF":
        import pillow_heif

        heif = pillow_heif.from_pillow(image)
        heif.info["exif"] = exif(tags)
        heif.save(stream, quality=90)
    else:
        options: dict[str, object] = {"exif": exif(tags)} if tags else {}
        image.save(stream, kind, **options, **({} if kind == "PNG" else {"quality": 95}))
    return stream.getvalue()
