"""MATLAB files as revisitop publishes them: X (D, N) of the database and Q (D, 70) of the queries, in the order of the
ground truth.

Version 5 is read by SciPy in a guarded child, version 7.3, which is HDF5 and has the axes the other way round, by
hdf5.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import ReaderDied, ReaderFailed, in_child
from ultron_cli.retrieval.descriptors import Role
from ultron_cli.retrieval.exchange.descriptors.rows import DescriptorFormat, NamedRows, of_array
from ultron_cli.retrieval.hdf5 import H5Layout, H5Part, damage_said, open_h5

ROLE_OF_NAME: dict[str, Role] = {"Q": "query", "X": "database"}
HDF5_AT = 512  # bytes of MATLAB's own before HDF5 begins
MOST_BYTES = 1 << 28  # of a matrix of version 5, which is held three times while it is read
MOST_OUT_BYTES = (1 << 31) - 1  # of a matrix of version 5
AGAIN = "get it again, or save its X and Q as version 7.3"
LAYOUT = H5Layout(
    format="",
    version=0,
    what="MATLAB file of version 7.3",
    parts={name: H5Part(axes="(N, D)", types=("float32", "float64"), may_lack=True) for name in ROLE_OF_NAME},
    attributes={},
    again=AGAIN,
    may_be_foreign=True,
)


def is_hdf5(path: Path) -> bool:
    """Whether a MATLAB file is of version 7.3."""
    with open(path, "rb") as handle:
        return handle.read(HDF5_AT + 8)[HDF5_AT:] == b"\x89HDF\r\n\x1a\n"


def read(path: Path) -> list[NamedRows]:
    """The parts of a MATLAB file. Raises UltronError."""
    require_regular_file(path, "descriptors")
    parts = _of_version_73(path) if is_hdf5(path) else _of_version_5(path)
    if not parts:
        raise UltronError(f"{path} has neither X, the database (D, N), nor Q, the queries; name another `format`")
    return parts


def _of_version_73(path: Path) -> list[NamedRows]:
    parts = []
    with open_h5(path, LAYOUT) as file:
        for name, role in ROLE_OF_NAME.items():
            if file.has(name):
                stored = file.dataset(name)
                n, dim = stored.shape
                parts.append(_of_dataset(path, name, role, n, dim, stored.dtype.newbyteorder("=").name))
    return parts


def _of_dataset(path: Path, name: str, role: Role, n: int, dim: int, dtype: str) -> NamedRows:
    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        with open_h5(path, LAYOUT) as file:
            stored = file.dataset(name)
            for start, stop in chunks(n, n_rows):
                with damage_said(path, AGAIN):
                    rows = stored[start:stop]
                yield rows.astype(dtype, copy=False)

    return NamedRows(label=f"{path}, {name}", n=n, dim=dim, dtype=dtype, blocks=blocks, role=role)


def _of_version_5(path: Path) -> list[NamedRows]:
    import scipy.io  # noqa: F401  here, so that the child has it before its memory is limited

    try:
        content = in_child(read_matrices, str(path), cpu_s=2 + path.stat().st_size // 20_000_000)
    except ReaderDied as error:
        raise UltronError(f"{path} is damaged: reading it, SciPy {error}; {AGAIN}") from None
    except ReaderFailed as error:
        raise UltronError(f"{path} is no MATLAB file that SciPy can read ({error}); {AGAIN}") from None
    parts = []
    for name, (shape, dtype, data) in content.items():
        array = np.frombuffer(data, dtype).reshape(shape)
        parts.append(replace(of_array(array, f"{path}, {name}"), role=ROLE_OF_NAME[name]))
    return parts


def read_matrices(path_text: str) -> dict[str, tuple[list[int], str, bytes]]:
    """Name -> shape, type and bytes of Q and X as (N, D). To be called in a child process: SciPy crashes on some
    damaged files."""
    from scipy.io import loadmat, whosmat

    for name, shape, _ in whosmat(path_text):
        if name in ROLE_OF_NAME and int(np.prod([float(side) for side in shape])) * 4 > MOST_BYTES:
            raise UltronError(f"{path_text}: {name} is {shape}, too large for version 5; save it as version 7.3")
    content = loadmat(path_text, variable_names=list(ROLE_OF_NAME))
    matrices = {}
    for name in ROLE_OF_NAME:
        if name not in content:
            continue
        matrix = content[name]
        if not isinstance(matrix, np.ndarray) or matrix.dtype.name not in ("float32", "float64"):
            raise UltronError(f"{path_text}: {name} must be a matrix of numbers (D, N); name another `format`")
        if matrix.ndim == 3 and matrix.shape[1] == 1:  # (N, 1, D), as DOLG writes distractors
            rows = matrix[:, 0]
        elif matrix.ndim == 2:
            rows = matrix.T
        else:
            raise UltronError(f"{path_text}: {name} must be (D, N), found {matrix.shape}; name another `format`")
        matrices[name] = (list(rows.shape), rows.dtype.name, np.ascontiguousarray(rows).tobytes())
    return matrices


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """X and Q, each (D, N), of version 5: in memory."""
    from scipy.io import savemat

    content = {}
    for part in parts:
        if part.n * part.dim * 4 > MOST_OUT_BYTES:
            raise UltronError(
                f"{part.label} has {part.n:,} descriptors of {part.dim}, more than MATLAB files of version 5 hold; "
                "name another `format`"
            )
        name = "Q" if part.role == "query" else "X"
        matrix = np.empty((part.dim, part.n), np.float32, order="F")
        first = 0
        for block in part.blocks(part.rows_per_block()):
            matrix[:, first : first + len(block)] = block.T
            first += len(block)
        content[name] = matrix
    savemat(output, content)


FORMAT = DescriptorFormat(
    what="a MATLAB file of X (D, N) and Q (D, 70), in the order of the ground truth, as revisitop publishes it",
    read=read,
    sniff=lambda path, head: head.startswith(b"MATLAB") or path.suffix.lower() == ".mat",
    write=write,
    has_both=True,
    has_names=False,
)
