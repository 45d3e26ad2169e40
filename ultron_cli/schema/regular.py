"""Opens regular files only, and none above a size: a pipe or a device never ends or never answers."""

import os
import stat
from pathlib import Path

from ultron_cli.errors import UltronError

MOST_BYTES = 64 << 20  # of a file that describes something
MOST_LIST_BYTES = 2 << 30  # of a file with a line or an entry for every photo


def open_regular(path: Path, what: str, *, if_absent: str, most_bytes: int) -> int:
    """A descriptor of a regular file, open for reading.

    Raises UltronError for a pipe, a device or a folder, which would never end or never answer, and for a file that is
    absent, barred or larger than `most_bytes`.
    """
    try:
        # Without the flag a pipe that nobody writes to waits for ever; what is no regular file is not read anyway.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UltronError(f"{what} {path} does not exist; {if_absent}") from None
    except OSError as error:
        raise UltronError(f"{what} {path} cannot be opened ({error.strerror}); {if_absent}") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or a socket"
        raise UltronError(f"{what} {path} must be a file, found {kind}; {if_absent}")
    if status.st_size > most_bytes:
        os.close(handle)
        raise UltronError(
            f"{what} {path} may have {most_bytes:,} bytes at most, found {status.st_size:,}: it is not what it is "
            f"said to be; {if_absent}"
        )
    return handle


def read_bytes(path: Path, what: str, *, if_absent: str = "check the path", most_bytes: int = MOST_BYTES) -> bytes:
    """All bytes of a regular file. Raises as open_regular."""
    with open(open_regular(path, what, if_absent=if_absent, most_bytes=most_bytes), "rb") as handle:
        n_bytes = os.fstat(handle.fileno()).st_size
        data = handle.read(n_bytes + 1)
        # A file may grow, and those of /proc say that they are empty.
        while n_bytes < len(data) <= most_bytes and (more := handle.read(1 << 20)):
            data += more
    if len(data) > most_bytes:
        raise UltronError(f"{what} {path} may have {most_bytes:,} bytes at most; {if_absent}")
    return data
