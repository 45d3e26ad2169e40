"""Runs several pieces of work at a time, each with its own progress bar and one for all of them; Ctrl-C ends all."""

import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Never, TypeVar

from ultron_cli.console import bar_class, log, settings
from ultron_cli.datasets.download.fetching import Stopped
from ultron_cli.errors import WorkFailed
from ultron_cli.stops import undisturbed

if TYPE_CHECKING:
    from tqdm import tqdm

R = TypeVar("R")
GIVE_UP_AFTER = 3  # failures, then the server or the network is down for the rest as well
PATIENCE_S = 5.0


class Bars:
    """A bar of bytes for each file under way, below one of all; shown only on a terminal and never with -q."""

    def __init__(self, what: str, total: int | None, n_at_once: int) -> None:
        self._lock = threading.Lock()
        self._free = list(range(n_at_once, 0, -1))
        self._hidden = settings.verbosity < 0 or not sys.stderr.isatty()
        self._make = bar_class()
        self._all = self._bar(what, total, 0)

    def _bar(self, what: str, total: int | None, position: int) -> "tqdm[Never]":
        return self._make(
            total=total,
            desc=what,
            unit="B",
            unit_scale=True,
            position=position,
            leave=not position,
            disable=self._hidden,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def of_file(self, what: str) -> tuple[Callable[[int, int | None], None], Callable[[], None]]:
        """(on_progress, close) of a new bar; on_progress takes (bytes that have arrived, bytes in all or None)."""
        if self._hidden:  # a bar that is disabled has no numbers either
            return lambda done, total: None, lambda: None
        with self._lock:
            position = self._free.pop() if self._free else 1
            bar = self._bar(what, None, position)
        first = True

        def on_progress(done: int, total: int | None) -> None:
            nonlocal first
            bar.total = total
            with self._lock:
                # Bytes of an earlier run are there, but say nothing of the speed of this one.
                if first:
                    self._all.initial += done
                self._all.update(done - bar.n)
            bar.update(done - bar.n)
            first = False

        def close() -> None:
            with self._lock:
                bar.close()
                self._free.append(position)

        return on_progress, close

    def close(self) -> None:
        """Ends all bars."""
        self._all.close()


@dataclass
class Outcome(Generic[R]):
    """Results in the order they came, and failures by the name of their work."""

    results: list[R] = field(default_factory=list)
    failures: dict[str, WorkFailed] = field(default_factory=dict)


def run_at_once(work: Sequence[tuple[str, Callable[[], R]]], n_at_once: int, stop: threading.Event) -> Outcome[R]:
    """Runs named pieces of work in `n_at_once` threads. A WorkFailed is kept and the rest goes on, until three have
    failed.

    Any other exception, and Ctrl-C, sets `stop`, waits a few seconds for the threads and is raised. Threads are
    daemons: one that waits on a dead connection does not hold the program, and whatever it leaves is continued by the
    next run.
    """
    waiting: queue.SimpleQueue[tuple[str, Callable[[], R]]] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[str, R | BaseException]] = queue.SimpleQueue()
    for item in work:
        waiting.put(item)

    def worker() -> None:
        while not stop.is_set():
            try:
                name, piece = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((name, piece()))
            except BaseException as error:
                finished.put((name, error))

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(n_at_once, len(work)))]
    outcome: Outcome[R] = Outcome()
    try:
        with undisturbed():
            for thread in threads:
                thread.start()
        for _ in work:
            name, result = finished.get()
            if isinstance(result, WorkFailed):
                log.debug("%s: %s", name, result)
                outcome.failures[name] = result
                if len(outcome.failures) >= GIVE_UP_AFTER:
                    break
            elif isinstance(result, BaseException):
                raise result
            else:
                outcome.results.append(result)
    except Stopped:
        pass  # set by the one that is raised below
    finally:
        stop.set()
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(PATIENCE_S / max(1, len(threads)))
    return outcome
