"""Damages HDF5 files as HDF5 sees them: attributes, types, shapes, chunks, filters and links, each changed soundly."""

import math
import random
from collections.abc import Callable

import h5py
import numpy as np

from tests.fuzz.mutations import ODD_VALUES, mutate_bytes, mutate_json

ODD_ATTRIBUTES: list[object] = [
    0, -1, 1 << 62, 1.5, float("nan"), True, "", "x" * 70000, b"\xff\xfe", b"\0", "[", "[[[[", "null", "{}", "[1]",
    np.zeros(3), np.zeros((2, 2), np.int8), np.zeros(0), np.array(b"x", "S1"), np.array(1, ">i4"), np.uint64(1 << 63),
    np.complex64(1), np.array((1, 2.0), [("a", "i4"), ("b", "f8")]), np.void(b"abc"), ["a", "b"], h5py.Empty("f4"),
]  # fmt: skip
TYPES = [
    "f2", "f4", "f8", ">f4", "i1", "i8", ">i8", "u1", "u8", "?", "c8", "S3", "V4", h5py.string_dtype(),
    h5py.string_dtype("ascii", 5), h5py.vlen_dtype("i4"), h5py.enum_dtype({"a": 0, "b": 1}, "u1"), h5py.ref_dtype,
    [("a", "f4"), ("b", "S2")], ("f4", (3,)),
]  # fmt: skip
MOST_VALUES = 10_000
ODD_SIDES = [0, 1, 2, 3, 7, 39, 41, 100]


def mutate_h5(data: bytes, draws: random.Random) -> bytes:
    """One to three changes of what an HDF5 file holds; now and then one of its bytes too. Raises what h5py raises for
    bytes that are no HDF5 file."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(data)
    with h5py.File(h5py.h5f.open(b"in memory", h5py.h5f.ACC_RDWR, access)) as file:
        for _ in range(draws.choice((1, 1, 2, 3))):
            try:
                draws.choice(CHANGES)(file, draws)
            except (TypeError, ValueError, OSError, RuntimeError, KeyError, OverflowError):
                continue  # HDF5 does not do it: the file stays as it was
        file.flush()
        changed = bytes(file.id.get_file_image())
    return mutate_bytes(changed, draws) if draws.random() < 0.3 else changed


def _change_attribute(file: h5py.File, draws: random.Random) -> None:
    name = draws.choice(list(file.attrs))
    kind = draws.randrange(8)
    if kind == 0:
        del file.attrs[name]
    elif kind == 1:
        file.attrs.rename(name, name + "x")
    elif kind == 2:
        file.attrs.create(name, np.zeros(draws.choice(ODD_SIDES)), dtype=draws.choice(TYPES))
    elif kind == 3:
        value = draws.choice(ODD_VALUES)
        file.attrs[name] = "" if value is None else value
    elif kind == 4:
        file.attrs[name] = file.attrs[draws.choice(list(file.attrs))]
    else:
        file.attrs[name] = draws.choice(ODD_ATTRIBUTES)


def _change_json(file: h5py.File, draws: random.Random) -> None:
    texts = [name for name, value in file.attrs.items() if isinstance(value, str) and value[:1] in ("{", "[")]
    if texts:
        name = draws.choice(texts)
        file.attrs[name] = mutate_json(file.attrs[name].encode(), draws).decode("utf-8", "surrogatepass")


def _taken(file: h5py.File, draws: random.Random) -> tuple[str, np.ndarray]:
    """A dataset that is to be replaced: its name and content."""
    links = {name: file.get(name, getlink=True) for name in file}
    name = draws.choice([name for name, link in links.items() if isinstance(link, h5py.HardLink)])
    part = file[name]
    if not isinstance(part, h5py.Dataset) or part.is_virtual or part.external or (part.size or 0) > MOST_VALUES:
        raise ValueError("an earlier change made it what cannot be read")
    content = part[()]
    del file[name]
    return name, content


def _change_type(file: h5py.File, draws: random.Random) -> None:
    name, content = _taken(file, draws)
    file.create_dataset(name, shape=content.shape, dtype=draws.choice(TYPES))


def _change_shape(file: h5py.File, draws: random.Random) -> None:
    name, content = _taken(file, draws)
    shape = list(content.shape)
    kind = draws.randrange(4)
    if kind == 0:
        shape = [draws.choice(ODD_SIDES) for _ in range(draws.randrange(5))]
    elif kind == 1 and shape:
        shape[draws.randrange(len(shape))] = draws.choice(ODD_SIDES)
    elif kind == 2:
        file.create_dataset(name, dtype=content.dtype, data=h5py.Empty(content.dtype))
        return
    else:
        shape = [draws.choice((10**4, 10**6, 10**9, 10**12)), *shape[1:]]
    if math.prod(shape) > MOST_VALUES:  # declared, and never written
        file.create_dataset(name, shape, content.dtype, chunks=tuple(min(side, 64) or 1 for side in shape))
        return
    values = np.resize(content, shape) if content.size else np.zeros(shape, content.dtype)
    file.create_dataset(name, data=values, dtype=file_type(content))


def file_type(content: np.ndarray) -> object:
    """The type that h5py stores the values of an array as."""
    return h5py.string_dtype() if content.dtype == object else content.dtype


def _change_storage(file: h5py.File, draws: random.Random) -> None:
    name, content = _taken(file, draws)
    chunks = tuple(draws.choice((1, 2, side or 1, 3)) for side in content.shape)
    filters: list[dict[str, object]] = [
        {"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}, {"scaleoffset": 0},
        {},
    ]  # fmt: skip
    file.create_dataset(
        name,
        data=content,
        dtype=file_type(content),
        chunks=chunks,
        maxshape=(None,) * content.ndim,
        **draws.choice(filters),  # pyright: ignore[reportArgumentType]  # names of arguments
    )
    if draws.random() < 0.4:
        file[name].resize(draws.choice((0, 1, 10**3, 10**6, 10**9)), axis=draws.randrange(content.ndim))


def _change_values(file: h5py.File, draws: random.Random) -> None:
    name, content = _taken(file, draws)
    if content.dtype == object:
        texts: list[bytes] = [b"", b"\xff", b"a/../b", b"x" * 5000, b"\xed\xa0\x80", b"a\nb", b"/"]
        content.flat[draws.randrange(content.size)] = draws.choice(texts)
    elif content.dtype.kind == "f":
        content.flat[draws.randrange(content.size)] = draws.choice((np.nan, np.inf, -np.inf, 0, 6e4, -1, 1e-5))
    else:
        content.flat[draws.randrange(content.size)] = draws.choice((0, -1, 1, 100, 1 << 62)) % 256
    file.create_dataset(name, data=content, dtype=file_type(content))


def _change_link(file: h5py.File, draws: random.Random) -> None:
    name, content = _taken(file, draws)
    kind = draws.randrange(8)
    if kind == 0:
        return
    if kind == 1:
        file.create_group(name)
    elif kind == 2:
        file[name] = h5py.SoftLink(draws.choice(("/", f"/{name}", ".", "/names", "/gone")))
    elif kind == 3:
        file[name] = h5py.ExternalLink(draws.choice(("/etc/passwd", "x.h5", "gone")), f"/{name}")
    elif kind == 4:
        file[name] = file["/"]
    elif kind == 5:
        file[name] = np.dtype("f4")
    elif kind == 6:
        file.create_dataset(name, content.shape, content.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    else:
        layout = h5py.VirtualLayout(content.shape or (1,), content.dtype)
        layout[...] = h5py.VirtualSource(".", name, content.shape or (1,))
        file.create_virtual_dataset(name, layout)


def _add_part(file: h5py.File, draws: random.Random) -> None:
    name = draws.choice(("photo_states", "photo_digests", "scores", "mean", "x" * 300, "ü", "names/a"))
    file.create_dataset(name, (draws.choice(ODD_SIDES), draws.choice((1, 3, 16))), draws.choice(TYPES))


CHANGES: list[Callable[[h5py.File, random.Random], None]] = [
    _change_attribute,
    _change_attribute,
    _change_json,
    _change_json,
    _change_type,
    _change_shape,
    _change_storage,
    _change_values,
    _change_link,
    _add_part,
]
