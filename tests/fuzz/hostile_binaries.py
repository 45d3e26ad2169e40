"""Hostile binary files, each thought out: pickles, zips, tars, arrays of NumPy, weights, indexes of Faiss."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np

from tests.fuzz.hostile_texts import Files

FAR = 1 << 60


def hostile_bytes(sound: bytes) -> Files:
    """What is hostile to any reader of bytes."""
    return {
        "empty": b"",
        "a byte": b"\0",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "cut at 8": sound[:8],
        "cut in half": sound[: len(sound) // 2],
        "the last byte is missing": sound[:-1],
        "twice": sound + sound,
        "a byte before": b"\0" + sound,
        "backwards": sound[::-1],
        "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "a pointer of git-LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    }


def _with_size(code: bytes, n_bytes: int, size: int) -> bytes:
    return b"\x80\x05" + code + size.to_bytes(n_bytes, "little") + b"x."


def hostile_pickles(sound: bytes) -> Files:
    """What is hostile to an unpickler."""
    circle: list = []
    circle.append(circle)
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    plain = {
        "a list in itself": circle,
        "a billion laughs": laughs,
        "a set": {1},
        "a long number": 1 << 50_000,
    }
    arrays = {
        "objects": np.array([{"a": 1}], dtype=object),
        "a record": np.zeros(2, [("a", "i4"), ("b", "O")]),
        "a time": np.zeros(2, "M8[s]"),
        "columns first": np.asfortranarray(np.zeros((3, 4))),
        "no axes": np.array(3),
    }
    files = {name: pickle.dumps(value, 4) for name, value in plain.items()}
    files |= {
        f"an array of {name}": pickle.dumps({"imlist": value, "data": value}, 2) for name, value in arrays.items()
    }
    return (
        hostile_bytes(sound)
        | files
        | {
            "os.system": b"cos\nsystem\n(S'true'\ntR.",
            "eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            "an instance": b"(ios\nsystem\n.",
            "an object": b"(cos\nsystem\no.",
            "an extension": b"\x80\x02\x82\x01.",
            "a persistent number": b"\x80\x02Px\n.",
            "a buffer beside": b"\x80\x05\x97.",
            "a number of bytes far away": _with_size(b"\x8e", 8, FAR),
            "a text of bytes far away": _with_size(b"\x8d", 8, FAR),
            "an array of bytes far away": _with_size(b"\x96", 8, FAR),
            "a frame far away": _with_size(b"\x95", 8, FAR),
            "a long of 2 GB": _with_size(b"\x8b", 4, (1 << 31) - 1),
            "a long of a size below 0": _with_size(b"\x8b", 4, (1 << 32) - 5),
            "remembered far away": b"\x80\x02Nr\xff\xff\xff\x7f.",
            "remembered by a text": b"N" + b"p99999999999\n.",
            "asked for what is not remembered": b"\x80\x02j\xff\xff\xff\xff.",
            "a hundred thousand marks": b"(" * 100_000 + b".",
            "a stack of copies": b"N" + b"2" * 100_000 + b".",
            "nothing on the stack": b"\x80\x02R.",
            "a key that is a list": b"\x80\x02}]Ns.",
            "a dictionary of odd length": b"\x80\x02}(Nu.",
            "deep": b"(" * 5_000 + b"l" * 5_000 + b".",
            "a number with letters": b"Iabc\n.",
            "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
            "text that is no text": b"\x80\x02X\x01\0\0\0\xff.",
            "a protocol of the future": b"\x80\xff" + sound[2:],
            "a state for a type": b"\x80\x02cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb.",
        }
    )


def _zip(*members: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return output.getvalue()


def _with_field(sound: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """A zip with a field of its last record of a kind changed; as it is without such a record."""
    place = sound.rfind(signature)
    return sound if place < 0 else sound[: place + offset] + value + sound[place + offset + len(value) :]


def hostile_zips(sound: bytes) -> Files:
    """What is hostile to a reader of zips."""
    far = (0xFFFFFFF0).to_bytes(4, "little")
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return hostile_bytes(sound) | {
        "no members": _zip(),
        "a way out": _zip(("../x", b"x")),
        "an absolute path": _zip(("/tmp/x", b"x")),
        "a drive": _zip(("C:\\x", b"x")),
        "a folder as a file": _zip(("a", b"x"), ("a/b", b"x")),
        "a name twice": _zip(("a/data.pkl", b"x"), ("a/data.pkl", b"y")),
        "a long name": _zip(("x" * 5000, b"x")),
        "a hundred thousand folders": _zip(("d/" * 30_000 + "x", b"x")),
        "a name with a NUL": _zip(("a\nb", b"x")).replace(b"a\nb", b"a\0b"),
        "a bomb": _zip(("bomb", bytes(30 << 20)), kind=zipfile.ZIP_DEFLATED),
        "a link": linked.getvalue(),
        "a zip in a zip": _zip(("x.zip", sound)),
        "encrypted": _with_field(sound, b"PK\1\2", 8, b"\1\0"),
        "packed in a way of its own": _with_field(sound, b"PK\1\2", 10, b"\x63\0"),
        "another checksum": _with_field(sound, b"PK\1\2", 16, b"\1\2\3\4"),
        "declares 4 GB": _with_field(sound, b"PK\1\2", 24, far),
        "packed to 4 GB": _with_field(sound, b"PK\1\2", 20, far),
        "begins at 4 GB": _with_field(sound, b"PK\1\2", 42, far),
        "its list lies at 4 GB": _with_field(sound, b"PK\5\6", 16, far),
        "its list is of 4 GB": _with_field(sound, b"PK\5\6", 12, far),
        "65,535 members": _with_field(sound, b"PK\5\6", 8, b"\xff\xff\xff\xff"),
        "a comment longer than it is": _with_field(sound, b"PK\5\6", 20, b"\xff\xff"),
        "a version of the future": _with_field(sound, b"PK\1\2", 6, b"\xff\xff"),
        "names that are no text": _with_field(sound, b"PK\1\2", 46, b"\xff\xfe"),
    }


def _tar(name: str = "a.jpg", content: bytes = b"x", **fields: object) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for field, value in fields.items():
            setattr(entry, field, value)
        archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def _pax(records: bytes) -> bytes:
    """A tar whose first member has these extended headers."""
    return _tar("h", records, type=tarfile.XHDTYPE)[: 512 + 512 * -(-len(records) // 512)] + _tar()


def hostile_archives(sound: bytes) -> Files:
    """What is hostile to an unpacker: as hostile_zips, and what a tar can do."""
    plain = _tar()
    zipped = _zip(("a.jpg", b"x" * 100), ("b.jpg", b"y"))
    types = {
        "a link": tarfile.SYMTYPE,
        "a hard link": tarfile.LNKTYPE,
        "a device": tarfile.CHRTYPE,
        "a pipe": tarfile.FIFOTYPE,
    }
    return {f"a zip: {name}": content for name, content in hostile_zips(zipped).items()} | {
        **{name: _tar(type=kind, linkname="/etc/passwd") for name, kind in types.items()},
        "a way out": _tar("../x"),
        "an absolute path": _tar("/tmp/x"),
        "a name of 300 letters": _tar("x" * 300),
        "folders 200 deep": _tar("d/" * 200 + "x"),
        "a name with a screen's commands": _tar("a\x1b[2J"),
        "a name that is no text": plain.replace(b"a.jpg", b"\xff.jpg"),
        "a folder as a file": _tar("a")[:1024] + _tar("a/b"),
        "a name twice": _tar()[:1024] + _tar(),
        "a size below 0": _pax(b"11 size=-5\n"),
        "a size of text": _pax(b"12 size=abc\n"),
        "a header longer than it is": _pax(b"999 a=b\n"),
        "a header of no length": _pax(b"0 a=b\n"),
        "a path in a header": _pax(b"18 path=../../x\n\n"),
        "holes": _pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
        "a size of 8 GB": _sized(plain, b"77777777777\0"),
        "a size in binary": _sized(plain, b"\x80" + b"\xff" * 11),
        "a size below 0 in binary": _sized(plain, b"\xff" * 12),
        "no end": plain[:1024],
        "a checksum of text": plain[:148] + b"abcdefgh" + plain[156:],
        "gzip of nothing": gzip.compress(b""),
        "gzip of a bomb": gzip.compress(_tar(".hidden", bytes(70 << 20)), 1),
        "gzip cut": gzip.compress(sound)[:-9],
        "gzip with another checksum": gzip.compress(plain)[:-8] + bytes(8),
        "bzip2 with damage": bz2.compress(plain)[:30] + b"\xff" * 8 + bz2.compress(plain)[38:],
        "xz cut": lzma.compress(plain)[:-20],
        "gzip in gzip": gzip.compress(gzip.compress(plain)),
        "files that are left out alone": _tar("._x"),
    }


def _sized(tar: bytes, size: bytes) -> bytes:
    changed = bytearray(tar[:124] + size + tar[136:])
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


def _npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + content


HOSTILE_HEADERS = {
    "10^12 numbers": "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }",
    "a product that wraps": "{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "a side below 0": "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "text": "{'descr': '<U9', 'fortran_order': False, 'shape': (1,), }",
    "bytes turned round": "{'descr': '>i8', 'fortran_order': False, 'shape': (3,), }",
    "a record": "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (3,), }",
    "a type of no name": "{'descr': 'zz', 'fortran_order': False, 'shape': (3,), }",
    "a shape of text": "{'descr': '<i8', 'fortran_order': False, 'shape': 'abc', }",
    "an open bracket": "{'descr': '<i8', 'fortran_order': False, 'shape': (3,",
    "a call": "__import__('os').system('true')",
    "forty axes": f"{{'descr': '<i8', 'fortran_order': False, 'shape': {(1,) * 40}, }}",
    "a key too many": "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), 'x': 1}",
    "deep": "(" * 500,
    "two axes": "{'descr': '<i8', 'fortran_order': True, 'shape': (1, 3), }",
    "no axes": "{'descr': '<i8', 'fortran_order': False, 'shape': (), }",
}


def hostile_npy(sound: bytes) -> Files:
    """What is hostile to a reader of an array."""
    return (
        hostile_bytes(sound)
        | {name: _npy(header, bytes(24)) for name, header in HOSTILE_HEADERS.items()}
        | {
            "a version of the future": sound[:6] + b"\x09\0" + sound[8:],
            "a header of 64 KiB that is not there": sound[:8] + b"\xff\xff" + sound[10:],
            "a zip": _zip(("a.npy", sound)),
            "a pickle": pickle.dumps([1, 2, 3]),
        }
    )


def hostile_npz(sound: bytes) -> Files:
    """What is hostile to a reader of arrays: as hostile_zips, and every array hostile."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    files = hostile_zips(sound) | {
        f"every array: {name}": _zip(*((member, _npy(header, bytes(24))) for member, _ in members))
        for name, header in HOSTILE_HEADERS.items()
    }
    files["without .npy"] = _zip(*((name.removesuffix(".npy"), content) for name, content in members))
    files["arrays that are no arrays"] = _zip(*((name, b"abc") for name, _ in members))
    return files


def hostile_weights(sound: bytes) -> Files:
    """What is hostile to a reader of weights: zips and pickles as above, and headers of safetensors."""
    files = {f"as a zip, {name}": content for name, content in hostile_zips(sound).items()}
    files |= {f"as a pickle, {name}": content for name, content in hostile_pickles(pickle.dumps({"a": 1}, 2)).items()}
    if sound.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(sound)) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        pickled = next(name for name in members if name.endswith("data.pkl"))
        for name, content in hostile_pickles(members[pickled]).items():
            files[f"its pickle is hostile, {name}"] = _zip(*(members | {pickled: content}).items())
        storages = {name: b"" for name in members if "/data/" in name}
        files["tensors without content"] = _zip(*(members | storages).items())
    tensor: dict[str, object] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers: dict[str, object] = {
        "a list": [],
        "no tensors": {},
        "offsets turned round": {"a": tensor | {"data_offsets": [8, 0]}},
        "offsets beyond": {"a": tensor | {"data_offsets": [0, 1 << 40]}},
        "offsets below 0": {"a": tensor | {"data_offsets": [-8, 0]}},
        "a type of no name": {"a": tensor | {"dtype": "X9"}},
        "a shape that wraps": {"a": tensor | {"shape": [1 << 32, 1 << 32]}},
        "a side below 0": {"a": tensor | {"shape": [-2]}},
        "two at one place": {"a": tensor, "b": tensor},
        "a hole": {"a": tensor | {"data_offsets": [4, 12]}},
        "metadata of numbers": {"__metadata__": {"a": 1}, "a": tensor},
        "a name with a NUL": {"a\0": tensor},
        "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    }
    for name, header in headers.items():
        text = json.dumps(header).encode()
        files[f"as safetensors, {name}"] = len(text).to_bytes(8, "little") + text + bytes(8)
    files["as safetensors, a header of 2^60 bytes"] = FAR.to_bytes(8, "little") + b'{"a": 1}' + bytes(8)
    files["as safetensors, a deep header"] = (5000).to_bytes(8, "little") + b"{" + b"[" * 4999
    return files


def hostile_faiss(sound: bytes) -> Files:
    """What is hostile to a reader of a flat index: d, ntotal, is_trained, metric, then the length of the codes."""

    def at(place: int, value: int, n_bytes: int) -> bytes:
        return sound[:place] + value.to_bytes(n_bytes, "little", signed=value < 0) + sound[place + n_bytes :]

    kinds = (b"IxF2", b"IwFl", b"IwPQ", b"IHNf", b"IxPT", b"IxMp", b"IxPq", b"IxSQ", b"zzzz", b"IBwF", b"IxHe", b"Ilns")
    return (
        hostile_bytes(sound)
        | {f"another kind, {kind.decode()}": kind + sound[4:] for kind in kinds}
        | {
            "no dimensions": at(4, 0, 4),
            "dimensions below 0": at(4, -1, 4),
            "2^31 - 1 dimensions": at(4, (1 << 31) - 1, 4),
            "a dimension more": at(4, 9, 4),
            "no rows": at(8, 0, 8),
            "2^60 rows": at(8, FAR, 8),
            "rows below 0": at(8, -1, 8),
            "a row more": at(8, 41, 8),
            "untrained": at(32, 0, 1),
            "a metric of no name": at(33, 99, 4),
            "squared distances": at(33, 1, 4),
            "codes of 2^60 bytes": at(37, FAR, 8),
            "no codes": at(37, 0, 8),
            "codes of one byte": at(37, 1, 8),
            "wraps": at(37, (1 << 62) + 1, 8),
            "vectors that are not finite": sound[:45] + b"\xff" * (len(sound) - 45),
        }
    )
