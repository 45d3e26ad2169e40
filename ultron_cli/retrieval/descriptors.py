"""Descriptor files (HDF5): the only code that reads or writes them.

Layout (a contract, see docs/file-formats.md): attributes format, version, complete, model, weights_sha256, config,
dataset, role, crop, scales, created, ultron_version, skipped, provenance; datasets /names (N,) UTF-8 and /descriptors
(N, D); and, where they are known, /photo_states (N, 3) int64 and /photo_digests (N, 16) uint8, the marks of
datasets/photo_marks.py.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, Self, cast, runtime_checkable

import h5py
import numpy as np
from ultron_kernels.halves import widened

from ultron_cli import __version__
from ultron_cli.blocks import chunks
from ultron_cli.console import counted
from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.output_files import OutputFile
from ultron_cli.retrieval.hdf5 import (
    TEXT,
    H5Layout,
    H5Part,
    damage_said,
    mark_parts,
    new_h5,
    open_h5,
    read_h5_marks,
    write_h5_header,
    write_h5_marks,
    write_h5_names,
    write_h5_text,
)
from ultron_cli.retrieval.origin import (
    DescriptorProvenance,
    ExtractionRecord,
    SkippedPhoto,
    StoredExtraction,
    StoredSkippedPhoto,
)
from ultron_cli.retrieval.row_windows import RowReader, RowWindows, row_offsets, row_reader, row_windows

FORMAT = "ultron-descriptors"
VERSION = 1
Role = Literal["query", "database"]
Crop = Literal["bbx", "none"]
StoredCrop = Crop | Literal["unknown"]  # of imported ones, where nobody said
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="descriptor file",
    parts={
        "names": H5Part(axes="(N,)", types=(TEXT,)),
        "descriptors": H5Part(axes="(N, D)", types=("float32", "float16")),
        **mark_parts("photo"),
    },
    attributes={
        "complete": bool,
        "model": str,
        "weights_sha256": str,
        "config": str,
        "dataset": str,
        "role": str,
        "crop": str,
        "scales": str,
        "created": str,
        "ultron_version": str,
        "skipped": str,
        "provenance": str,
    },
    defaults={"skipped": "[]", "provenance": "{}"},
    again="run `ultron extract --overwrite`",
)
AGAIN = "extract it again"
CHECKED_VALUES = 2**18  # of float16 that are float32 at once: 1 MiB stays in a cache
SHOWN_PHOTOS = 8  # in a notebook
ONE_READER = threading.Lock()  # of descriptors that say nothing else of threads
NORM_TOLERANCE = {"float32": 1e-3, "float16": 5e-3}  # rows are unit vectors up to rounding


@dataclass(frozen=True, kw_only=True)
class DescriptorInfo:
    """What a descriptor file says of its origin."""

    model: str
    weights_sha256: str
    extraction: ExtractionRecord = field(default_factory=ExtractionRecord)  # everything that shaped the numbers
    dataset: str
    role: Role
    crop: StoredCrop
    scales: list[float]
    skipped: tuple[SkippedPhoto, ...] = ()
    provenance: DescriptorProvenance = field(default_factory=DescriptorProvenance)
    created: str = ""
    ultron_version: str = __version__


@runtime_checkable
class Descriptors(Protocol):
    """Descriptors of N photos, wherever they lie: a file, several files joined, or memory. Use as a context manager.

    An implementation gives the attributes, `names`, `read` and `take`; the rest follows from them.
    """

    label: str  # what messages call it: a path, or where it lies
    n: int
    dim: int
    info: DescriptorInfo

    @property
    def names(self) -> list[str]:
        """Photo names, one per row."""
        ...

    @property
    def marks(self) -> PhotoMarks | None:
        """What tells the photos from others of their names, one per row; None where it is not recorded."""
        return None

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) float32 rows start..stop. Raises UltronError if one is not finite or not a unit vector."""
        ...

    def read_stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) rows start..stop of the same values as `read` gives, float16 where they lie as such. Raises as `read`
        does."""
        return self.read(start, stop)

    @property
    def stored_dtype(self) -> np.dtype:
        """float16 where all rows lie as such, else float32: what `read_into` takes."""
        return self.read_stored(0, 0).dtype

    def read_into(self, start: int, room: np.ndarray) -> None:
        """Fills (n, D) room of stored_dtype, whose rows lie one behind the other, with rows start..start + n. Several
        threads may call it at once. Raises as `read` does."""
        with ONE_READER:
            room[:] = self.read_stored(start, start + len(room))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 of (n,) rows in any order, with repeats. Raises as `read` does."""
        ...

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (n, D) float32) of consecutive blocks."""
        for start, stop in chunks(self.n, rows_per_block):
            yield start, self.read(start, stop)

    def close(self) -> None:
        """Gives back what is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        what = f"{info.model} on {info.dataset}: {counted(self.n, 'photo')}" if info.model else counted(self.n, "row")
        how = f", {info.extraction.protocol_text()}" if info.extraction else ""
        return f"{what}, {self.dim}-d{how} ({self.label})"

    def _repr_html_(self) -> str:
        from ultron_cli.datasets.photo_strip import photo_paths, photo_strip  # loads Pillow

        names = self.names[:SHOWN_PHOTOS]
        origin = self.info.provenance
        paths = photo_paths(names, origin.dataset_folder, origin.ground_truth)
        return photo_strip(list(zip(paths, names, strict=True)), repr(self))


class MemoryDescriptors(Descriptors):
    """Descriptors in memory: made a moment ago, or given by a program."""

    def __init__(
        self,
        rows: np.ndarray,
        names: Sequence[str],
        info: DescriptorInfo,
        label: str = "memory",
        marks: PhotoMarks | None = None,
        advice: str = AGAIN,
    ) -> None:
        """rows: (N, D) float32 or float16 unit vectors, N names. marks: of the N photos, where they are known. advice:
        what to do where a row is no unit vector. Raises UltronError if one is not."""
        if rows.ndim != 2 or rows.dtype.name not in NORM_TOLERANCE or len(rows) != len(names):
            raise UltronError(
                f"descriptors must be (N, D) float32 or float16 with one name per row, found {rows.shape} "
                f"{rows.dtype} and {len(names)} names"
            )
        self.label = label
        self.info = info
        self.n, self.dim = rows.shape
        self._names = list(names)
        self._rows = rows.astype(native(rows.dtype), copy=False)
        self._marks = marks
        check_unit_rows(rows, label, 0, NORM_TOLERANCE[rows.dtype.name], advice)

    @property
    def names(self) -> list[str]:
        return self._names

    @property
    def marks(self) -> PhotoMarks | None:
        return self._marks

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return widened(self._rows[start:stop])

    def read_stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._rows[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return widened(self._rows[rows])


class DescriptorFile(Descriptors):
    """A descriptor file opened for reading; rows are read from disk when they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = str(path)
        self._file = open_h5(path, LAYOUT)
        try:
            self._check()
        except UltronError:
            self.close()
            raise

    def _check(self) -> None:
        attributes = self._file.attributes
        rows = self._file.dataset("descriptors")
        n_names = self._file.dataset("names").shape[0]
        if not attributes["complete"]:
            raise UltronError(f"{self.path} was never finished; run the same `ultron extract` again to continue it")
        if rows.shape[0] != n_names or rows.shape[1] < 1:
            raise UltronError(
                f"{self.path}: /descriptors must be (N, D) float32 or float16 with one name per row, "
                f"found {rows.shape} {rows.dtype} and {n_names} names; {LAYOUT.again}"
            )
        self.n, self.dim = (int(side) for side in rows.shape)
        # Asking HDF5 for these again costs as much as 100 rows.
        self._stored = rows
        self.dtype = native(rows.dtype)
        self._tolerance = NORM_TOLERANCE[rows.dtype.name]
        self.info = DescriptorInfo(
            extraction=ExtractionRecord(stored=self._file.json("config", StoredExtraction)),
            scales=self._file.json("scales", list[float]),
            skipped=SkippedPhoto.list_from_json(self._file.json("skipped", list[StoredSkippedPhoto])),
            provenance=DescriptorProvenance.from_json(self._file.json("provenance", dict)),
            model=attributes["model"],
            weights_sha256=attributes["weights_sha256"],
            dataset=attributes["dataset"],
            role=cast(Role, attributes["role"]),
            crop=cast(StoredCrop, attributes["crop"]),
            created=attributes["created"],
            ultron_version=attributes["ultron_version"],
        )

    @property
    def names(self) -> list[str]:
        """Photo names, one per row."""
        return self._file.texts("names")

    @property
    def marks(self) -> PhotoMarks | None:
        """What tells the photos from others of their names, one per row; None where it is not recorded."""
        return read_h5_marks(self._file, "photo", self.n)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) float32 rows start..stop. Raises UltronError if one is not finite or not a unit vector."""
        return widened(DescriptorFile.read_stored(self, start, stop))

    def read_stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) rows start..stop as the file holds them, float32 or float16. Raises as `read` does."""
        start, stop, _ = slice(start, stop).indices(self.n)
        rows = np.empty((max(0, stop - start), self._stored.shape[1]), self.dtype)
        DescriptorFile.read_into(self, start, rows)
        return rows

    def read_into(self, start: int, room: np.ndarray) -> None:
        """As Descriptors.read_into; room may be float32 where the rows are float16."""
        if room.dtype != self.dtype:
            room[:] = DescriptorFile.read_stored(self, start, start + len(room))
            return
        with damage_said(self.path, LAYOUT.again):
            if self._reader is not None:
                self._reader.read_into(start, room)
            elif len(room):
                self._stored.read_direct(room, np.s_[start : start + len(room)])
        check_unit_rows(room, f"{self.path}", start, self._tolerance)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 of (n,) rows in any order, with repeats. Raises as `read` does."""
        stored = self._stored
        with damage_said(self.path, LAYOUT.again):
            if self._windows is not None:
                descriptors = self._windows.take(rows).view(self.dtype)
            else:
                unique, inverse = np.unique(rows, return_inverse=True)
                in_file_order = stored[unique] if len(unique) else np.empty((0, self.dim))
                descriptors = in_file_order[inverse].astype(self.dtype, copy=False)
        check_unit_rows(descriptors, f"{self.path}, rows taken", 0, self._tolerance)
        return widened(descriptors)

    @cached_property
    def _reader(self) -> RowReader | None:
        return row_reader(self._stored)

    @cached_property
    def _windows(self) -> RowWindows | None:
        return row_windows(self.path, self._stored)

    def close(self) -> None:
        """Closes the file."""
        for of_the_open_file in ("_reader", "_windows"):
            vars(self).pop(of_the_open_file, None)
        self._file.close()


def native(dtype: np.dtype) -> np.dtype:
    """The same numbers in the byte order of this machine."""
    return dtype.newbyteorder("=")


def take_rows(database: np.ndarray | Descriptors, rows: np.ndarray) -> np.ndarray:
    """(n, D) float32 of (n,) rows of an array or of descriptors, in the order of `rows`."""
    if isinstance(database, np.ndarray):
        return widened(database[rows])
    return database.take(rows)


def check_unit_rows(
    rows: np.ndarray,
    where: str,
    first_row: int = 0,
    tolerance: float = NORM_TOLERANCE["float32"],
    advice: str = AGAIN,
) -> None:
    """Raises UltronError, with the advice, naming the first row that is not finite or whose L2 norm is not 1 within
    `tolerance`. rows: (n, D) float32, or float16, of which few at a time are float32 too."""
    squares, step = np.empty(len(rows), np.float32), max(1, len(rows))
    room = None
    if rows.dtype == np.float16:
        step = min(step, CHECKED_VALUES // max(1, rows.shape[1]) + 1)
        room = np.empty((step, rows.shape[1]), np.float32)
    for start, stop in chunks(len(rows), step):
        part = widened(rows[start:stop], room)
        squares[start:stop] = np.einsum("ij,ij->i", part, part)
    norms = np.sqrt(squares)
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= tolerance))
    if bad.size:
        row = int(bad[0])
        fault = "NaN or infinity" if not np.isfinite(norms[row]) else f"norm {norms[row]:.4f}"
        raise UltronError(
            f"{where}: descriptors must be finite and of unit L2 norm, row {first_row + row} has {fault}; {advice}"
        )


class NewDescriptors:
    """The rows of a descriptor file that is being written. Each is to be put once."""

    def __init__(self, path: Path, output: OutputFile, stored: h5py.Dataset) -> None:
        self._path = path
        self._output = output
        self._stored = stored
        self._tolerance = NORM_TOLERANCE[stored.dtype.name]
        self._offsets: np.ndarray | None = None
        self.n_done = 0

    def put(self, first_row: int, rows: np.ndarray) -> None:
        """Writes (n, D) float32 or float16 rows that follow each other. Raises UltronError if they are not finite unit
        vectors."""
        check_unit_rows(rows, str(self._path), first_row, self._tolerance)
        self._stored[first_row : first_row + len(rows)] = rows
        self.n_done += len(rows)

    def scatter(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Writes rows to (n,) places, past HDF5, which takes many times longer for a row. Raises as put does; the file
        must have been made in any order."""
        check_unit_rows(rows, str(self._path), 0, self._tolerance)
        if self._offsets is None:
            self._offsets = row_offsets(self._stored)
            if self._offsets is None:
                raise ValueError("a file in any order has its rows at known places")
        stored = np.ascontiguousarray(rows, self._stored.dtype)
        self._output.write_each(self._offsets[places].tolist(), stored.data, stored.shape[1] * stored.itemsize)
        self.n_done += len(rows)


@contextmanager
def new_descriptors(
    path: Path,
    names: Sequence[str],
    dim: int,
    info: DescriptorInfo,
    marks: PhotoMarks | None = None,
    *,
    in_any_order: bool = False,
) -> Iterator[NewDescriptors]:
    """Yields the rows of a new descriptor file to be written; when the block ends well, the file is whole.

    marks: of the N photos, where they are known. Raises ValueError if not as many rows were put as there are names.
    """
    dtype = np.dtype(info.extraction.storage)
    with new_h5(path) as (handle, output):
        write_h5_names(handle, "names", names)
        write_h5_marks(handle, "photo", marks)
        rows_per_chunk = max(1, min(len(names), (1 << 18) // max(1, dim * dtype.itemsize)))
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if in_any_order:  # all rows get their place at once
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        chunks_of_rows = (rows_per_chunk, dim) if names else None
        stored = handle.create_dataset("descriptors", (len(names), dim), dtype, chunks=chunks_of_rows, dcpl=creation)
        rows = NewDescriptors(path, output, stored)
        yield rows
        if rows.n_done != len(names):
            raise ValueError(f"{rows.n_done} descriptor rows for {len(names)} names")
        write_h5_header(handle, FORMAT, VERSION, created=info.created, ultron_version=info.ultron_version)
        for key in ("model", "weights_sha256", "dataset", "role", "crop"):
            write_h5_text(handle, key, getattr(info, key))
        handle.attrs["config"] = json.dumps(dict(info.extraction.stored), sort_keys=True)
        handle.attrs["scales"] = json.dumps(info.scales)
        handle.attrs["skipped"] = json.dumps([photo.to_json() for photo in info.skipped])
        handle.attrs["provenance"] = json.dumps(info.provenance.to_json())
        handle.attrs["complete"] = True


def write_descriptors(
    path: Path,
    names: Sequence[str],
    blocks: Iterable[np.ndarray],
    dim: int,
    info: DescriptorInfo,
    marks: PhotoMarks | None = None,
) -> None:
    """Writes a descriptor file atomically from consecutive blocks of (n, D) float32 or float16 rows, N in total. Raises
    as new_descriptors."""
    with new_descriptors(path, names, dim, info, marks) as rows:
        for block in blocks:
            rows.put(rows.n_done, block)


def require_same_dim(path: Path, dim: int, other_path: Path, other_dim: int) -> None:
    """Raises UltronError if two descriptor files, or a file and an index, differ in dimensions."""
    if dim != other_dim:
        raise UltronError(
            f"{path} holds {dim}-d descriptors, {other_path} has {other_dim}-d; extract both with one model (`ultron "
            "extract --overwrite`)"
        )


def require_same_model(first: ExtractionRecord, second: ExtractionRecord, where: str) -> None:
    """Raises UltronError if two descriptor files come from different models or weights."""
    differing = first.differences(second, ("model", "weights_sha256", "preprocessing"))
    if differing:
        advice = "extract both with one model"
        if first.imported or second.imported:
            advice = "if one network made them, import both under one name (`ultron descriptors import --model NAME`)"
        raise UltronError(f"{where} were made by different models: {'; '.join(differing)}; {advice}")
