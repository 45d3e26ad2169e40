"""Which processes are alive: owners of files that are being written, parents of workers; how workers start and end."""

import atexit
import contextlib
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ultron_cli.stops import undisturbed

PARENT_LOOK_S = 0.5  # between two looks at the parent where nothing tells of its end
# What all processes of a terminal hear.
LEFT_TO_PARENT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
LAUNCHER_GRACE_S = 60.0  # to save in, when the launcher is gone
STARTED = 19  # place of the start, in ticks since boot, in /proc/PID/stat counted from the state


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
    for number in LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if LEFT_TO_PARENT and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    end_with_parent()


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Inside, processes, or what they share, are made by multiprocessing, which bears no exception meanwhile: what asks
    to stop waits. A process hears of Ctrl-C and of the end of a terminal only when it says so itself, by start_worker;
    the process in which multiprocessing notes what is to be cleared away, never."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        with undisturbed():
            yield
        return
    from multiprocessing import resource_tracker

    with undisturbed():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
        try:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)  # it has unblocked what it blocked
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes the end of a worker for an accident
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


def command_text() -> str:
    """How this process was started, for people."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
