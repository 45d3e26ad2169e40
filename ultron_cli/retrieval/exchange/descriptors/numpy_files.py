"""Arrays of NumPy: .npy, whose photos a list beside it names, and .npz with names in it."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.descriptors.keyed import KEY_OF_ROLE, of_keys
from ultron_cli.retrieval.exchange.descriptors.rows import MOST_BYTES, DescriptorFormat, NamedRows, require_matrix
from ultron_cli.schema.arrays import NpyHeader, npy_blocks, read_npy_header
from ultron_cli.schema.regular import open_regular

MOST_PACKED = 20  # times smaller that names may be packed
MOST_NAMES_BYTES = 1 << 26  # and beyond that
ADVICE = "save the array again with numpy.save"


def read_npy(path: Path) -> list[NamedRows]:
    """A matrix (N, D). Raises UltronError."""
    with open(open_regular(path, "descriptors", if_absent="check the path", most_bytes=MOST_BYTES), "rb") as handle:
        header = read_npy_header(handle, f"{path}", path.stat().st_size, advice=ADVICE)
    dtype = require_matrix(header.shape, header.dtype, str(path))

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        with open(path, "rb") as handle:
            yield from npy_blocks(handle, header, n_rows, str(path), advice=ADVICE)

    return [NamedRows(label=str(path), n=header.shape[0], dim=header.shape[1], dtype=dtype, blocks=blocks)]


def write_npy(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """A matrix."""
    (part,) = parts
    _write_array(part, output)


def _write_array(part: NamedRows, output: BinaryIO) -> None:
    header = {"descr": np.dtype(part.dtype).str, "fortran_order": False, "shape": (part.n, part.dim)}
    np.lib.format.write_array_header_1_0(output, header)
    for block in part.blocks(part.rows_per_block()):
        output.write(np.ascontiguousarray(block).data)


def read_npz(path: Path) -> list[NamedRows]:
    """Matrices under `queries` and `database`, or one alone, and their names. Raises UltronError."""
    with open(open_regular(path, "descriptors", if_absent="check the path", most_bytes=MOST_BYTES), "rb") as handle:
        try:
            with zipfile.ZipFile(handle) as archive:
                entries = {entry.filename: entry for entry in archive.infolist() if entry.filename.endswith(".npy")}
                headers: dict[str, NpyHeader] = {}
                texts: dict[str, list[str]] = {}
                for name, entry in entries.items():
                    key = name.removesuffix(".npy")
                    with archive.open(entry) as member:
                        header = read_npy_header(member, f"{path}, {key}", entry.file_size, advice=ADVICE)
                        if header.dtype.kind == "U" and len(header.shape) == 1:
                            texts[key] = _texts(member, header, f"{path}, {key}", path.stat().st_size)
                        elif len(header.shape) == 2:
                            if header.is_fortran and min(header.shape) > 1:
                                raise UltronError(
                                    f"{path}, {key} is stored by columns; save numpy.ascontiguousarray of it"
                                )
                            headers[key] = header
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
            raise UltronError(f"{path} is damaged or no archive of numpy.savez ({_reason(error)}); {ADVICE}") from None

    def part(key: str) -> NamedRows:
        header, label = headers[key], f"{path}, {key}"

        def blocks(n_rows: int) -> Iterator[np.ndarray]:
            try:
                with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
                    read_npy_header(member, label, archive.getinfo(f"{key}.npy").file_size, advice=ADVICE)
                    yield from npy_blocks(member, header, n_rows, label, advice=ADVICE)
            except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError) as error:
                raise UltronError(f"{label} is damaged ({_reason(error)}); {ADVICE}") from None

        dtype = require_matrix(header.shape, header.dtype, label)
        return NamedRows(label=label, n=header.shape[0], dim=header.shape[1], dtype=dtype, blocks=blocks)

    if not headers:
        raise UltronError(f"{path} holds no matrix (N, D); {ADVICE}")
    return of_keys(headers, part, texts.get, str(path))


def _texts(member: IO[bytes], header: NpyHeader, label: str, n_bytes: int) -> list[str]:
    """The names in a member of an archive of n_bytes; no more of them than such an archive is made for."""
    if header.shape[0] * header.dtype.itemsize > MOST_PACKED * n_bytes + MOST_NAMES_BYTES:
        raise UltronError(f"{label} declares {header.shape[0]:,} names, more than the file is made for; {ADVICE}")
    return [text for block in npy_blocks(member, header, 1 << 16, label, advice=ADVICE) for text in block.tolist()]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def write_npz(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """`descriptors` and `names`, or `queries`, `query_names`, `database` and `database_names`."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for part in parts:
            rows_key, names_key = KEY_OF_ROLE[part.role if len(parts) > 1 else None]
            with archive.open(f"{rows_key}.npy", "w", force_zip64=True) as member:
                _write_array(part, member)  # type: ignore[arg-type]  # zipfile's own kind of output
            with archive.open(f"{names_key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(list(part.names or ()), "U"), allow_pickle=False)


NPY = DescriptorFormat(
    what="an array (N, D) of NumPy, with a list of names",
    read=read_npy,
    sniff=lambda path, head: head.startswith(b"\x93NUMPY"),
    write=write_npy,
    has_names=False,
)
NPZ = DescriptorFormat(
    what="an archive of NumPy: descriptors and names, or those of queries and database",
    read=read_npz,
    sniff=lambda path, head: head.startswith(b"PK\3\4") and b".npy" in head[30:160],
    write=write_npz,
    has_both=True,
)
