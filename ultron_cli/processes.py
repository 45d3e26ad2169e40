"""Which processes are alive: owners of files that are being written, parents of workers, and who is told to stop."""

import atexit
import contextlib
import hashlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from ultron_cli.errors import one_line

PARENT_LOOK_S = 0.5  # between two looks at the parent where nothing tells of its end
LAUNCHER_GRACE_S = 60.0  # to save in, when the launcher is gone
STARTED = 19  # place of the start, in ticks since boot, in /proc/PID/stat counted from the state
SAME_REQUEST_S = 1.0  # a terminal that closes and its shell send a SIGHUP each
NOTHING_TOLD = "nothing half written is left; the same command can be run again"


class StoppedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: what Ctrl-C does, with the signal's name as text."""


@contextlib.contextmanager
def way_to_go_on(tell: Callable[[], str]) -> Iterator[None]:
    """Inside, whatever stops the work (Ctrl-C, a signal) carries what is kept of it and how it goes on, for the line
    that is said then. tell: gives that clause, or an empty one where nothing is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if clause := tell():
            stop.add_note(clause)
        raise


def to_the_end(*steps: Callable[[], object]) -> None:
    """Takes all steps of clearing away; what stops the work meanwhile (Ctrl-C, a signal) is raised when they are done.

    A step that is stopped is taken again, so that it must bear to be taken twice.
    """
    last_stop = None
    for step in steps:
        for _ in range(2):
            try:
                step()
                break
            except KeyboardInterrupt as stop:
                last_stop = stop
    if last_stop is not None:
        raise last_stop


def stop_line(stop: KeyboardInterrupt) -> str:
    """What is said of stopped work: by what, what is kept, how it goes on."""
    what = f"stopped by {stop}" if isinstance(stop, StoppedBySignal) else "interrupted"
    return one_line(f"{what}: {'; '.join(getattr(stop, '__notes__', ())) or NOTHING_TOLD}")


@cache
def machine_mark() -> str:
    """8 hexadecimal digits that tell apart where process numbers mean different processes: host, boot, container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is alive; one that has ended and whose parent has not taken note is not. Where
    that cannot be asked without harm (Windows), it is said to be."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    stat = _stat_of(pid)
    return not stat or stat[0] not in ("Z", "X")


def start_time(pid: int) -> float | None:
    """When a process of this machine began, in seconds since 1970, to a second or two; None where that is not known."""
    stat = _stat_of(pid)
    if not stat:
        return None
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        ticks = int(stat[STARTED])
        with open("/proc/stat", encoding="ascii") as lines:
            boot = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
        return boot + ticks / os.sysconf("SC_CLK_TCK")
    return None


def _stat_of(pid: int) -> list[str]:
    """What Linux says of a process, from its state on; empty where it says nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def start_worker(*_: object) -> None:
    """What every worker process does first: Ctrl-C and the end of a terminal, which all processes hear, are left to the
    parent, and the worker ends as soon as its parent is gone. It takes any arguments, as initialisers must."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    end_with_parent()


def start_loader_worker(*_: object) -> None:
    """As start_worker, for a worker of torch's DataLoader: SIGTERM, which schedulers send to all processes, is left to
    the parent as well, which saves first and then ends its workers.

    The parent must call kill_workers_at_exit: multiprocessing's own SIGTERM at exit would be waited for, for ever.
    """
    start_worker()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@cache
def kill_workers_at_exit() -> None:
    """Has the workers that are left when this process ends killed, whatever signals they hear: an exception whose
    traceback is kept keeps a DataLoader, and so its workers, alive."""
    import multiprocessing
    import multiprocessing.util  # its own handler is registered before ours, and so is called after it

    def kill() -> None:
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(kill)


def end_with_parent() -> None:
    """Ends this process as soon as its parent is gone, however that ended.

    A worker of multiprocessing waits on the pipe that its parent holds open; any other process looks at its parent's
    number.
    """
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is None:
        _watch(_until_parent_changes(os.getppid()))
        return
    import multiprocessing.connection

    sentinel = parent.sentinel
    _watch(lambda: multiprocessing.connection.wait([sentinel]))


def stop_with_launcher() -> None:
    """Sends this process SIGTERM once its parent is gone: a training then saves before it ends. What hangs meanwhile,
    for example in a wait for another process, ends after LAUNCHER_GRACE_S."""

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAUNCHER_GRACE_S)
        os._exit(1)

    _watch(_until_parent_changes(os.getppid()), stop)


def _until_parent_changes(parent_pid: int) -> Callable[[], object]:
    def wait() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_LOOK_S)

    return wait


def _watch(wait: Callable[[], object], then: Callable[[], object] = lambda: os._exit(1)) -> None:
    """Calls `then` when `wait` returns, from a thread of its own."""

    def run() -> None:
        with contextlib.suppress(OSError):  # a pipe that cannot be waited on is as good as closed
            wait()
        then()

    threading.Thread(target=run, daemon=True, name="parent-watch").start()


@contextlib.contextmanager
def signals_interrupt() -> Iterator[list[str]]:
    """Inside, SIGTERM and SIGHUP raise StoppedBySignal in the main thread, as Ctrl-C raises KeyboardInterrupt: what is
    half written is cleared away, and a second signal that follows at once does not disturb that. A signal that the
    caller ignores (nohup) stays ignored.

    Yields the names of the signals that have arrived.
    """
    arrived: list[str] = []
    heard_s = -math.inf
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal heard_s
        is_same_request = time.monotonic() - heard_s < SAME_REQUEST_S
        heard_s = time.monotonic()
        arrived.append(signal.Signals(number).name)
        if is_same_request:
            return
        raise StoppedBySignal(arrived[-1])

    handlers = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            handlers[number] = signal.signal(number, stop)
    try:
        yield arrived
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def command_text() -> str:
    """How this process was started, for people."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
