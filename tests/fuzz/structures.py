"""Damages archives, weights and indexes where their formats keep numbers and names, so that the damage gets past their
checksums and signatures."""

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile

from tests.fuzz.mutations import NUMBERS, mutate_bytes, mutate_json

# signature of a record of a zip -> format of each of its fields, after the signature
ZIP_RECORDS = {b"PK\3\4": "HHHHHIIIHH", b"PK\1\2": "HHHHHHIIIHHHHHII", b"PK\5\6": "HHHHIIH"}
NAMES = [
    "",
    "/",
    "..",
    "../x",
    "/etc/x",
    "a/",
    "a/../../b",
    "C:\\x",
    "a\\b",
    "\0",
    "a\nb",
    "x" * 300,
    "ü",
    ".x",
    "d/" * 90,
]
# offset and length of the fields of a tar's header
TAR_FIELDS = [(0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8), (345, 155)]
TAR_NUMBERS = [b"0", b"7", b"-1", b"777777777777", b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\x01", b"\0", b" ", b"9"]
COMPRESSIONS = (gzip, bz2, lzma)
FACTORIES = [
    b"IxFI",
    b"IxF2",
    b"IxFl",
    b"IxSQ",
    b"IwFl",
    b"IwPQ",
    b"IHNf",
    b"IHNs",
    b"IxPT",
    b"IxMp",
    b"IxM2",
    b"ilar",
    b"il00",
]


def mutate_zip(data: bytes, draws: random.Random) -> bytes:
    """A zip with a field of a record changed, or made anew with a member damaged, renamed, doubled or left out."""
    places = [
        (place, fields)
        for signature, fields in ZIP_RECORDS.items()
        for place in _places(data, signature)
        if place + 4 + struct.calcsize(f"<{fields}") <= len(data)
    ]
    if places and draws.random() < 0.5:
        place, fields = draws.choice(places)
        values = list(struct.unpack_from(f"<{fields}", data, place + 4))
        i = draws.randrange(len(fields))
        n_bytes = struct.calcsize(f"<{fields[i]}")
        values[i] = draws.choice([*NUMBERS, values[i] + 1, values[i] - 1, 2 * values[i], *range(13)]) % (
            1 << 8 * n_bytes
        )
        changed = bytearray(data)
        struct.pack_into(f"<{fields}", changed, place + 4, *values)
        return bytes(changed)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    i = draws.randrange(len(members))
    name, content = members[i]
    kind = draws.randrange(6)
    if kind == 0:
        del members[i]
    elif kind == 1:
        members[i] = (draws.choice((*NAMES, members[0][0])), content)
    elif kind == 2:
        members.append((name, content))
    else:
        members[i] = (name, mutate_bytes(content, draws))
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", draws.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return output.getvalue()


def _places(data: bytes, signature: bytes) -> list[int]:
    place, places = data.find(signature), []
    while place >= 0:
        places.append(place)
        place = data.find(signature, place + 1)
    return places


def mutate_tar(data: bytes, draws: random.Random) -> bytes:
    """A tar, compressed or not, with a field of a header changed and its checksum made right, or a header of another
    kind put in front."""
    compression = next((kind for kind in COMPRESSIONS if data[:2] == kind.compress(b"")[:2]), None)
    changed = bytearray(compression.decompress(data) if compression else data)
    headers = [place - 257 for place in _places(bytes(changed), b"ustar") if place >= 257]
    for _ in range(draws.choice((1, 1, 2))):
        place = draws.choice(headers)
        offset, length = draws.choice(TAR_FIELDS)
        if offset == 156:
            value = bytes([draws.choice(b"0123456789gxLKSDVAN\0\xff")])
        elif length >= 100:
            value = draws.choice(NAMES).encode()
        else:
            value = draws.choice(TAR_NUMBERS)
        changed[place + offset : place + offset + length] = value[:length].ljust(length, b"\0")
        _sum_up(changed, place)
    if draws.random() < 0.2:
        extra = draws.choice(
            (b"19 size=-5\n", b"12 path=../x\n", b"999999 a=b\n", b"20 GNU.sparse.size=9\n", b"\xff" * 30)
        )
        header = tarfile.TarInfo("x")
        header.size, header.type = draws.choice((len(extra), 1 << 30)), draws.choice((b"x", b"g", b"L", b"K", b"S"))
        block = bytearray(header.tobuf(tarfile.GNU_FORMAT) + extra.ljust(512, b"\0"))
        changed[headers[0] : headers[0]] = block
    return compression.compress(bytes(changed)) if compression else bytes(changed)


def _sum_up(tar: bytearray, place: int) -> None:
    """Writes the checksum of a header."""
    tar[place + 148 : place + 156] = b" " * 8
    tar[place + 148 : place + 156] = b"%06o\0 " % sum(tar[place : place + 512])


def mutate_archive(data: bytes, draws: random.Random) -> bytes:
    """A zip or a tar, by what it is."""
    return mutate_zip(data, draws) if data.startswith(b"PK") else mutate_tar(data, draws)


def mutate_weights(data: bytes, draws: random.Random) -> bytes:
    """A file of torch or of safetensors, by what it is: the names, types, shapes and offsets of the tensors, or any
    bytes of a pickle."""
    if data.startswith(b"PK"):
        return mutate_zip(data, draws)
    if data[8:9] != b"{":
        return mutate_bytes(data, draws)
    end = 8 + int.from_bytes(data[:8], "little")
    header = mutate_json(data[8:end], draws)
    if draws.random() < 0.3:
        tensors = json.loads(data[8:end])
        tensor = draws.choice([value for value in tensors.values() if "dtype" in value])
        key = draws.choice(("dtype", "shape", "data_offsets"))
        tensor[key] = (
            draws.choice(("F64", "BF16", "I8", "BOOL", "X")) if key == "dtype" else draws.choices(NUMBERS, k=2)
        )
        header = json.dumps(tensors).encode()
    length = len(header) if draws.random() < 0.8 else draws.choice(NUMBERS)
    return (length % (1 << 64)).to_bytes(8, "little") + header + data[end:]


def mutate_faiss(data: bytes, draws: random.Random) -> bytes:
    """One to three numbers or kinds of parts of a Faiss file changed: they stand where a small number stands now."""
    changed = bytearray(data)
    for _ in range(draws.choice((1, 1, 2, 3))):
        if draws.random() < 0.15:
            kinds = [place for place in range(0, len(data) - 4) if data[place : place + 4] in FACTORIES]
            if kinds:
                place = draws.choice(kinds)
                changed[place : place + 4] = draws.choice(FACTORIES)
                continue
        n_bytes = draws.choice((1, 4, 8))
        # Headers stand in front and, with graphs and lists, at the end: what lies between are vectors.
        place = draws.choice((draws.randrange(min(200, len(data))), draws.randrange(len(data))))
        for _ in range(40):
            number = int.from_bytes(data[place : place + n_bytes], "little")
            if 0 < number < 10_000 or draws.random() < 0.03:
                break
            place = draws.randrange(len(data))
        values = (*NUMBERS, number + 1, number - 1, 2 * number, number // 2, 1 << 28, 1 << 24, 10**6, 41, 39, 9, 3)
        changed[place : place + n_bytes] = (draws.choice(values) % (1 << 8 * n_bytes)).to_bytes(n_bytes, "little")
    return bytes(changed[: len(data)])
