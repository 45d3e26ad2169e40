"""Descriptor files (HDF5): the only code that reads or writes them.

Layout (a contract, see docs/file-formats.md): attributes format, version, complete, model, weights_sha256, config,
dataset, role, crop, scales, created, ultron_version, skipped, provenance; datasets /names (N,) UTF-8 and /descriptors
(N, D).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from ultron_cli import __version__
from ultron_cli.console import chunks
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file

FORMAT, VERSION = "ultron-descriptors", 1
NORM_TOLERANCE = {"float32": 1e-3, "float16": 5e-3}  # rows are unit vectors up to rounding


@dataclass(frozen=True, kw_only=True)
class DescriptorInfo:
    """What a descriptor file says of its origin. `config` holds everything that shaped the numbers."""

    model: str
    weights_sha256: str
    config: dict[str, Any]
    dataset: str
    role: Literal["query", "database"]
    crop: Literal["bbx", "none"]
    scales: list[float]
    skipped: list[dict[str, str]] = field(default_factory=list)  # [{"name", "reason"}] of photos left out by --skip-bad
    provenance: dict[str, Any] = field(
        default_factory=dict
    )  # where it was made: versions, command, paths; shapes no number
    created: str = ""
    ultron_version: str = __version__


def open_h5(path: Path, format_name: str, version: int, what: str) -> h5py.File:
    """Opens an HDF5 file of ours for reading. Raises UltronError if it is absent, damaged, of another kind or too
    new."""
    if not path.is_file():
        raise UltronError(f"{what} {path} does not exist; check the path")
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise UltronError(f"{path} is truncated or not an HDF5 file ({str(error)[:90]}); make it again") from error
    found, found_version = handle.attrs.get("format"), handle.attrs.get("version")
    if found != format_name:
        handle.close()
        raise UltronError(f"{path} is not a {what}: its format attribute must be {format_name!r}, found {found!r}")
    if not isinstance(found_version, (int, np.integer)) or found_version > version:
        handle.close()
        raise UltronError(
            f"{path} has format version {found_version}, this ultron reads up to {version}; install a newer ultron"
        )
    return handle


class DescriptorFile:
    """A descriptor file opened for reading; rows are read from disk only when asked for. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open_h5(path, FORMAT, VERSION, "descriptor file")
        self._scattered: tuple[np.ndarray | None, np.ndarray | None] | None = (
            None  # see scattered_rows; once `take` has looked
        )
        try:
            self._check()
        except KeyError as error:
            self.close()
            raise UltronError(
                f"{path} lacks a part of a descriptor file ({error}); run `ultron extract --overwrite`"
            ) from error
        except UltronError:
            self.close()
            raise

    def _check(self) -> None:
        attributes, rows = self._handle.attrs, self._handle["descriptors"]
        if not attributes["complete"]:
            raise UltronError(f"{self.path} was never finished; run the same `ultron extract` again to continue it")
        if (
            rows.ndim != 2
            or rows.dtype not in (np.float32, np.float16)
            or rows.shape[0] != self._handle["names"].shape[0]
        ):
            raise UltronError(
                f"{self.path}: /descriptors must be (N, D) float32 or float16 with one name per row, "
                f"found {rows.shape} {rows.dtype} and {self._handle['names'].shape[0]} names; run `ultron "
                "extract --overwrite`"
            )
        self.n, self.dim = (int(side) for side in rows.shape)
        self._stored, self._dtype, self._tolerance = (
            rows,
            rows.dtype,
            NORM_TOLERANCE[rows.dtype.name],
        )  # asking HDF5 again costs as much as 100 rows
        try:
            config, scales = json.loads(attributes["config"]), json.loads(attributes["scales"])
            skipped, provenance = (
                json.loads(attributes.get("skipped", "[]")),
                json.loads(attributes.get("provenance", "{}")),
            )
        except ValueError as error:
            raise UltronError(
                f"{self.path}: its config attributes are not JSON ({error}); run `ultron extract --overwrite`"
            ) from error
        self.info = DescriptorInfo(
            config=config,
            scales=scales,
            skipped=skipped,
            provenance=provenance,
            **{
                key: str(attributes[key])
                for key in ("model", "weights_sha256", "dataset", "role", "crop", "created", "ultron_version")
            },
        )

    @property
    def names(self) -> list[str]:
        """Photo names, one per row."""
        return [str(name) for name in self._handle["names"].asstr()[:]]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) float32 rows start..stop. Raises UltronError if one is not finite or not a unit vector."""
        stop = self.n if stop is None else stop
        rows = self._stored[start:stop].astype(np.float32, copy=False)
        check_unit_rows(rows, f"{self.path}", start, self._tolerance)
        return rows

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (n, D) float32) of consecutive blocks."""
        for start, stop in chunks(self.n, rows_per_block):
            yield start, self.read(start, stop)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 of (n,) rows in any order, with repeats. Raises as `read` does."""
        stored = self._stored
        if self._scattered is None:
            self._scattered = scattered_rows(self.path, stored)
        places, windows = self._scattered
        if places is not None:
            found = windows[places[rows]].view(self._dtype)
        else:
            unique, inverse = np.unique(rows, return_inverse=True)
            found = stored[unique][inverse] if len(unique) else np.empty((0, stored.shape[1]), self._dtype)
        found = found.astype(np.float32, copy=False)
        check_unit_rows(found, f"{self.path}, rows taken", 0, self._tolerance)
        return found

    def close(self) -> None:
        """Closes the file."""
        self._scattered = None
        self._handle.close()

    def __enter__(self) -> "DescriptorFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def row_places(stored: h5py.Dataset) -> np.ndarray | None:
    """(N,) int64 byte offsets of the rows in the file; None where they do not lie there as they are (compressed,
    absent, byte-swapped)."""
    n, dim = stored.shape
    native = stored.dtype.isnative and stored.id.get_create_plist().get_nfilters() == 0
    if not native or not n:
        return None
    row_bytes = dim * stored.dtype.itemsize
    if stored.chunks is None:
        offset = stored.id.get_offset()
        return None if offset is None else offset + np.arange(n) * row_bytes
    if stored.chunks[1] != dim or not hasattr(stored.id, "chunk_iter"):
        return None
    rows_per_chunk = stored.chunks[0]
    starts = np.full(-(-n // rows_per_chunk), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        starts[chunk.chunk_offset[0] // rows_per_chunk] = chunk.byte_offset

    stored.id.chunk_iter(note)
    if (starts < 0).any():
        return None
    rows = np.arange(n)
    return starts[rows // rows_per_chunk] + rows % rows_per_chunk * row_bytes


def scattered_rows(path: Path, stored: h5py.Dataset) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(byte offsets of the rows, the file's bytes seen as a window of one row's length at every offset); None where
    that cannot be.

    HDF5 reads scattered rows one selection at a time; a gather from the mapped file is many times faster, and the map
    is kept because mapping pages anew costs more than copying them.
    """
    places = row_places(stored)
    if places is None:
        return None, None
    content, n_bytes = np.memmap(path, np.uint8, "r"), stored.shape[1] * stored.dtype.itemsize
    return places, np.lib.stride_tricks.as_strided(
        content, (len(content) - n_bytes + 1, n_bytes), (1, 1), writeable=False
    )


def take_rows(database: np.ndarray | DescriptorFile, rows: np.ndarray) -> np.ndarray:
    """(n, D) float32 of (n,) rows of an array or a descriptor file, in the order asked for."""
    return database[rows].astype(np.float32, copy=False) if isinstance(database, np.ndarray) else database.take(rows)


def check_unit_rows(
    rows: np.ndarray, where: str, first_row: int = 0, tolerance: float = NORM_TOLERANCE["float32"]
) -> None:
    """Raises UltronError naming the first row that is not finite or whose L2 norm is not 1 within `tolerance`."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= tolerance))
    if bad.size:
        row = int(bad[0])
        found = "NaN or infinity" if not np.isfinite(norms[row]) else f"norm {norms[row]:.4f}"
        raise UltronError(
            f"{where}: descriptors must be finite and of unit L2 norm, row {first_row + row} has {found}; "
            "extract it again"
        )


def write_descriptors(
    path: Path, names: Sequence[str], blocks: Iterable[np.ndarray], dim: int, info: DescriptorInfo
) -> None:
    """Writes a descriptor file atomically from consecutive blocks of (n, D) float32 or float16 rows, N in total.

    Raises UltronError if the rows are not finite unit vectors, ValueError if their number differs from the names'.
    """
    dtype = np.dtype(info.config.get("storage", "float32"))
    with whole_file(path) as temporary, h5py.File(temporary, "w") as handle:
        handle["names"] = np.array(list(names), dtype=h5py.string_dtype("utf-8"))
        rows_per_chunk = max(1, min(len(names), (1 << 18) // max(1, dim * dtype.itemsize)))
        stored = handle.create_dataset(
            "descriptors", (len(names), dim), dtype, chunks=(rows_per_chunk, dim) if names else None
        )
        done = 0
        for block in blocks:
            check_unit_rows(block.astype(np.float32, copy=False), str(path), done, NORM_TOLERANCE[dtype.name])
            stored[done : done + len(block)] = block
            done += len(block)
        if done != len(names):
            raise ValueError(f"{done} descriptor rows for {len(names)} names")
        handle.attrs["format"], handle.attrs["version"] = FORMAT, VERSION
        for key in ("model", "weights_sha256", "dataset", "role", "crop", "ultron_version"):
            handle.attrs[key] = getattr(info, key)
        for key in ("config", "scales", "skipped", "provenance"):
            handle.attrs[key] = json.dumps(getattr(info, key), sort_keys=key == "config")
        handle.attrs["created"] = info.created or datetime.now(UTC).isoformat(timespec="seconds")
        handle.attrs["complete"] = True


def require_same_dim(path: Path, got: int, other: Path, want: int) -> None:
    """Raises UltronError if two descriptor files, or a file and an index, differ in dimensions."""
    if got != want:
        raise UltronError(
            f"{path} holds {got}-d descriptors, {other} has {want}-d; extract both with one model (`ultron "
            "extract --overwrite`)"
        )
