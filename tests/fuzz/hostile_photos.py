"""Hostile photos, each thought out: sizes that lie, parts that are missing or doubled, tags that lead in circles."""

import struct
import zlib

from tests.datasets.photo_formats import ASCII, LONG, SHORT, directory, exif, orientation_tag, photo_of, quarters, tiff
from tests.fuzz.hostile_binaries import hostile_bytes
from tests.fuzz.hostile_texts import Files

FAR = 0xFFFFFFF0
UNPACKED = zlib.compress(bytes(4 << 20))


def hostile_photos(sound: bytes) -> Files:
    """What is hostile to the opener of photos, by the kind of a sound one."""
    files = hostile_bytes(sound)
    if sound.startswith(b"\x89PNG"):
        files |= _png()
    elif sound.startswith(b"\xff\xd8"):
        files |= _jpeg(sound)
    elif sound[:4] == b"II*\0":
        files |= _tiff()
    elif sound[4:8] == b"ftyp":
        files |= _boxes(sound)
    elif sound.startswith(b"RIFF"):
        files |= _riff(sound)
    return files | _others()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _header(width: int, height: int, depth: int, colours: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))


def _png_of(width: int, height: int, depth: int = 8, colours: int = 2, *parts: bytes, lines: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")
    )


def _png() -> Files:
    line = b"\0" + bytes(12)
    return {
        "13,000 x 13,000": _png_of(13_000, 13_000),
        "1 x 50,000,000": _png_of(1, 50_000_000),
        "2^31 - 1 in square": _png_of((1 << 31) - 1, (1 << 31) - 1),
        "no width": _png_of(0, 4),
        "a size below 0": _png_of(FAR, FAR),
        "three bits deep": _png_of(4, 4, 3),
        "colours of no name": _png_of(4, 4, 8, 5),
        "a palette that is missing": _png_of(4, 4, 8, 3, lines=(b"\0" + bytes(4)) * 4),
        "a palette of 257": _png_of(4, 4, 8, 3, _chunk(b"PLTE", bytes(771)), lines=(b"\0" + bytes(4)) * 4),
        "pixels that are missing": _png_of(4, 4, lines=line),
        "pixels too many": _png_of(4, 4, lines=line * 1000),
        "a filter of no name": _png_of(4, 4, lines=(b"\x09" + bytes(12)) * 4),
        "two headers": _png_of(4, 4, 8, 2, _header(9, 9, 8, 2), lines=line * 4),
        "text of 4 MiB": _png_of(4, 4, 8, 2, _chunk(b"zTXt", b"a\0\0" + UNPACKED), lines=line * 4),
        "a colour profile of 4 MiB": _png_of(4, 4, 8, 2, _chunk(b"iCCP", b"a\0\0" + UNPACKED), lines=line * 4),
        "tags that are none": _png_of(4, 4, 8, 2, _chunk(b"eXIf", b"\xff" * 40), lines=line * 4),
        "tags in a circle": _png_of(4, 4, 8, 2, _chunk(b"eXIf", _circle()), lines=line * 4),
        "a profile of tags in letters": _png_of(
            4, 4, 8, 2, _chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz"), lines=line * 4
        ),
        "a million frames": _png_of(4, 4, 8, 2, _chunk(b"acTL", struct.pack(">II", 1 << 20, 0)), lines=line * 4),
        "transparency of one byte": _png_of(4, 4, 8, 2, _chunk(b"tRNS", b"\0"), lines=line * 4),
        "a chunk that ends far away": _png_of(4, 4)[:33] + b"\x7f\xff\xff\xffabcd",
    }


def _circle() -> bytes:
    """Tags whose next directory is themselves."""
    tags = directory([orientation_tag(6)])
    return tags[:-4] + (8).to_bytes(4, "little")


def _jpeg(sound: bytes) -> Files:
    place = sound.find(b"\xff\xc0") if b"\xff\xc0" in sound else sound.find(b"\xff\xc2")
    scan = sound.find(b"\xff\xda")

    def sized(height: int, width: int) -> bytes:
        return sound[: place + 5] + struct.pack(">HH", height, width) + sound[place + 9 :]

    def tagged(content: bytes) -> bytes:
        return sound[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + sound[2:]

    text = (0x10E, ASCII, FAR, struct.pack("<L", FAR))
    return {
        "65,500 in square": sized(65_500, 65_500),
        "no height": sized(0, 24),
        "no width": sized(16, 0),
        "a hundred lines more": sized(116, 24),
        "255 colours": sound[: place + 9] + b"\xff" + sound[place + 10 :],
        "no colours": sound[: place + 9] + b"\0" + sound[place + 10 :],
        "16 bits deep": sound[: place + 4] + b"\x10" + sound[place + 5 :],
        "without pixels": sound[:scan] + b"\xff\xd9",
        "pixels of zeros": sound[: scan + 14] + bytes(2000),
        "pixels of restarts": sound[: scan + 14] + b"\xff\xd0" * 1000 + b"\xff\xd9",
        "without tables": sound[:2] + sound[place:],
        "a hundred scans": sound[:-2] + sound[scan:-2] * 100 + b"\xff\xd9",
        "a segment of no length": sound[:2] + b"\xff\xe1\0\0" + sound[2:],
        "a segment beyond the end": sound[:2] + b"\xff\xe1\xff\xff" + sound[2:40],
        "an orientation of 9": tagged(exif([orientation_tag(9)])),
        "an orientation of text": tagged(exif([(0x112, ASCII, 2, b"6\0\0\0")])),
        "an orientation far away": tagged(exif([(0x112, SHORT, 1 << 30, struct.pack("<L", FAR))])),
        "tags far away": tagged(exif([text, orientation_tag(6)])),
        "tags in a circle": tagged(b"Exif\0\0" + _circle()),
        "65,535 tags": tagged(b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(100)),
        "tags cut": tagged(exif([orientation_tag(6)])[:15]),
        "packets of XML that lie": tagged(b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='99999999999'"),
        "a profile in 255 parts": tagged(b"x") + b"\xff\xe2\0\x14ICC_PROFILE\0\xff\xffabcd",
        "pictures behind that are missing": tagged(b"MPF\0II*\0\x08\0\0\0" + bytes(20)),
    }


def _tiff() -> Files:
    pixels = quarters(24, 16)

    def with_tag(number: int, kind: int, count: int, value: bytes) -> bytes:
        plain = tiff(pixels, [])
        start = 10 + 12 * next(i for i in range(20) if plain[10 + 12 * i : 12 + 12 * i] == struct.pack("<H", number))
        return plain[:start] + struct.pack("<HHL", number, kind, count) + value + plain[start + 12 :]

    def number(tag: int, value: int) -> bytes:
        return with_tag(tag, LONG, 1, struct.pack("<L", value))

    plain = tiff(pixels, [])
    return {
        "65,500 wide": number(256, 65_500),
        "2^32 wide": number(256, FAR),
        "no width": number(256, 0),
        "2^32 high": number(257, FAR),
        "packed in a way of its own": number(259, 9999),
        "packed as JPEG": number(259, 7),
        "packed as old JPEG": number(259, 6),
        "packed as fax": number(259, 4),
        "colours of no name": number(262, 77),
        "a palette that is missing": number(262, 3),
        "pixels far away": number(273, FAR),
        "pixels at the beginning": number(273, 0),
        "no colours": number(277, 0),
        "65,535 colours": number(277, 65_535),
        "no rows in a strip": number(278, 0),
        "a strip of 4 GB": number(279, FAR),
        "a width of text": with_tag(256, ASCII, 4, b"abc\0"),
        "a width of 2^30 numbers": with_tag(256, LONG, 1 << 30, struct.pack("<L", 8)),
        "a type of no name": with_tag(258, 99, 3, bytes(4)),
        "bits far away": with_tag(258, SHORT, 3, struct.pack("<L", FAR)),
        "a directory far away": plain[:4] + struct.pack("<L", FAR) + plain[8:],
        "a directory in a circle": plain[:4] + struct.pack("<L", 8) + plain[8:10] + plain[10:],
        "65,535 tags": plain[:8] + b"\xff\xff" + plain[10:],
        "no tags": plain[:8] + b"\0\0" + plain[10:],
        "BigTIFF": b"II+\0\x08\0\0\0" + (1 << 60).to_bytes(8, "little") + plain,
    }


def _boxes(sound: bytes) -> Files:
    """AVIF and HEIF."""
    files = {}
    for box in (b"ftyp", b"meta", b"iloc", b"iinf", b"iprp", b"ipco", b"ispe", b"ipma", b"pitm", b"mdat"):
        place = sound.find(box)
        name = box.decode()
        files |= {
            f"{name} of 4 GB": sound[: place - 4] + b"\xff\xff\xff\xf0" + sound[place:],
            f"{name} of no length": sound[: place - 4] + b"\0\0\0\1" + sound[place:],
            f"{name} is missing": sound[:place] + b"zzzz" + sound[place + 4 :],
        }
    place = sound.find(b"ispe") + 8
    for name, size in {
        "1 x 1": (1, 1),
        "no size": (0, 0),
        "2^31 in square": (1 << 31, 1 << 31),
        "16,000": (16_000,) * 2,
    }.items():
        files[f"its header says {name}"] = sound[:place] + struct.pack(">II", *size) + sound[place + 8 :]
    codes = sound.find(b"mdat") + 4
    files["pixels of zeros"] = sound[:codes] + bytes(len(sound) - codes)
    files["pixels of ones"] = sound[:codes] + b"\xff" * (len(sound) - codes)
    return files


def _riff(sound: bytes) -> Files:
    """WebP."""
    vp8x = b"VP8X" + struct.pack("<I", 10)
    plain = sound[12:]

    def riff(content: bytes) -> bytes:
        return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content

    return {
        "16,384 in square": riff(vp8x + bytes(4) + b"\xff\x3f\0\xff\x3f\0" + plain),
        "16 million in square": riff(vp8x + bytes(4) + b"\xff" * 6 + plain),
        "1 x 1": riff(vp8x + bytes(10) + plain),
        "all flags": riff(vp8x + b"\xff" + bytes(9) + plain),
        "an animation without frames": riff(vp8x + b"\x02" + bytes(9) + b"ANIM" + struct.pack("<I", 6) + bytes(6)),
        "a frame outside": riff(vp8x + b"\x02" + bytes(9) + b"ANMF" + struct.pack("<I", 16) + b"\xff" * 16),
        "tags that are none": riff(vp8x + b"\x08" + bytes(9) + b"EXIF" + struct.pack("<I", 4) + b"abcd"),
        "tags in a circle": riff(vp8x + b"\x08" + bytes(9) + b"EXIF" + struct.pack("<I", len(_circle())) + _circle()),
        "no content": riff(b""),
        "a chunk of 4 GB": riff(b"VP8 " + struct.pack("<I", FAR) + bytes(30)),
        "a chunk of no length": riff(b"VP8L" + bytes(4)),
        "transparency alone": riff(b"ALPH" + struct.pack("<I", 4) + bytes(4)),
        "a key frame that is none": riff(b"VP8 " + struct.pack("<I", 30) + b"\x01" * 30),
        "lossless of zeros": riff(b"VP8L" + struct.pack("<I", 40) + b"\x2f" + bytes(39)),
        "a size of 0": sound[:4] + bytes(4) + sound[8:],
        "a size of 4 GB": sound[:4] + b"\xff" * 4 + sound[8:],
    }


def _others() -> Files:
    """Files of small formats, which any opener of photos meets."""
    bmp = b"BM" + struct.pack("<IHHI", 70, 0, 0, 54)

    def bitmap(width: int, height: int, bits: int = 24, packing: int = 0) -> bytes:
        return bmp + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, 0, 0, 0, 0, 0) + bytes(16)

    gif = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6)
    return {
        "BMP, 100,000 in square": bitmap(100_000, 100_000),
        "BMP, a height below 0": bitmap(2, -2),
        "BMP, a width below 0": bitmap(-2, 2),
        "BMP, 7 bits": bitmap(2, 2, 7),
        "BMP, packed in a way of its own": bitmap(2, 2, 24, 77),
        "BMP, run lengths that end nowhere": bitmap(2, 2, 8, 1),
        "GIF, 65,535 in square": b"GIF89a" + b"\xff" * 4 + b"\0\0\0;",
        "GIF, a frame outside": gif + b"," + struct.pack("<HHHHB", 60_000, 60_000, 9, 9, 0) + b"\x02\x01\0\0;",
        "GIF, codes of 12 bits at once": gif + b"," + struct.pack("<HHHHB", 0, 0, 4, 4, 0) + b"\x0c\x02\xff\xff\0;",
        "GIF, no frames": gif + b";",
        "PPM, 99,999 in square": b"P6 99999 99999 255\n" + bytes(12),
        "PPM, no size": b"P6 0 0 255\n",
        "PPM, 400 digits": b"P6 " + b"9" * 400 + b" 1 255\n",
        "PPM, a greatest value of 0": b"P6 1 1 0\n" + bytes(3),
        "PPM, a comment without end": b"P6 #" + b"x" * 10_000,
        "PPM, plain letters": b"P3 2 2 255\na b c d",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(true) run\n",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
        "PDF": b"%PDF-1.4\n",
        "JPEG 2000, cut": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
        "JPEG 2000, codes of 2^32": b"\xff\x4f\xff\x51\0\x29\0\0" + b"\xff" * 32,
        "an icon": b"\0\0\1\0\1\0" + b"\xff" * 16,
        "AVIF without a picture": photo_of("AVIF", quarters(24, 16), [orientation_tag(1)])[:40],
    }
