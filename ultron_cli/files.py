"""Files that are whole or absent: written under a temporary name in the same folder, flushed to disk, renamed."""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ultron_cli.errors import UltronError, WorkFailed

try:
    import fcntl
except ImportError:
    # Windows has no such locks; there two writers at a time are the user's to avoid.
    fcntl = None  # type: ignore[assignment]  # told apart by `if fcntl` where it is used


def make_folder(folder: Path) -> Path:
    """Creates `folder` with its parents and proves that files can be made in it. Raises UltronError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"
        probe.touch(exist_ok=False)
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UltronError(f"{folder} must be a folder but a file is in the way; name another with `out`") from None
    except OSError as error:
        raise UltronError(
            f"cannot write in {folder} ({error.strerror}); name another folder with `out` or `workspace`"
        ) from error
    return folder


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well it is flushed and renamed to `path`.

    On an error nothing stays behind and an older file at `path` is untouched. Raises WorkFailed when the disk is full,
    UltronError where the folder cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        with failures_said(path):
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; when the block ends well its files are flushed and it becomes `path`.

    An older folder at `path` is replaced; on an error it stays and nothing else does. Raises WorkFailed when the disk
    is full.
    """
    make_folder(path.parent)
    temporary, old = (path.with_name(f".{secrets.token_hex(8)}.{end}") for end in ("tmp", "old"))
    try:
        with failures_said(path):
            temporary.mkdir()
            yield temporary
            for entry in temporary.iterdir():
                with open(entry, "rb+") as handle:
                    os.fsync(handle.fileno())
            sync_folder(temporary)
            if path.exists():
                os.replace(path, old)  # no portable call exchanges two folders; for a moment there is none at `path`
            try:
                os.replace(temporary, path)
            except OSError:
                if old.exists():
                    os.replace(old, path)
                raise
            sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def failures_said(path: Path) -> Iterator[None]:
    """Inside, a system's refusal to write becomes WorkFailed, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise WorkFailed(
            f"could not write {path}: {error.strerror}; free disk space or name another place with `out`"
        ) from error


@contextlib.contextmanager
def only_writer(folder: Path, refusal: str) -> Iterator[None]:
    """Holds the folder's lock while it is written. Raises UltronError(refusal) if another process holds it."""
    with open(make_folder(folder) / "lock", "w") as handle:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UltronError(refusal) from None
        yield


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
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


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
