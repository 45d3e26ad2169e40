"""Files that are whole or absent: written under a temporary name in the same folder, flushed to disk, renamed."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultron_cli.errors import UltronError, WorkFailed


def make_folder(folder: Path) -> Path:
    """Creates `folder` with its parents and proves that files can be made in it. Raises UltronError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"
        probe.touch(exist_ok=False)
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UltronError(f"{folder} must be a folder but a file is in the way; name another with --out") from None
    except OSError as error:
        raise UltronError(f"cannot write in {folder} ({error.strerror}); name another folder with --out or --workspace") from error
    return folder


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well it is flushed and renamed to `path`.

    On an error nothing stays behind and an older file at `path` is untouched. Raises WorkFailed when the disk is full,
    UltronError where the folder cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise WorkFailed(f"could not write {path}: {error.strerror}; free disk space or name another place with --out") from error
    finally:
        temporary.unlink(missing_ok=True)


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
    """Writes UTF-8 text atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_json(path: Path, what: str) -> Any:
    """Parses a JSON file. Raises UltronError naming `what` it should be, if missing or not JSON."""
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UltronError(f"{what} {path} does not exist; check the path") from None
    except (ValueError, OSError) as error:
        raise UltronError(f"{what} {path} is not readable JSON ({error}); make it again") from error
