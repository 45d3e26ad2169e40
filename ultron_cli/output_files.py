"""Files that are being written, on a disk that may fill: nothing fails half way, and what is missing is said."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ultron_cli.errors import WorkFailed
from ultron_cli.machine import free_bytes, size_text

ANOTHER_PLACE = "name another place with `out`"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputFile(io.RawIOBase):
    """A binary file that is being written and never fails half way.

    Once the disk is full it counts what is still to come instead of writing it, and `settle` raises with the amount
    that is missing: libraries in C (HDF5, torch) hang or crash when a write fails, and then cannot even be closed.
    """

    def __init__(self, path: Path, target: Path) -> None:
        """path: the file that is made. target: the name it will have, for messages."""
        self._target = target
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._place = 0
        self._error: OSError | None = None
        self.n_bytes = 0  # length of the file, also of what the disk did not take

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def status(self) -> os.stat_result:
        """Of the file as it is now."""
        return os.fstat(self._handle)

    def fileno(self) -> int:
        # Whoever asks for it would write beside this object.
        raise io.UnsupportedOperation("fileno")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                os.lseek(self._handle, self._place, os.SEEK_SET)
                write_all(self._handle, view)
            except OSError as error:
                self._error = error
        self._place += len(view)
        self.n_bytes = max(self.n_bytes, self._place)
        return len(view)

    def write_each(self, places: Sequence[int], rows: memoryview, n_bytes: int) -> None:
        """Writes rows of n_bytes each to their places in the file. As `write` for each of them, many times faster."""
        view = rows.cast("B")
        if self._error is None:
            try:
                for start, place in zip(range(0, len(view), n_bytes), places, strict=True):
                    os.lseek(self._handle, place, os.SEEK_SET)
                    if (n_written := os.write(self._handle, view[start : start + n_bytes])) < n_bytes:
                        write_all(self._handle, view[start + n_written : start + n_bytes])
            except OSError as error:
                self._error = error
        self._place = places[-1] + n_bytes if places else self._place
        self.n_bytes = max(self.n_bytes, max(places, default=-n_bytes) + n_bytes)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        os.lseek(self._handle, self._place, os.SEEK_SET)
        data = os.read(self._handle, len(view))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.n_bytes}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def truncate(self, size: int | None = None) -> int:
        self.n_bytes = self._place if size is None else size
        if self._error is None:
            try:
                os.ftruncate(self._handle, self.n_bytes)
            except OSError as error:
                self._error = error
        return self.n_bytes

    def flush(self) -> None:
        pass  # nothing is held back

    @property
    def has_failed(self) -> bool:
        """Whether a write has failed; the rest is only counted."""
        return self._error is not None

    def sync(self) -> None:
        """Flushes to disk, unless a write has failed."""
        if self._error is None:
            try:
                os.fsync(self._handle)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    self._error = error

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()

    def settle(self) -> None:
        """Raises WorkFailed if a write has failed, with the space that is missing; to be called when the file is
        removed."""
        if self._error is not None:
            raise write_failure(self._target, self._error, self.n_bytes) from self._error


class AppendedFile:
    """A file that grows while it is read: what is written can be read at once, and nothing is held back for the end.

    A write that fails raises WorkFailed and leaves what was there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with failures_said(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        with failures_said(self._path):
            write_all(self._handle, data)

    def close(self) -> None:
        """Ends the file."""
        os.close(self._handle)


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Writes all bytes to an open file: on a disk that is nearly full a single call writes some of them, and no error
    tells of the rest."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_failure(path: Path, error: OSError, n_bytes: int | None = None) -> WorkFailed:
    """What is said when a file cannot be written. n_bytes: its length, where it is known."""
    if error.errno not in NO_SPACE:
        return WorkFailed(f"could not write {path}: {error.strerror}; look at the place", ANOTHER_PLACE)
    if error.errno == errno.EFBIG:
        reason = "it is larger than files may be here"
    elif n_bytes:
        missing = max(n_bytes - free_bytes(path.parent), 4096)
        reason = f"the disk is full: it takes {size_text(n_bytes)}, and {size_text(missing)} are missing"
    else:
        reason = "the disk is full"
    return WorkFailed(f"could not write {path}: {reason}; free space", ANOTHER_PLACE)


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises WorkFailed, with the amount that is missing, unless `n_bytes` are free where `folder` is or will be.

    what: what takes them, as the beginning of a sentence.
    """
    free = free_bytes(folder)
    if n_bytes > free:
        raise WorkFailed(
            f"{what} takes about {size_text(n_bytes)}, {folder} has {size_text(free)} free and "
            f"{size_text(n_bytes - free)} are missing; free space",
            ANOTHER_PLACE,
        )


@contextlib.contextmanager
def failures_said(path: Path) -> Iterator[None]:
    """Inside, a system's refusal to write becomes WorkFailed, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise write_failure(path, error) from error
