"""Runs what reads a stranger's file with a C library in a child process, where it may crash, loop or fill memory.

The child is a fork: it starts in milliseconds and has every module. Where a fork crashes, a fresh process is asked too,
as a library with threads of its own (gRPC) can bring a fork down. The child stays for the next file and ends when it
has had nothing to do for a while, which is longer for a fresh one: it holds little, and takes a second to start. While
there is a fork, its parent copies each page that it writes, so that a server has a fresh child (`lasting_child`). What
a child answers is plain data: one that a file has taken over can lie but run nothing here.
"""

import contextlib
import errno
import faulthandler
import math
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from ultron_cli.errors import UltronError
from ultron_cli.processes import end_with_parent

CPU_S = 1  # a header is read in milliseconds
WALL_S = 60.0  # a disk may be slow; a loop ends by its time of computing
MEMORY_BYTES = 1 << 30
LOOK_S = 1.0  # between two looks at what the child has answered
IDLE_S = 2.0  # a fork holds the memory of the moment at which it was made; not for long
FRESH_IDLE_S = 60.0
KEPT_BYTES = 1 << 27  # of memory, at most, that a child may have kept of its earlier files
BLOCK_BYTES = 1 << 20
HAVE_THREADS = frozenset({"grpc", "onnxruntime"})  # of their own, which a fork would wait for
LIBRARIES = ("faiss", "h5py", "onnxruntime", "pyarrow.parquet", "scipy.io")  # that functions read files with
CAN_FORK = hasattr(os, "fork")


class ReaderDied(Exception):
    """The child ended without an answer. The text says how, as the end of a sentence about what it did."""


class ReaderStopped(ReaderDied):
    """The child took too long, which need not be a fault."""


class ReaderFailed(Exception):
    """The function raised an exception in the child; the text is that of the exception, in one line."""

    def __init__(self, text: str, kind: str, errno: int | None) -> None:
        super().__init__(text)
        self.kind = kind  # name of the exception's class
        self.errno = errno  # of an OSError


def in_child(
    function: Callable[..., Any], *arguments: object, cpu_s: int = CPU_S, memory_bytes: int = MEMORY_BYTES
) -> Any:
    """What a function of a module returns for the arguments, computed in a child process.

    The result is made of None, booleans, numbers, text, bytes, lists and dictionaries. cpu_s: seconds of computing that
    it may use; memory_bytes: what it may take beside what this process has. Raises UltronError if the function does,
    ReaderFailed for any other exception, ReaderDied if the child crashed or used up its limits. Where the system cannot
    fork (Windows) the function runs in this process.
    """
    if not CAN_FORK:
        return _outcome(_answer(function, arguments))
    request = pickle.dumps((function, arguments, cpu_s, memory_bytes, _working_folder()))
    with _lock:
        try:
            may_fork = not _lasts and HAVE_THREADS.isdisjoint(sys.modules)
            answer = _answer_from(request, _forked if may_fork else _started_fresh)
        except ReaderStopped:
            raise
        except ReaderDied:
            answer = _answer_from(request, _started_fresh)
    try:
        return _outcome(answer)
    except ReaderFailed as failure:
        if failure.errno != errno.EBADF:
            raise
    # HDF5 in a fork takes a file for open that this process has open, and the fork has closed.
    with _lock:
        _end_child()
        answer = _answer_from(request, _started_fresh)
    return _outcome(answer)


@contextlib.contextmanager
def lasting_child() -> Iterator[None]:
    """Inside, the child is a fresh process, begun at once, that stays however long it has nothing to do: for a process
    that holds much memory and computes, such as a server."""
    global _child, _lasts
    if not CAN_FORK:
        yield
        return
    try:
        with _lock:
            _end_child()
            _lasts = True
            _child = _started_fresh()
        yield
    finally:
        _lasts = False
        # A child that is at work is not waited for: it ends with this process.
        if _lock.acquire(blocking=False):
            try:
                _end_child()
            finally:
                _lock.release()


def _working_folder() -> str | None:
    """The folder that relative paths are of; None where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _end_child() -> None:
    global _child
    child, _child = _child, None
    if child is not None:
        with contextlib.suppress(ReaderDied):
            child.end()


def _answer_from(request: bytes, start: Callable[[], "_Child"]) -> bytes:
    """The answer of the child that is there, or else of a new one. Raises ReaderDied."""
    global _child
    if _child is not None and _child.libraries != _loaded_libraries():
        _end_child()  # it would load the library once its memory is limited, which some do not stand
    child, _child = _child, None
    answer = child.answer(request) if child is not None else None
    if child is None or answer is None:  # it has ended as there was nothing to do
        child = start()
        answer = child.answer(request)
    if answer is None:
        raise ReaderDied("ended without an answer")
    _child = child
    return answer


@dataclass(frozen=True)
class _Child:
    """A child as its parent sees it."""

    pid: int
    line: socket.socket
    libraries: list[str]  # that were loaded when it was made

    def answer(self, request: bytes) -> bytes | None:
        """Its answer; None if it had ended before it was asked. Raises ReaderDied if it ends meanwhile, or has to be
        ended."""
        is_alive = False
        try:
            self.line.sendall(len(request).to_bytes(8, "big") + request)
            answer = self._received()
            is_alive = answer is not None
            return answer
        except ConnectionError:
            return self.end()
        finally:
            if not is_alive:  # ended, or this process was interrupted while it waited
                self.end()

    def _received(self) -> bytes | None:
        parts = bytearray()
        n_bytes = None
        waited_s = 0.0
        while n_bytes is None or len(parts) < n_bytes + 8:
            # Look by look: while both are stopped (Ctrl-Z), for hours perhaps, one look goes by.
            if not select.select([self.line], [], [], LOOK_S)[0]:
                waited_s += LOOK_S
                if waited_s >= WALL_S:
                    raise ReaderStopped(f"did not end within {WALL_S:.0f} s")
                continue
            part = self.line.recv(BLOCK_BYTES)
            if not part:
                return self.end()
            parts += part
            if len(parts) >= 8:
                n_bytes = int.from_bytes(parts[:8], "big")
        return bytes(parts[8:])

    def end(self) -> None:
        """Ends it. Raises ReaderDied if it died of a signal other than this one."""
        if self.line.fileno() < 0:
            return
        self.line.close()
        with contextlib.suppress(ProcessLookupError):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, 0)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
                raise ReaderStopped("computed for seconds and was stopped")
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
                raise ReaderDied(f"crashed ({signal.Signals(os.WTERMSIG(status)).name})")


_child: _Child | None = None
_lasts = False
_lock = threading.Lock()


def _forget() -> None:
    """In another fork of this process: the child and the lock are those of the parent."""
    global _child, _lock
    _child = None
    _lock = threading.Lock()


if CAN_FORK:
    os.register_at_fork(after_in_child=_forget)


def _loaded_libraries() -> list[str]:
    return [name for name in LIBRARIES if name in sys.modules]


def _forked() -> _Child:
    line, far_end = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _serve(far_end, IDLE_S)
    far_end.close()
    return _Child(pid, line, _loaded_libraries())


def _started_fresh() -> _Child:
    line, far_end = socket.socketpair()
    # Loaded before memory is limited, as in a fork.
    libraries = _loaded_libraries()
    # Not by PYTHONPATH: a types.py beside a user's script would stand for Python's own while Python starts.
    source = f"import sys; sys.path[:] = {[path or os.getcwd() for path in sys.path]!r}; "
    source += f"import {', '.join(['os', *libraries])}; from ultron_cli import guarded; "
    source += f"guarded.serve_at_stdin({None if _lasts else FRESH_IDLE_S})"
    program = [sys.executable, "-c", source]
    at_stdin = [(os.POSIX_SPAWN_DUP2, far_end.fileno(), 0)]
    # Arrow's own allocator would take more address space than a child may have.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    pid = os.posix_spawn(sys.executable, program, environment, file_actions=at_stdin)
    far_end.close()
    return _Child(pid, line, libraries)


def serve_at_stdin(idle_s: float | None) -> NoReturn:
    """What a fresh child does; its line to the parent is its standard input."""
    _serve(socket.socket(fileno=os.dup(0)), idle_s)


def _serve(line: socket.socket, idle_s: float | None) -> NoReturn:
    """What the child does. It never returns into the program that it was copied from. idle_s: after which it ends, if
    nothing is asked; None stays."""
    try:
        faulthandler.disable()  # a crash here is an answer and no bug of this program
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Locks that the parent holds would be held on by the child's copies of its open files.
        os.closerange(3, line.fileno())
        os.closerange(line.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        end_with_parent()  # also in the middle of a file
        _answer_requests(line, idle_s)
    finally:
        os._exit(0)


def _answer_requests(line: socket.socket, idle_s: float | None) -> None:
    """Until the parent ends or asks nothing for so many seconds, if not None."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stream = line.makefile("rwb")
    held_bytes = virtual_bytes() or 0
    while select.select([line], [], [], idle_s)[0]:
        header = stream.read(8)
        if len(header) < 8:
            return
        bytes_before = virtual_bytes() or 0
        function, arguments, cpu_s, memory_bytes, folder = pickle.loads(stream.read(int.from_bytes(header, "big")))
        held_bytes += max(0, (virtual_bytes() or 0) - bytes_before)  # modules of the function
        if folder is not None:  # the parent may have gone to another since the child began
            os.chdir(folder)
        _, hard_s = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + cpu_s, hard_s))
        with limited_memory(memory_bytes, held_bytes):
            answer = _answer(function, arguments)
        # Not while it waits, nor while it loads the modules of the next function.
        resource.setrlimit(resource.RLIMIT_CPU, (hard_s, hard_s))
        stream.write(len(answer).to_bytes(8, "big") + answer)
        stream.flush()
        if (virtual_bytes() or 0) > held_bytes + KEPT_BYTES:
            return  # the next file has a child of its own, with all the memory that one may have


def _answer(function: Callable[..., Any], arguments: tuple[object, ...]) -> bytes:
    try:
        answer = ("result", function(*arguments), None)
    except UltronError as error:
        answer = ("UltronError", "\0".join((error.message, *error.ways)), None)
    except Exception as error:  # whatever a library raises for a damaged file is told to the parent
        answer = (type(error).__name__, one_line(error, 600), getattr(error, "errno", None))
    kind, value, errno = answer
    # Messages as bytes: they may hold names of files that are not UTF-8.
    return msgspec.msgpack.encode((kind, value.encode("utf-8", "surrogatepass") if kind != "result" else value, errno))


def _outcome(answer: bytes) -> Any:
    kind, value, errno = msgspec.msgpack.decode(answer)
    if kind == "result":
        return value
    message = value.decode("utf-8", "surrogatepass")
    if kind == "UltronError":
        raise UltronError(*message.split("\0"))
    raise ReaderFailed(message, kind, errno)


def one_line(error: Exception, n_characters: int = 120) -> str:
    """What an exception says, in one line without control characters, cut."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text[:n_characters])


@contextlib.contextmanager
def limited_memory(n_bytes: int, held_bytes: int | None = None) -> Iterator[None]:
    """Inside, this process can take so many bytes more than it has; what asks for more gets a MemoryError. Without
    effect where the system knows no such limit. held_bytes: what it had at another time; None is now."""
    held_bytes = held_bytes or virtual_bytes()
    if held_bytes is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = [held_bytes + n_bytes, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def virtual_bytes() -> int | None:
    """The address space of this process; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
