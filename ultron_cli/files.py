"""Files that are whole or absent: written under a temporary name in the same folder, flushed to disk, renamed.

Everything ultron writes goes through an OutputFile, which stands a full disk. Temporary names say whose they are, so
that those of killed processes are swept.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import free_bytes, size_text
from ultron_cli.processes import is_alive, machine_mark, start_time
from ultron_cli.stops import to_the_end

ANOTHER_PLACE = "name another place with `out`"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Machine, process, a random part; .tmp is half written, .old is what it replaces, with the name that it had.
_TEMPORARY = re.compile(r"\.ultron-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.(?:tmp(?:\.[^.]{1,15})?|old-(.+))", re.DOTALL)
MOST_NAME_BYTES = 255  # of an entry of a folder, on most file systems
# Untouched so long, what another machine left (or this one, before it was started anew) is given up.
FOREIGN_LEFTOVER_S = 86400.0
CLOCK_SLACK_S = 3.0  # between the clock of files and that of processes

_swept: set[Path] = set()  # folders, by this process


def make_folder(folder: Path, *ways: str) -> Path:
    """Creates `folder` with its parents and proves that files can be made in it. Raises UltronError if not.

    ways: what else to do then, where `out` and `workspace` do not say where it is.
    """
    ways = ways or (ANOTHER_PLACE, "name another `workspace`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _temporary_name()
        probe.touch(exist_ok=False)
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UltronError(f"{folder} must be a folder but a file is in the way; move it", *ways) from None
    except OSError as error:
        if error.errno in NO_SPACE:
            raise WorkFailed(f"could not make a file in {folder}: the disk is full; free space") from error
        raise UltronError(
            f"cannot write in {folder} ({error.strerror}); see to its rights and its disk", *ways
        ) from error
    return folder


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

    def write_each(self, places: Sequence[int], rows: Any, n_bytes: int) -> None:
        """Writes rows of n_bytes each to their places in the file. As `write` for each of them, many times faster."""
        view = memoryview(rows).cast("B")
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


def target_of(path: Path) -> Path | None:
    """The regular file, there or not yet, that a result's name means, links followed; None for a pipe or a device that
    takes bytes, such as /dev/stdout. Raises UltronError for a folder and anything else."""
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise UltronError(f"{path} cannot be written ({error.strerror}); name another file with `out`") from None
    if status is not None:
        if stat.S_ISDIR(status.st_mode):
            raise UltronError(f"{path} is a folder, not a file; name a file in it with `out`")
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode) or _open_handle(path) is not None:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise UltronError(f"{path} is neither a file nor a pipe; name a file with `out`")
    return Path(os.path.realpath(path))


def _open_handle(path: Path) -> int | None:
    """The handle of this process that a name such as /dev/stdout stands for: it is written through, as what the shell
    redirects is. None for any other name."""
    for _ in range(8):
        if path.name.isdigit() and os.path.realpath(path.parent) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def _temporary_name(end: str = "tmp") -> str:
    return f".ultron-{machine_mark()}-{os.getpid()}-{secrets.token_hex(4)}.{end}"


def _aside_name(name: str) -> str:
    """What a folder is called while it is replaced: with its name, which it gets back after a kill, where that fits."""
    aside = _temporary_name(f"old-{name}")
    return aside if len(os.fsencode(aside)) <= MOST_NAME_BYTES else _temporary_name()


def temporary_path(target: Path) -> Path:
    """A name beside `target` to write under, with its suffix; the folder is swept of what killed processes left."""
    sweep(target.parent)
    return target.with_name(_temporary_name(f"tmp{target.suffix}" if len(target.suffix) < 16 else "tmp"))


def sweep(folder: Path, *, anew: bool = False) -> None:
    """Removes what killed processes left half written in a folder, once per process and folder unless `anew`; a folder
    that was moved aside and not replaced gets its name back."""
    if folder in _swept and not anew:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        leftovers = [(entry.path, match) for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
        for leftover, match in leftovers:
            if _is_left(Path(leftover), match[1], int(match[2])):
                _clear_away(Path(leftover), match[3])


def _is_left(path: Path, mark: str, pid: int) -> bool:
    """Whether the process that made a temporary file is gone. Another may have its number by now."""
    if mark == machine_mark() and not is_alive(pid):
        return True
    with contextlib.suppress(OSError):
        stat = path.lstat()
        if mark != machine_mark():
            return time.time() - stat.st_mtime > FOREIGN_LEFTOVER_S
        began_s = start_time(pid)
        return began_s is not None and began_s > stat.st_ctime + CLOCK_SLACK_S
    return False


def _clear_away(path: Path, old_name: str | None) -> None:
    if old_name is not None and not os.path.lexists(path.with_name(old_name)):
        with contextlib.suppress(OSError):
            os.rename(path, path.with_name(old_name))
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write; when the block ends well it is flushed and becomes `path`.

    On an error nothing stays behind and an older file at `path` is untouched. Links are followed; a pipe or a device
    gets the bytes when they are complete. Raises WorkFailed, with the space that is missing, when the disk is full,
    UltronError where `path` cannot be a file or the folder cannot be written.
    """
    target = target_of(path)
    if target is None:
        with _written_through(path) as stream:
            yield stream
        return
    make_folder(target.parent)
    temporary = temporary_path(target)
    try:
        with failures_said(path), OutputFile(temporary, path) as output:
            try:
                yield cast(BinaryIO, output)
            except Exception:
                if not output.has_failed:
                    raise
            output.sync()
            if not output.has_failed:
                _take_over_mode(target, temporary)
                os.replace(temporary, target)
                sync_folder(target.parent)
    finally:
        to_the_end(lambda: temporary.unlink(missing_ok=True))
    output.settle()


def _take_over_mode(target: Path, temporary: Path) -> None:
    """A file that is replaced keeps its permissions."""
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))


@contextlib.contextmanager
def _written_through(path: Path) -> Iterator[BinaryIO]:
    with tempfile.TemporaryDirectory(prefix="ultron-") as folder:
        spool = Path(folder) / "spool"
        with OutputFile(spool, path) as output:
            yield cast(BinaryIO, output)
        output.settle()
        with failures_said(path):
            open_handle = _open_handle(path)
            # A copy of the handle shares its place in the file; opening the name anew would begin at another.
            handle = os.open(path, os.O_WRONLY | os.O_APPEND) if open_handle is None else os.dup(open_handle)
            sys.stdout.flush()
            with open(handle, "wb") as sink, open(spool, "rb") as source:
                shutil.copyfileobj(source, sink)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; when the block ends well its files are flushed and it becomes `path`.

    An older folder at `path` is replaced, links are followed; on an error it stays and nothing else does. Raises
    WorkFailed when the disk is full, UltronError where `path` cannot be a folder.
    """
    target = Path(os.path.realpath(path))
    if not target.name or (os.path.lexists(target) and not target.is_dir()):
        raise UltronError(f"{path} cannot become a folder, it is something else; name another with `out`")
    make_folder(target.parent)
    sweep(target.parent)
    temporary = target.with_name(_temporary_name())
    old = target.with_name(_aside_name(target.name))
    try:
        with failures_said(path):
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            if target.exists():
                os.replace(target, old)  # no portable call exchanges two folders; for a moment there is none
            try:
                os.replace(temporary, target)
            except OSError:
                if old.exists():
                    os.replace(old, target)
                raise
            sync_folder(target.parent)
    finally:
        to_the_end(*(lambda path=path: shutil.rmtree(path, ignore_errors=True) for path in (temporary, old)))


@contextlib.contextmanager
def part_file(path: Path, target: Path) -> Iterator[BinaryIO]:
    """Yields a file to write in a folder of whole_folder. target: what the folder becomes, for messages. Raises as
    whole_file."""
    with failures_said(target), OutputFile(path, target) as output:
        yield cast(BinaryIO, output)
    if output.has_failed:
        path.unlink(missing_ok=True)
    output.settle()


def _sync_tree(folder: Path) -> None:
    """Flushes every file of a folder; where they are many, the whole disk at once."""
    folders = [Path(place) for place, _, _ in os.walk(folder)]
    if len(folders) > 1 and hasattr(os, "sync"):
        os.sync()
        return
    for place in folders:
        for entry in place.iterdir():
            if entry.is_file():
                with open(entry, "rb+") as handle:
                    os.fsync(handle.fileno())
        sync_folder(place)


@contextlib.contextmanager
def failures_said(path: Path) -> Iterator[None]:
    """Inside, a system's refusal to write becomes WorkFailed, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise write_failure(path, error) from error


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename survives a power cut (a no-op where the system has no such call)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; names of files that are not UTF-8 with the bytes that they have."""
    with whole_file(path) as output:
        output.write(text.encode("utf-8", "surrogateescape"))


class FileState(NamedTuple):
    """What tells cheaply that a file or folder may have changed."""

    size: int  # bytes
    mtime_ns: int  # time of the last change


def file_state(path: Path) -> FileState:
    """The size and time of change of a file or folder. Raises OSError if it cannot be looked at."""
    status = path.stat()
    return FileState(size=status.st_size, mtime_ns=status.st_mtime_ns)


def require_regular_file(path: Path, what: str) -> None:
    """Raises UltronError unless `path` is a file, or a link to one, that may be read: a pipe never ends, a device may
    be anything."""
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise UltronError(f"{what} {path} may not be read by this user; ask its owner, or copy it")
        return
    if not os.path.lexists(path):
        raise UltronError(f"{what} {path} does not exist; check the path")
    kind = "a folder" if path.is_dir() else "a broken link" if not path.exists() else "a pipe or a device"
    raise UltronError(f"{what} {path} must be a file, found {kind}; check the path")


def lock_holder(path: Path) -> str | None:
    """Number and command of a process that holds a lock on a file, as far as this machine tells (Linux)."""
    try:
        inode = str(path.stat().st_ino)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(words[-4] for words in locks if words[-3].rsplit(":", 1)[-1] == inode)
        command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (OSError, StopIteration, IndexError):
        return None
    return f"{pid} ({command[:60]})" if command else pid


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def replace_between(path: Path, begin: str, end: str, text: str) -> None:
    """Puts `text` between two marks of a text file, on lines of its own. Raises ValueError if a mark is missing."""
    before, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path} must have the marks {begin!r} and {end!r}")
    write_text(path, f"{before}{begin}\n{text}\n{end}{after}")
