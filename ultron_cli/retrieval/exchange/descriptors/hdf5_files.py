"""HDF5 of other programs: hloc's global descriptors, a group per photo, and the features of ILIAS in shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from re import compile as pattern
from typing import BinaryIO, TypedDict

import h5py
import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.retrieval.descriptors import Role
from ultron_cli.retrieval.exchange.descriptors.rows import FLOATS, DescriptorFormat, NamedRows
from ultron_cli.retrieval.hdf5 import (
    TEXT,
    H5Layout,
    H5Part,
    UnsoundPart,
    asked_child,
    checked_part,
    damage_said,
    open_h5,
    write_h5_names,
)
from ultron_cli.retrieval.row_windows import windows_at

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HLOC_DATASET = "global_descriptor"
AGAIN = "get it again"
ILIAS_LAYOUT = H5Layout(
    format="",
    version=0,
    what="file of features of ILIAS",
    parts={"index": H5Part(axes="(N,)", types=(TEXT,)), "features": H5Part(axes="(N, D)", types=FLOATS)},
    attributes={},
    again=AGAIN,
    may_be_foreign=True,
)


class HlocFacts(TypedDict):
    """What a child tells of a file of groups."""

    names: list[bytes]
    offsets: bytes  # (N,) int64 places in the file
    dim: int
    dtype: str


def top_names(path_text: str) -> list[bytes]:
    """What lies at the top of an HDF5 file. To be called in a child process."""
    with h5py.File(path_text, "r") as handle:
        return [name.encode("utf-8", "surrogateescape") for name in list(handle)[:64]]


def _is_ilias(path: Path, head: bytes) -> bool:
    if not head.startswith(SIGNATURE):
        return False
    return {b"index", b"features"} <= set(asked_child(path, AGAIN, top_names, str(path)))


def read_ilias(path: Path) -> list[NamedRows]:
    """index (N,) and features (N, D) of a shard; those of queries are so called in its name. Raises UltronError."""
    with open_h5(path, ILIAS_LAYOUT) as file:
        names = file.texts("index")
        stored = file.dataset("features")
        n, dim = (int(side) for side in stored.shape)
        dtype = stored.dtype.newbyteorder("=").name
    if len(names) != n or not dim:
        raise UltronError(
            f"{path} must have a name in index for each row of features; found {len(names)} for {n}; {AGAIN}"
        )

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        with open_h5(path, ILIAS_LAYOUT) as file:
            stored = file.dataset("features")
            for start, stop in chunks(n, n_rows):
                with damage_said(path, AGAIN):
                    rows = stored[start:stop]
                yield rows.astype(dtype, copy=False)

    role: Role = "query" if "queries" in path.name.lower() else "database"
    return [NamedRows(label=str(path), n=n, dim=dim, dtype=dtype, blocks=blocks, names=names, role=role)]


def write_ilias(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """A shard."""
    (part,) = parts
    with h5py.File(output, "w") as handle:
        write_h5_names(handle, "index", part.names or ())
        n_rows = max(1, min(part.n, part.rows_per_block() // 16))
        stored = handle.create_dataset("features", (part.n, part.dim), part.dtype, chunks=(n_rows, part.dim))
        first = 0
        for block in part.blocks(part.rows_per_block()):
            stored[first : first + len(block)] = block
            first += len(block)


def read_hloc(path: Path) -> list[NamedRows]:
    """The datasets global_descriptor of all groups, which are named by their photos. Raises UltronError."""
    require_regular_file(path, "descriptors")
    cpu_s = 5 + path.stat().st_size // 5_000_000  # each photo has datasets of its own
    facts = asked_child(path, AGAIN, read_groups, str(path), cpu_s=cpu_s)
    names = [name.decode("utf-8", "surrogateescape") for name in facts["names"]]
    dtype, dim = np.dtype(facts["dtype"]), facts["dim"]
    windows = windows_at(path, np.frombuffer(facts["offsets"], np.int64), dim * dtype.itemsize)
    if windows is None:
        raise UltronError(f"{path} is truncated; {AGAIN}")

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        for start, stop in chunks(len(names), n_rows):
            yield windows.take(np.arange(start, stop)).view(dtype).astype(dtype.newbyteorder("="), copy=False)

    native = dtype.newbyteorder("=").name
    return [NamedRows(label=str(path), n=len(names), dim=dim, dtype=native, blocks=blocks, names=names)]


def read_groups(path_text: str) -> "HlocFacts":
    """Photos, the places of their descriptors in the file, and the shape and type that these share. To be called in a
    child process."""
    names: list[bytes] = []
    offsets: list[int] = []
    shapes: dict[tuple[int, str], str] = {}
    part = H5Part(axes="(D,)", types=FLOATS)

    with h5py.File(path_text, "r") as handle:

        def visit(name: str, stored: object) -> None:
            photo, _, last = name.rpartition("/")
            if last != HLOC_DATASET or not photo or not isinstance(stored, h5py.Dataset):
                return
            checked_part(handle, name, part)
            offset = stored.id.get_offset()
            if offset is None:
                raise UnsoundPart(f"/{name} must be stored in one piece, as hloc writes it")
            names.append(photo.encode("utf-8", "surrogateescape"))
            offsets.append(offset)
            shapes.setdefault((stored.shape[0], stored.dtype.str), photo)

        try:
            handle.visititems(visit)
        except UnsoundPart as unsound:
            raise UltronError(f"{path_text}: {unsound}; {AGAIN}") from unsound
    if not names:
        raise UltronError(
            f"{path_text} has no {HLOC_DATASET} in a group named by its photo, as hloc writes them; name another "
            "`format`"
        )
    if len(shapes) > 1 or not next(iter(shapes))[0]:
        kinds = ", ".join(
            f"{dim} {np.dtype(dtype).name} of {photo}" for (dim, dtype), photo in list(shapes.items())[:3]
        )
        raise UltronError(
            f"{path_text} must hold descriptors of one length and type, found {kinds}; leave those photos out"
        )
    ((dim, dtype),) = shapes
    return {"names": names, "offsets": np.array(offsets, np.int64).tobytes(), "dim": dim, "dtype": dtype}


def write_hloc(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """A group per photo."""
    with h5py.File(output, "w", libver="latest") as handle:
        for part in parts:
            row = 0
            names = part.names or ()
            for block in part.blocks(part.rows_per_block()):
                for vector in block:
                    group = handle.create_group(names[row].encode("utf-8", "surrogateescape"))
                    group.create_dataset(HLOC_DATASET, data=vector)
                    row += 1


ILIAS = DescriptorFormat(
    what="HDF5 of index and features, as ILIAS writes its shards", read=read_ilias, sniff=_is_ilias, write=write_ilias
)
HLOC = DescriptorFormat(
    what="HDF5 with a group per photo and global_descriptor in it, as hloc writes it",
    read=read_hloc,
    sniff=lambda path, head: head.startswith(SIGNATURE),
    write=write_hloc,
    has_both=True,
    is_of_files=True,
    unfit=pattern(rf"\0|^/|/$|//|(?:^|/)(?:\.|{HLOC_DATASET})(?:/|$)|[\ud800-\udfff]"),
    unfit_rule=f"a name in UTF-8 that is a relative path, without parts `.` and {HLOC_DATASET}",
)
