"""Damages photos where their formats keep sizes, types and places, with checksums made right."""

import random
import struct
import zlib

from tests.fuzz.mutations import NUMBERS, mutate_bytes


def mutate_photo(data: bytes, draws: random.Random) -> bytes:
    """A number or a part of a photo's headers changed, by what it is."""
    if data.startswith(b"\x89PNG"):
        return _changed_png(data, draws)
    if data.startswith(b"\xff\xd8"):
        return _changed_jpeg(data, draws)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _changed_directory(data, 0, draws)
    if data[4:8] == b"ftyp" or data[4:8] == b"jP  ":
        return _changed_boxes(data, draws)
    if data.startswith(b"RIFF"):
        return _changed_riff(data, draws)
    return _changed_number(data, 0, min(64, len(data)), draws)


def _changed_number(data: bytes, start: int, stop: int, draws: random.Random) -> bytes:
    """A number of 1, 2 or 4 bytes between start and stop, written either way."""
    if stop <= start:
        return mutate_bytes(data, draws)
    place, n_bytes = draws.randrange(start, stop), draws.choice((1, 2, 4))
    order = draws.choice(("little", "big"))
    number = int.from_bytes(data[place : place + n_bytes], order)
    value = draws.choice([*NUMBERS, number + 1, number - 1, 2 * number, 30000, 65500]) % (1 << 8 * n_bytes)
    return data[:place] + value.to_bytes(n_bytes, order)[: len(data) - place] + data[place + n_bytes :]


def _changed_png(data: bytes, draws: random.Random) -> bytes:
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    i = draws.randrange(len(chunks))
    kind, content = chunks[i]
    change = draws.randrange(6)
    if change == 0:
        del chunks[i]
    elif change == 1:
        chunks.insert(draws.randrange(len(chunks) + 1), chunks[i])
    elif change == 2:
        kinds = (
            b"IHDR",
            b"PLTE",
            b"IDAT",
            b"IEND",
            b"tRNS",
            b"eXIf",
            b"iTXt",
            b"zTXt",
            b"iCCP",
            b"acTL",
            b"fdAT",
            b"gAMA",
        )
        chunks[i] = (draws.choice(kinds), content)
    elif kind == b"IDAT" and draws.random() < 0.5:
        chunks[i] = (kind, zlib.compress(mutate_bytes(zlib.decompress(content), draws)))
    else:
        chunks[i] = (kind, _changed_number(content, 0, len(content), draws))
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return data[:8] + b"".join(parts)


def _changed_jpeg(data: bytes, draws: random.Random) -> bytes:
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append((place, place + 2 + length))
        if data[place + 1] == 0xDA:  # pixels follow
            break
        place += 2 + length
    start, stop = draws.choice(segments)
    content = data[start + 4 : stop]
    change = draws.randrange(6)
    if change == 0:
        return data[:start] + data[stop:]
    if change == 1:
        return data[:stop] + data[start:stop] + data[stop:]
    if change == 2:
        return data[: start + 1] + bytes([draws.randrange(0xC0, 0x100)]) + data[start + 2 :]
    if content.startswith(b"Exif\0\0") and draws.random() < 0.7:
        return data[: start + 10] + _changed_directory(content[6:], 0, draws) + data[stop:]
    return _changed_number(data, start + 2, stop, draws)


def _changed_directory(data: bytes, start: int, draws: random.Random) -> bytes:
    """A TIFF with one field of an entry of its first directory changed."""
    order = "<" if data[start : start + 2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}L", data, start + 4)
    if not 8 <= place <= len(data) - 2 or draws.random() < 0.2:
        return _changed_number(data, start, len(data), draws)
    (n_entries,) = struct.unpack_from(f"{order}H", data, place)
    entry = place + 2 + 12 * draws.randrange(max(1, n_entries))
    if entry + 12 > len(data):
        return _changed_number(data, start, len(data), draws)
    field = draws.choice("HHLL")
    offset = {"H": draws.choice((0, 2, 8)), "L": draws.choice((4, 8))}[field]
    (number,) = struct.unpack_from(f"{order}{field}", data, entry + offset)
    tags = (
        254,
        256,
        257,
        258,
        259,
        262,
        273,
        277,
        278,
        279,
        284,
        317,
        320,
        322,
        323,
        324,
        330,
        338,
        339,
        347,
        700,
        34665,
    )
    value = draws.choice([*NUMBERS, number + 1, number - 1, 2 * number, *range(13), *tags, 32773, 34925, 50000])
    changed = bytearray(data)
    struct.pack_into(f"{order}{field}", changed, entry + offset, value % (1 << (16 if field == "H" else 32)))
    return bytes(changed)


def _changed_boxes(data: bytes, draws: random.Random) -> bytes:
    """AVIF, HEIF or JPEG 2000: a number in a box before the pixels, or the name of a box."""
    boxes = [place for name in BOXES for place in _places_of(data, name)]
    if not boxes:
        return mutate_bytes(data, draws)
    place = draws.choice(boxes)
    if draws.random() < 0.15:
        return data[:place] + draws.choice(BOXES) + data[place + 4 :]
    return _changed_number(data, max(0, place - 4), min(len(data), place + 40), draws)


BOXES = [
    b"ftyp", b"meta", b"hdlr", b"pitm", b"iloc", b"iinf", b"infe", b"iref", b"iprp", b"ipco", b"ispe", b"pixi", b"av1C",
    b"hvcC", b"colr", b"ipma", b"irot", b"imir", b"clap", b"auxC", b"mdat", b"grid", b"Exif", b"jp2h", b"ihdr", b"jp2c",
]  # fmt: skip


def _places_of(data: bytes, name: bytes) -> list[int]:
    place, places = data.find(name), []
    while place >= 0:
        places.append(place)
        place = data.find(name, place + 1)
    return places


def _changed_riff(data: bytes, draws: random.Random) -> bytes:
    chunks = [place for name in (b"RIFF", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"XMP ")
              for place in _places_of(data, name)]  # fmt: skip
    place = draws.choice(chunks)
    if draws.random() < 0.15:
        return data[:place] + draws.choice((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANMF", b"EXIF")) + data[place + 4 :]
    return _changed_number(data, place + 4, min(len(data), place + 30), draws)
