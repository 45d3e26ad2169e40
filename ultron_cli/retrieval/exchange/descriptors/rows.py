"""Descriptors as other tools keep them: what comes in and goes out, and what a format is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern
from typing import BinaryIO

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Role

BLOCK_BYTES = 1 << 22  # of rows that are read or written together
MOST_BYTES = 1 << 42  # of a file: descriptors are read in blocks
FLOATS = ("float16", "float32", "float64")
UNIT_WITHIN = {"float32": 1e-5, "float16": 1e-3}  # lengths so near to 1 are its rounding
Blocks = Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class NamedRows:
    """Descriptors that stand together in a file of another tool, or on their way into one."""

    label: str  # what messages call them: the file, and the part of it
    n: int
    dim: int
    dtype: str  # of FLOATS
    # Called with a number of rows: consecutive (n, D) arrays of at most so many, N in total. Read anew at every call.
    blocks: Blocks = field(repr=False)
    names: Sequence[str] | None = field(default=None, repr=False)  # None: the file names no photos
    role: Role | None = None  # None: the file does not tell

    def rows_per_block(self) -> int:
        """As many as are worth a call."""
        return max(1, BLOCK_BYTES // max(1, self.dim * np.dtype(self.dtype).itemsize))


@dataclass(frozen=True, kw_only=True)
class DescriptorFormat:
    """A format of descriptors."""

    what: str  # for people
    # The parts of a file. Raises UltronError, in one line, for whatever is wrong with it.
    read: Callable[[Path], list[NamedRows]]
    # Whether a file is of the format, by its name and its first bytes (HEAD_BYTES of them).
    sniff: Callable[[Path, bytes], bool] = field(default=lambda path, head: False, repr=False)
    # Writes parts of one length each: queries, database or, where has_both, one of each.
    write: Callable[[Sequence[NamedRows], BinaryIO], None] | None = None
    has_both: bool = False  # whether a file may hold queries and database
    has_names: bool = True  # else they are written into a list beside the file
    is_of_files: bool = False  # whether photos are named by their files, with suffix
    unfit: Pattern[str] | None = None  # matches names that the format cannot carry
    unfit_rule: str = ""  # why, in words


def of_array(array: np.ndarray, label: str, **facts: object) -> NamedRows:
    """(N, D) numbers in memory. Raises UltronError for anything else. facts: names and role, where they are known."""
    dtype = require_matrix(array.shape, array.dtype, label)

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        for start, stop in chunks(len(array), n_rows):
            yield array[start:stop]

    return NamedRows(label=label, n=array.shape[0], dim=array.shape[1], dtype=dtype, blocks=blocks, **facts)  # type: ignore[arg-type]  # as their fields say


def require_matrix(shape: tuple[int, ...], dtype: np.dtype, label: str) -> str:
    """The name of the type of a matrix of descriptors. Raises UltronError where it is none."""
    name = dtype.newbyteorder("=").name
    if len(shape) != 2 or name not in FLOATS or not shape[1]:
        raise UltronError(
            f"{label} must be descriptors, (N, D) of {', '.join(FLOATS)}; found {tuple(shape)} {dtype}; name the array "
            "that holds them"
        )
    return name


def unit_rows(
    rows: np.ndarray, storage: str, numbers: np.ndarray, part: NamedRows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """((n, D) unit rows of the storage type, (n,) float64 lengths that they had, (n,) which of these were not 1).

    Rows that are unit vectors up to the rounding of their type keep their bits. numbers: (n,) of the rows in the part,
    for messages. Raises UltronError, naming the row, where one is zero or not finite.
    """
    wide = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide)).astype(np.float64)
    # Beyond these a square of float32 is infinite or loses digits.
    odd = np.flatnonzero(~((lengths > 1e-15) & (lengths < 1e15)))
    if odd.size:
        wide = wide.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            largest = np.abs(wide[odd]).max(axis=1)
            lengths[odd] = largest * np.sqrt(np.square(wide[odd] / largest[:, np.newaxis]).sum(axis=1))
        bad = np.flatnonzero(~((lengths > 0) & (lengths < np.inf)))
        if bad.size:
            row, number = int(bad[0]), int(numbers[bad[0]])
            fault = "NaN or infinity" if wide[row].any() else "only zeros"
            name = "" if part.names is None else f" ({part.names[number]})"
            raise UltronError(
                f"{part.label}: descriptors must be finite and not zero, row {number}{name} has {fault}; leave that "
                "photo out, or describe it again"
            )
    is_off = np.abs(lengths - 1) > UNIT_WITHIN["float16" if rows.dtype == np.float16 == storage else "float32"]
    if is_off.any():
        wide = wide / np.where(is_off, lengths, 1)[:, np.newaxis].astype(wide.dtype)
    return wide.astype(storage, copy=False), lengths, is_off
