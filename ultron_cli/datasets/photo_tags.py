"""The one tag of a photo that is needed: which side is up. It is read alone, as damage to others is common."""

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import IO

from PIL import ExifTags, Image

TIFF_HEADS = (b"II*\0", b"MM\0*")  # EXIF is a TIFF without pixels
SHORT, LONG = 3, 4  # types of a tag
# The tags that say how the pixels of a TIFF are stored; of all others (resolution, names, places, previews) none is
# needed.
# fmt: off
NEEDED_TAGS = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338,
    339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532, 34675,
))
# fmt: on
# What an orientation other than 1 does to the stored pixels; from 5 on width and height change places.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_in_exif(exif: bytes) -> int | None:
    """The orientation tag of a block of EXIF, read alone: whatever else is damaged does not matter."""
    data = re.sub(b"^(Exif\0\0){1,2}", b"", exif)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    with contextlib.suppress(struct.error):  # cut off
        for place, tag, kind, n_values in _tags(data, 0, order):
            if tag == ExifTags.Base.Orientation and kind in (SHORT, LONG) and n_values == 1:
                return struct.unpack_from(order + ("H" if kind == SHORT else "L"), data, place + 8)[0]
    return None


def orientation_in_xmp(xmp: object) -> int | None:
    """What a photo's XMP says, for photos without the tag."""
    text = xmp.encode() if isinstance(xmp, str) else xmp
    match = re.search(rb'tiff:Orientation(="|>)([0-9])', text) if isinstance(text, bytes) else None
    return int(match[2]) if match else None


def with_needed_tags_only(content: bytes) -> bytes:
    """A TIFF or AVIF whose other tags have no type any more, so that Pillow passes them over."""
    sound = bytearray(content)
    start = 0 if content[:4] in TIFF_HEADS else None
    if start is None and (match := re.search(rb"(?:\0{4}|Exif\0\0)(?=II\*\0|MM\0\*)", content)):
        start = match.end()
    if start is None:
        return content
    order = "<" if content[start : start + 2] == b"II" else ">"
    with contextlib.suppress(struct.error):  # cut off
        for place, tag, kind, n_values in _tags(content, start, order):
            is_odd = tag == ExifTags.Base.Orientation and (kind not in (SHORT, LONG) or n_values != 1)
            if is_odd or tag not in NEEDED_TAGS:
                struct.pack_into(f"{order}H", sound, place + 2, 0)
    return bytes(sound)


def _tags(data: bytes, start: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """(place, tag, type, number of values) of each entry of the first directory of a TIFF that begins at `start`.

    Raises struct.error where it is cut off.
    """
    (first,) = struct.unpack_from(f"{order}L", data, start + 4)
    (n_tags,) = struct.unpack_from(f"{order}H", data, start + first)
    for place in range(start + first + 2, start + first + 2 + 12 * n_tags, 12):
        yield place, *struct.unpack_from(f"{order}HHL", data, place)


def has_text_after_pixels(stream: IO[bytes]) -> bool:
    """Whether a PNG has chunks of EXIF or text after its pixels. The stream stays where it is."""
    place = stream.tell()
    try:
        stream.seek(8)
        has_pixels = False
        while len(head := stream.read(8)) == 8:
            n_bytes, kind = struct.unpack(">L4s", head)
            if has_pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            has_pixels = has_pixels or kind == b"IDAT"
            stream.seek(n_bytes + 4, 1)
        return False
    finally:
        stream.seek(place)
