"""Hostile HDF5 files, each thought out, made of a sound one by the library itself."""

import io
from collections.abc import Callable

import h5py
import numpy as np

from tests.fuzz.hostile_binaries import hostile_bytes
from tests.fuzz.hostile_texts import Files

Change = Callable[[h5py.File, str], object]  # name: of the file's first dataset of numbers


def _anew(file: h5py.File, name: str, **options: object) -> None:
    """Puts another dataset in the place of one."""
    stored = file[name]
    shape, dtype = stored.shape, stored.dtype
    del file[name]
    if "data" not in options:
        options = {"shape": shape, "dtype": dtype} | options
    file.create_dataset(name, **options)  # pyright: ignore[reportArgumentType]  # names of arguments


def _link(file: h5py.File, name: str, target: object) -> None:
    del file[name]
    file[name] = target


def _virtual(file: h5py.File, name: str, source: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(source, name, shape)
    file.create_virtual_dataset(name, layout)


def _each_attribute(file: h5py.File, change: Callable[[object], object]) -> None:
    for key, value in list(file.attrs.items()):
        if key not in ("format", "version"):
            file.attrs[key] = change(value)


def _without(file: h5py.File, name: str) -> None:
    del file[name]


def _outside(file: h5py.File, name: str) -> None:
    _anew(file, name, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _filled(file: h5py.File, name: str, value: float) -> None:
    if file[name].dtype.kind in "iu":
        limits = np.iinfo(file[name].dtype)
        value = min(max(value, limits.min), limits.max)
    file[name][...] = value


def _texts(file: h5py.File, values: list[bytes]) -> None:
    for name, part in list(file.items()):
        if part.dtype == object:
            stored = np.resize(np.array(values, dtype=object), part.shape)
            _anew(file, name, data=stored, dtype=h5py.string_dtype())


CHANGES: dict[str, Change] = {
    "a link to itself": lambda file, name: _link(file, name, h5py.SoftLink(f"/{name}")),
    "a link to the root": lambda file, name: _link(file, name, file["/"]),
    "a link to another file": lambda file, name: _link(file, name, h5py.ExternalLink("/etc/passwd", "/x")),
    "a group": lambda file, name: (_without(file, name), file.create_group(name)),
    "a type": lambda file, name: _link(file, name, np.dtype("f4")),
    "missing": _without,
    "kept in another file": _outside,
    "virtual, of itself": lambda file, name: _virtual(file, name, "."),
    "virtual, of another file": lambda file, name: _virtual(file, name, "/etc/passwd"),
    "10^12 numbers that are not there": lambda file, name: _anew(
        file, name, shape=(10**6, 10**6), chunks=(64, 64), maxshape=(None, None)
    ),
    "empty": lambda file, name: _anew(file, name, data=h5py.Empty("f4")),
    "of no axes": lambda file, name: _anew(file, name, data=1.0),
    "of four axes": lambda file, name: _anew(file, name, data=np.zeros((1, 1, 1, 1), "f4")),
    "no rows": lambda file, name: _anew(file, name, data=np.zeros((0, 8), "f4")),
    "no columns": lambda file, name: _anew(file, name, data=np.zeros((40, 0), "f4")),
    "a row more": lambda file, name: _anew(file, name, data=np.ones((len(file[name]) + 1, 8), file[name].dtype)),
    "complex": lambda file, name: _anew(file, name, dtype="c8"),
    "text": lambda file, name: _anew(file, name, dtype=h5py.string_dtype()),
    "lists": lambda file, name: _anew(file, name, dtype=h5py.vlen_dtype("i4")),
    "references": lambda file, name: _anew(file, name, dtype=h5py.ref_dtype),
    "records": lambda file, name: _anew(file, name, dtype=[("a", "f4"), ("b", "S9")]),
    "the other byte order": lambda file, name: _anew(file, name, dtype=file[name].dtype.newbyteorder()),
    "chunks of one number": lambda file, name: _anew(file, name, chunks=(1,) * file[name].ndim),
    "through a scaling filter": lambda file, name: _anew(file, name, scaleoffset=3),
    "deflated and not written": lambda file, name: _anew(file, name, compression="gzip"),
    "NaN": lambda file, name: _filled(file, name, float("nan")) if file[name].dtype.kind == "f" else None,
    "far beyond": lambda file, name: _filled(file, name, 6e4),
    "below 0": lambda file, name: _filled(file, name, -1),
    "texts of no text": lambda file, name: _texts(file, [b"\xff\xfe", b"\xed\xa0\x80"]),
    "texts that lead out": lambda file, name: _texts(file, [b"../../etc/passwd", b"/dev/zero"]),
    "texts all the same": lambda file, name: _texts(file, [b"a"]),
    "texts of a megabyte": lambda file, name: _texts(file, [b"x" * (1 << 20), b"y"]),
    "attributes of text that are numbers": lambda file, name: _each_attribute(
        file, lambda value: 7 if isinstance(value, str) else value
    ),
    "attributes that are lists": lambda file, name: _each_attribute(file, lambda value: [1, 2, 3]),
    "attributes that are empty": lambda file, name: _each_attribute(file, lambda value: h5py.Empty("f4")),
    "attributes of deep JSON": lambda file, name: _each_attribute(
        file, lambda value: "[" * 60_000 if isinstance(value, str) else value
    ),
    "attributes of JSON that is a number": lambda file, name: _each_attribute(
        file, lambda value: "1e999" if isinstance(value, str) else value
    ),
    "attributes that are no text": lambda file, name: _each_attribute(
        file, lambda value: np.bytes_(b"\xff\xfe") if isinstance(value, str) else value
    ),
    "no attributes": lambda file, name: [file.attrs.__delitem__(key) for key in list(file.attrs)],
    "a version of the future": lambda file, name: file.attrs.__setitem__("version", 99),
    "a version of text": lambda file, name: file.attrs.__setitem__("version", "1"),
    "a format of numbers": lambda file, name: file.attrs.__setitem__("format", np.zeros((3, 3))),
    "a thousand parts too many": lambda file, name: [file.create_group(f"x{i}") for i in range(1000)],
}


def hostile_h5(sound: bytes) -> Files:
    """What is hostile to a reader of HDF5."""
    files = hostile_bytes(sound) | {
        "another address size": sound[:13] + b"\4" + sound[14:],
        "the root lies far away": sound[:64] + b"\xff" * 8 + sound[72:],
        "it ends at 2^60": sound[:40] + (1 << 60).to_bytes(8, "little") + sound[48:],
        "it begins later": bytes(512) + sound,
    }
    for name, change in CHANGES.items():
        stream = io.BytesIO(sound)
        with h5py.File(stream, "r+") as file:
            numbers = next(key for key, part in file.items() if part.dtype != object)
            change(file, numbers)
        files[name] = stream.getvalue()
    return files
