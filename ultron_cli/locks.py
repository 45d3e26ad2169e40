"""One writer per folder: a lock that works over network file systems too, ends with its holder, and says who that is.

The lock is POSIX's record lock (fcntl), which NFS knows and which the system takes back when a process dies. The file
it lies on says host, process, time and command, for the message and where a file system has no such locks: there the
file itself is the lock, stale once its process is gone.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder
from ultron_cli.output_files import ANOTHER_PLACE, failures_said
from ultron_cli.processes import command_text, is_alive, machine_mark
from ultron_cli.schema.texts import parse_json
from ultron_cli.schema.values import Misfit, fit
from ultron_cli.stops import to_the_end, undisturbed

try:
    import fcntl
except ImportError:
    # Windows has no such locks; there two writers at a time are the user's to avoid.
    fcntl = None  # type: ignore[assignment]  # told apart by `if fcntl` where it is used

log = logging.getLogger("ultron")

LOCK_FILE = ".ultron-lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
LOOK_EVERY_S = 0.05
UNNAMED = "a process that has just begun"  # and has not written who it is, or cannot
SAID_AFTER_S = 1.0  # of waiting for another writer

# Record locks do not tell apart the threads of a process.
_held: set[str] = set()
_held_guard = threading.Lock()


@dataclass(frozen=True)
class Writer:
    """Who writes a folder."""

    host: str
    pid: int
    since: str  # ISO 8601, UTC
    command: str
    mark: str  # of the machine, see machine_mark

    @classmethod
    def this_process(cls) -> "Writer":
        """This one, from now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, command_text(), machine_mark())

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended."""
        return self.mark == machine_mark() and not is_alive(self.pid)

    def __str__(self) -> str:
        if not self.pid:
            return UNNAMED
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"


def lock_path(place: Path, *, beside: bool = False) -> Path:
    """The file on which the lock of a folder lies: in it, or (beside) next to a file or folder that is replaced as a
    whole."""
    if not beside or not place.name:  # the root folder has nothing beside it
        return place / LOCK_FILE
    return place.with_name(f".{os.fsdecode(os.fsencode(place.name)[:200])}{LOCK_FILE}")


@contextlib.contextmanager
def only_writer(place: Path, doing: str, *, beside: bool = False, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a folder while it is written; the folder is made.

    doing: what another writer does then, for the message. beside: the lock lies next to `place`, which may be a file.
    wait: waits for another writer. Raises UltronError, naming the other writer, if there is one.
    """
    path = lock_path(Path(os.path.realpath(place)), beside=beside)
    make_folder(path.parent)
    started_s = time.monotonic()
    is_said = False
    lock: int | Writer | None = None
    try:
        while True:
            with undisturbed():
                lock = _take_for_process(path)
            if not isinstance(lock, Writer):
                break
            if not wait:
                raise UltronError(f"{doing}: {lock}; wait for it", ANOTHER_PLACE)
            if not is_said and time.monotonic() - started_s > SAID_AFTER_S:
                log.info("waiting, as %s: %s", doing, lock)
                is_said = True
            time.sleep(LOOK_EVERY_S)
        yield
    finally:
        if isinstance(lock, int):
            _give_back(path, lock)


def _give_back(path: Path, lock: int) -> None:
    """The name goes first: who opens it from now on makes a new file, and who has it open sees that it is gone."""
    to_the_end(
        lambda: _remove(path, lock),
        lambda: _close(lock),
        lambda: _give_back_in_process(str(path)),
    )


def _take_for_process(path: Path) -> int | Writer:
    """The open lock file (held), or who holds it, a thread of this process maybe."""
    holder = _take_in_process(str(path))
    if holder is not None:
        return holder
    try:
        lock = _take(path)
    except BaseException:
        _give_back_in_process(str(path))
        raise
    if isinstance(lock, Writer):
        _give_back_in_process(str(path))
    return lock


def _remove(path: Path, lock: int) -> None:
    """Removes the lock file that is open, and no newer one of another process."""
    if _is_still_there(lock, path):
        with contextlib.suppress(OSError):
            path.unlink()


def _close(lock: int) -> None:
    with contextlib.suppress(OSError):  # closed already
        os.close(lock)


def _take_in_process(key: str) -> Writer | None:
    """Reserves the lock among the threads of this process; the holder if it is taken."""
    with _held_guard:
        if key in _held:
            return Writer.this_process()
        _held.add(key)
        return None


def _give_back_in_process(key: str) -> None:
    with _held_guard:
        _held.discard(key)


def _take(path: Path) -> int | Writer:
    """The open lock file (held), or who holds it."""
    while True:
        with failures_said(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = _lock(handle, path)
            if holder is not None:
                os.close(handle)
                return holder
            if _is_still_there(handle, path):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed it between our opening and our locking
    text = json.dumps(asdict(Writer.this_process())).encode()
    with contextlib.suppress(OSError):  # on a full disk it is a lock all the same
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text)
    return handle


def _lock(handle: int, path: Path) -> Writer | None:
    """Locks the open file; the holder if it is another."""
    earlier = _writer_in(handle)
    if fcntl is None:
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return earlier or Writer("", 0, "", "", "")
        if error.errno not in NO_LOCKS:
            raise
        # No locks on this file system: what the file says is the lock.
        if earlier is not None and not earlier.is_gone:
            return earlier
    if earlier is not None:
        log.info("%s was left by %s, which has ended: going on", path, earlier)
    return None


def _writer_in(handle: int) -> Writer | None:
    """Who the lock file names; None where it is empty or cannot be read."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        return fit(parse_json(os.read(handle, 4096)), Writer)
    except (OSError, Misfit):
        return None


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
