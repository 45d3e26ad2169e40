"""What asks a command to stop: Ctrl-C, SIGTERM, SIGHUP. It becomes an exception where that leaves nothing half done."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from ultron_cli.errors import one_line

SAME_REQUEST_S = 1.0  # a terminal that closes and its shell send a SIGHUP each
TRIED_AGAIN_S = 0.002  # after a moment at which an exception would be lost
# Files of code that is about to enter or leave a block, or to take the first step of clearing away.
NOT_STOPPED = (contextlib.__file__, __file__)
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


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The stop of which a library made another exception."""
    passed: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in passed:
        if isinstance(cause, KeyboardInterrupt):
            return cause
        passed.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


class _Waiting:
    """How many `undisturbed` blocks the main thread is in, and the stop that waits for their end."""

    n_blocks = 0
    stop: KeyboardInterrupt | None = None


class undisturbed:
    """Inside, what asks to stop waits for the end of the block: for what is not to be left half done, and for libraries
    that lose an exception or make another of it. A second Ctrl-C does not wait. Outside signals_interrupt, and in other
    threads, it changes nothing."""

    def __enter__(self) -> None:
        self.is_main = threading.current_thread() is threading.main_thread()
        _Waiting.n_blocks += self.is_main

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        _Waiting.n_blocks -= self.is_main
        if self.is_main and not _Waiting.n_blocks and _Waiting.stop is not None:
            stop, _Waiting.stop = _Waiting.stop, None
            raise stop


@contextlib.contextmanager
def signals_interrupt() -> Iterator[list[str]]:
    """Inside, SIGTERM and SIGHUP raise StoppedBySignal in the main thread, as Ctrl-C raises KeyboardInterrupt: what is
    half written is cleared away, and a second signal that follows at once does not disturb that. A signal that the
    caller ignores (nohup) stays ignored. Not within `undisturbed`, nor where the exception would be lost: in what
    Python calls on its own (`__del__`, after a fork), while a with statement is entered or left, and while `to_the_end`
    goes from step to step.

    Forked processes do not hear them until they say how, as their parent does. Yields the names of the signals that
    have arrived.
    """
    arrived: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    heard_s = -math.inf
    pid = os.getpid()
    has_timer = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal heard_s
        if os.getpid() != pid:
            return
        is_same_request = number != signal.SIGINT and time.monotonic() - heard_s < SAME_REQUEST_S
        heard_s = time.monotonic()
        name = signal.Signals(number).name
        is_second = number == signal.SIGINT and name in arrived
        arrived.append(name)
        if not is_same_request:
            raise_now_or_later(
                KeyboardInterrupt() if number == signal.SIGINT else StoppedBySignal(name), frame, is_second
            )

    def raise_now_or_later(interrupt: KeyboardInterrupt, frame: FrameType | None, is_second: bool = False) -> None:
        if _Waiting.n_blocks and not is_second:
            _Waiting.stop = interrupt
        elif has_timer and frame is not None and frame.f_code.co_filename in NOT_STOPPED:
            again(interrupt)
        else:
            raise interrupt

    def again(interrupt: KeyboardInterrupt) -> None:
        _Waiting.stop = interrupt
        signal.setitimer(signal.ITIMER_REAL, TRIED_AGAIN_S)

    def on_timer(number: int, frame: FrameType | None) -> None:
        interrupt, _Waiting.stop = _Waiting.stop, None
        if interrupt is not None and os.getpid() == pid:
            raise_now_or_later(interrupt, frame)

    def on_lost(lost: "sys.UnraisableHookArgs") -> None:
        if has_timer and isinstance(lost.exc_value, KeyboardInterrupt) and os.getpid() == pid:
            again(lost.exc_value.with_traceback(None))
        else:
            before_lost(lost)

    handlers = {}
    for name, usual in (
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
        ("SIGINT", signal.default_int_handler),
    ):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is usual:
            handlers[number] = signal.signal(number, stop)
    if has_timer:
        handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_timer)
    before_lost, sys.unraisablehook = sys.unraisablehook, on_lost
    _Waiting.stop = None
    try:
        yield arrived
    finally:
        if has_timer:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = before_lost
        for number, handler in handlers.items():
            signal.signal(number, handler)
