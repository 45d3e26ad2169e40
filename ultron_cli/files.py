"""Files that are whole or absent: written under a temporary name in the same folder, flushed to disk, renamed.

Everything ultron writes goes through an OutputFile, which stands a full disk.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.leftovers import aside_name, sweep, temporary_name, temporary_path
from ultron_cli.output_files import ANOTHER_PLACE, NO_SPACE, OutputFile, failures_said
from ultron_cli.stops import to_the_end


def make_folder(folder: Path, *ways: str) -> Path:
    """Creates `folder` with its parents and proves that files can be made in it. Raises UltronError if not.

    ways: what else to do then, where `out` and `workspace` do not say where it is.
    """
    ways = ways or (ANOTHER_PLACE, "name another `workspace`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / temporary_name()
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
    temporary = target.with_name(temporary_name())
    old = target.with_name(aside_name(target.name))
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
    if os.path.isfile(path):
        if not os.access(path, os.R_OK):
            raise UltronError(f"{what} {path} may not be read by this user; ask its owner, or copy it")
        return
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UltronError(f"{what} {path} does not exist; check the path") from None
    except OSError as error:  # a name that is too long, a folder that is barred
        raise UltronError(f"{what} {path} cannot be opened ({error.strerror}); check the path") from None
    kind = "a folder" if os.path.isdir(path) else "a broken link" if not os.path.exists(path) else "a pipe or a device"
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
