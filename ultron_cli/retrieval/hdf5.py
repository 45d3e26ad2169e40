"""HDF5 files of ours: what all of them say of themselves, and reading them from strangers.

The HDF5 library crashes or loops on some damaged files, and follows references to other files. So whatever is read
here is first looked through in a child process: it opens nothing but the file itself, reads the attributes and texts,
and holds types, shapes and chunks against the file's length. Then only rows of plain numbers are left to read.

A file that this process has written, and nobody since, needs no child: a fork of a process that holds much memory makes
it copy, page by page, what it writes meanwhile.
"""

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import h5py
import numpy as np

from ultron_cli import __version__
from ultron_cli.datasets.photo_marks import DIGEST_BYTES, PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.files import lock_holder, require_regular_file, whole_file
from ultron_cli.guarded import CPU_S, ReaderDied, ReaderFailed, in_child, one_line
from ultron_cli.output_files import OutputFile
from ultron_cli.provenance import utc_now
from ultron_cli.schema.texts import parse_json
from ultron_cli.schema.values import Misfit, fit

FEW_TEXTS = 1 << 14  # so many are read together with the header
MAX_ATTRIBUTE_BYTES = 1 << 26
MAX_CHUNK_BYTES = 1 << 28  # HDF5 reads a chunk in one piece
MAX_COMPRESSION = 1100  # deflate makes at most 1032 bytes of one
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # those that HDF5 and h5py always have
TEXT = "text"
REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class H5Part:
    """A dataset that a kind of file has."""

    axes: str  # as messages name its shape: (N,), (Q, K)
    types: tuple[str, ...]  # NumPy's names of the types it may have, or TEXT alone
    may_lack: bool = False  # whether files of older versions are without it

    @property
    def ndim(self) -> int:
        """Number of its axes."""
        return len([axis for axis in self.axes.strip("()").split(",") if axis])


@dataclass(frozen=True, kw_only=True)
class H5Layout:
    """What a kind of file consists of."""

    format: str  # its attribute `format`
    version: int  # newest that can be read
    what: str  # as messages call it
    parts: Mapping[str, H5Part]
    attributes: Mapping[str, type]  # str, bool or int
    defaults: Mapping[str, object] = field(default_factory=dict)  # of those that may be absent
    again: str = "make it again"  # what to do about a damaged one
    may_be_foreign: bool = False  # whether another program's, which has no `format`, is read too


class H5File:
    """An open file of a known layout; a context manager."""

    def __init__(
        self, path: Path, layout: H5Layout, attributes: dict[str, Any], few_texts: dict[str, list[bytes]]
    ) -> None:
        self.path = path
        self.attributes = attributes  # by name, of the layout's types
        self._layout = layout
        self._few_texts = few_texts
        with damage_said(path, layout.again):
            self._handle = h5py.File(path, "r")

    def dataset(self, name: str) -> h5py.Dataset:
        """A dataset of numbers; rows are read inside `damage_said`."""
        with damage_said(self.path, self._layout.again):
            return cast(h5py.Dataset, self._handle[name])

    def has(self, name: str) -> bool:
        """Whether the file has a part that it may lack."""
        with damage_said(self.path, self._layout.again):
            return name in self._handle

    def array(self, name: str) -> np.ndarray:
        """A dataset of numbers, whole."""
        with damage_said(self.path, self._layout.again):
            return cast(h5py.Dataset, self._handle[name])[:]

    def texts(self, name: str) -> list[str]:
        """A dataset of texts, UTF-8 but for the names of files that are not."""
        texts = self._few_texts.get(name)
        if texts is None:
            # Texts are scattered over the file: a second per 10 MB of it is far more than they need.
            cpu_s = 3 + self.path.stat().st_size // 10_000_000
            texts = asked_child(self.path, self._layout.again, read_texts, str(self.path), name, cpu_s=cpu_s)
        return [text.decode("utf-8", "surrogateescape") for text in texts]

    def json(self, name: str, kind: Any) -> Any:
        """The content of an attribute of JSON text. Raises UltronError, naming the place in it, unless it is of that
        kind."""
        try:
            content = parse_json(self.attributes[name])
            fit(content, kind)
            return content
        except Misfit as misfit:
            raise UltronError(
                f"{self.path}: its attribute {name} is not JSON as it must be ({misfit}); {self._layout.again}"
            ) from None

    def close(self) -> None:
        """Closes the file."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_states_written: dict[str, tuple[int, ...]] = {}  # by resolved path: the files that this process has written


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What is another once a file is written to or replaced; renaming it and its rights change nothing of it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def new_h5(path: Path) -> Iterator[tuple[h5py.File, OutputFile]]:
    """Yields a new HDF5 file of ours and the file below it; as with whole_file, it is whole at the end or absent."""
    with whole_file(path) as output:
        with h5py.File(output, "w") as handle:
            yield handle, cast(OutputFile, output)
        state = _state(cast(OutputFile, output).status())
    _states_written[os.path.realpath(path)] = state


def _is_as_written(path: Path) -> bool:
    try:
        return _states_written.get(os.path.realpath(path)) == _state(path.stat())
    except OSError:
        return False


def write_h5_header(
    handle: h5py.File, format_name: str, version: int, *, created: str = "", ultron_version: str = __version__
) -> None:
    """Writes the attributes that every file of ours begins with: format, version, created, ultron_version.

    created: ISO 8601, UTC; empty is now.
    """
    attributes = handle.attrs  # each time it is asked for it opens the root
    attributes["format"] = format_name
    attributes["version"] = version
    attributes["created"] = created or utc_now()
    attributes["ultron_version"] = ultron_version


def write_h5_names(handle: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Writes texts as a dataset, each with the bytes that its file is named by."""
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    handle[name] = np.array(values, dtype=h5py.string_dtype("utf-8"))


def mark_parts(prefix: str, n: str = "N") -> dict[str, H5Part]:
    """The parts of a layout that hold the marks of n photos (datasets/photo_marks.py), where they are known."""
    return {
        f"{prefix}_states": H5Part(axes=f"({n}, 3)", types=("int64",), may_lack=True),
        f"{prefix}_digests": H5Part(axes=f"({n}, {DIGEST_BYTES})", types=("uint8",), may_lack=True),
    }


def write_h5_marks(handle: h5py.File, prefix: str, marks: PhotoMarks | None) -> None:
    """Writes the parts that mark_parts names; none where the marks are not known."""
    if marks is not None:
        handle[f"{prefix}_states"] = marks.states
        handle[f"{prefix}_digests"] = marks.digests


def read_h5_marks(file: H5File, prefix: str, n: int) -> PhotoMarks | None:
    """The marks of n photos; None where the file has none, or others than of n photos."""
    states, digests = f"{prefix}_states", f"{prefix}_digests"
    if not (file.has(states) and file.has(digests)):
        return None
    if file.dataset(states).shape != (n, 3) or file.dataset(digests).shape != (n, DIGEST_BYTES):
        return None
    return PhotoMarks(file.array(states), file.array(digests))


def write_h5_text(handle: h5py.File, name: str, text: str) -> None:
    """Writes a text as an attribute; it may be made of names of files."""
    handle.attrs.create(name, text.encode("utf-8", "surrogateescape"), dtype=h5py.string_dtype("utf-8"))


def open_h5(path: Path, layout: H5Layout) -> H5File:
    """Opens an HDF5 file of ours for reading.

    Raises UltronError if it is absent, locked, damaged, of another kind, too new, lacks a part, refers to other files,
    or declares more than it holds.
    """
    require_regular_file(path, layout.what)
    header = asked_child(path, layout.again, read_header, str(path), layout)
    attributes = {
        name: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        for name, value in header["attributes"].items()
    }
    return H5File(path, layout, attributes, header["texts"])


def h5_format(path: Path) -> object:
    """The attribute `format` of an HDF5 file, by which kinds of files differ. Raises UltronError if it is absent or
    damaged."""
    require_regular_file(path, "HDF5 file")
    return asked_child(path, "name a descriptor file or a rank file", read_format, str(path))


def read_format(path_text: str) -> object:
    """The same, to be called in a child process."""
    with h5py.File(path_text, "r") as handle:
        return _attribute(handle.attrs, "format", object)


def asked_child(path: Path, again: str, function: Callable[..., Any], *arguments: object, cpu_s: int = CPU_S) -> Any:
    """What a function that reads a file returns, read in a child process unless this one has written the file. Raises
    UltronError for whatever befalls it."""
    if _is_as_written(path):
        with damage_said(path, again):
            return function(*arguments)
    try:
        return in_child(function, *arguments, cpu_s=cpu_s)
    except ReaderDied as error:
        raise UltronError(f"{path} is damaged: reading it, the HDF5 library {error}; {again}") from None
    except ReaderFailed as error:
        raise UltronError(reading_fault(path, str(error), error.errno, again)) from error


@contextmanager
def damage_said(path: Path, again: str) -> Iterator[None]:
    """Inside, what the HDF5 library says of a file becomes an UltronError."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UltronError(reading_fault(path, one_line(error), getattr(error, "errno", None), again)) from error


def reading_fault(path: Path, reason: str, code: int | None, again: str) -> str:
    """Why a file cannot be read, and what to do. A file that another program holds, or that a disk does not give, is
    sound: making it again would throw work away."""
    if "unable to lock file" in reason or (code in (errno.EAGAIN, errno.EACCES) and "lock" in reason):
        holder = lock_holder(path)
        who = f"process {holder}" if holder else "another program (on this machine or another)"
        return f"{path} is open for writing in {who}; wait for it, or end it, and try again"
    if code in (errno.EIO, errno.ESTALE, errno.ENOENT):
        return f"{path} could not be read from its disk ({os.strerror(code)}); see that the disk is there and try again"
    if "signature not found" in reason:  # most often a file of another kind
        reason, again = "it does not begin as one", f"check the path, or {again}"
    return f"{path} is truncated or not an HDF5 file ({reason[:120]}); {again}"


def read_header(path_text: str, layout: H5Layout) -> dict[str, Any]:
    """{"attributes": by name, "texts": by name, of small datasets of text} of a file, after all checks of open_h5. To
    be called in a child process."""
    path = Path(path_text)
    with h5py.File(path, "r") as handle:
        stored_attributes = handle.attrs
        kind = _attribute(stored_attributes, "format", object)
        is_foreign = layout.may_be_foreign and kind is None
        if kind != layout.format and not is_foreign:
            raise UltronError(
                f"{path} is not a {layout.what}: its format attribute must be {layout.format!r}, found {kind!r:.80}; "
                f"name a {layout.what}"
            )
        version = 0 if is_foreign else _attribute(stored_attributes, "version", object)
        if not isinstance(version, int) or version > layout.version:
            raise UltronError(
                f"{path} has format version {version!r:.80}, this ultron reads up to {layout.version}; install a newer "
                "ultron"
            )
        try:
            attributes = {
                name: _attribute(stored_attributes, name, kind, layout.defaults.get(name, REQUIRED))
                for name, kind in layout.attributes.items()
            }
            parts = {
                name: checked_part(handle, name, part)
                for name, part in layout.parts.items()
                if not part.may_lack or handle.get(name, getlink=True) is not None
            }
            texts = {
                name: stored[:].tolist()
                for name, stored in parts.items()
                if layout.parts[name].types == (TEXT,) and (stored.size or 0) <= FEW_TEXTS
            }
        except MissingPart as missing:
            raise UltronError(f"{path} lacks a part of a {layout.what} ({missing}); {layout.again}") from missing
        except UnsoundPart as unsound:
            raise UltronError(f"{path}: {unsound}; {layout.again}") from unsound
    # As bytes: texts may be made of names of files that are not UTF-8.
    attributes = {
        name: value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        for name, value in attributes.items()
    }
    return {"attributes": attributes, "texts": texts}


def read_texts(path_text: str, name: str) -> list[bytes]:
    """A dataset of texts, of a file that read_header has checked. To be called in a child process."""
    with h5py.File(path_text, "r") as handle:
        return cast(h5py.Dataset, handle[name])[:].tolist()


class UnsoundPart(Exception):
    """An attribute or dataset is not what its layout says; the text names it and the rule."""


class MissingPart(UnsoundPart):
    """An attribute or dataset is missing; the text is its name."""


def _attribute(attributes: h5py.AttributeManager, name: str, kind: type, default: object = None) -> Any:
    """An attribute as plain Python; `default` where it is absent. kind: the type it must have; object: any."""
    if name not in attributes:
        if default is REQUIRED:
            raise MissingPart(f"attribute {name}")
        return default
    stored = attributes.get_id(name)
    if stored.shape != () or stored.get_storage_size() > MAX_ATTRIBUTE_BYTES:
        raise UnsoundPart(f"attribute {name} must be a single value, found shape {stored.shape}")
    value = attributes[name]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, int) and kind is bool:
        value = bool(value)
    if not isinstance(value, kind):
        raise UnsoundPart(f"attribute {name} must be of type {kind.__name__}, found {type(value).__name__}")
    return value


def checked_part(handle: h5py.File, name: str, part: H5Part) -> h5py.Dataset:
    """A dataset that is in the file itself, is what its layout says, and is as large as it declares."""
    link = handle.get(name, getlink=True)
    if link is None:
        raise MissingPart(f"/{name}")
    if not isinstance(link, h5py.HardLink):
        raise UnsoundPart(f"/{name} must lie in the file itself, found a {type(link).__name__}")
    stored = handle[name]
    if not isinstance(stored, h5py.Dataset):
        raise UnsoundPart(f"/{name} is not a dataset")
    creation = stored.id.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise UnsoundPart(f"/{name} must lie in the file itself, found a reference to another file")
    if part.types == (TEXT,):
        is_of_type, type_text = h5py.check_string_dtype(stored.dtype) is not None, "UTF-8 text"
    else:
        is_of_type, type_text = stored.dtype.name in part.types, " or ".join(part.types)
    if not is_of_type or stored.ndim != part.ndim:
        raise UnsoundPart(f"/{name} must be {part.axes} {type_text}, found {stored.shape} {stored.dtype}")
    _check_extent(handle, name, stored, creation)
    return stored


def _check_extent(handle: h5py.File, name: str, stored: h5py.Dataset, creation: h5py.h5p.PropDCID) -> None:
    """Raises UnsoundPart unless the file holds all that the dataset declares."""
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    foreign = [str(number) for number in filters if number not in FILTERS]
    if foreign:
        known = ", ".join(FILTERS.values())
        raise UnsoundPart(f"/{name} is stored through filter {', '.join(foreign)}; those read are {known}")
    itemsize = stored.id.get_type().get_size()
    declared_bytes = math.prod(stored.shape) * itemsize
    chunk_bytes = math.prod(stored.chunks) * itemsize if stored.chunks else 0
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise UnsoundPart(f"/{name} is stored in chunks of {chunk_bytes:,} bytes, more than {MAX_CHUNK_BYTES:,}")
    held_bytes = stored.id.get_storage_size()
    file_bytes = os.stat(handle.filename).st_size
    is_held = held_bytes <= file_bytes and declared_bytes <= held_bytes * (MAX_COMPRESSION if filters else 1)
    if is_held and stored.chunks:
        n_chunks = math.prod(
            -(-side // chunk_side) for side, chunk_side in zip(stored.shape, stored.chunks, strict=True)
        )
        is_held = stored.id.get_num_chunks() == n_chunks
    if not is_held:
        raise UnsoundPart(
            f"/{name} declares {stored.shape} {stored.dtype}, {declared_bytes:,} bytes, and the file holds "
            f"{held_bytes:,}"
        )
