"""Performs tasks in this process, or in several beside it, which go on when one of them dies."""

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from ultron_cli import user_code
from ultron_cli.console import WarnedOnce, log, quiet_parts, start_log
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_threads
from ultron_cli.memory import memory_budget, set_memory_budget
from ultron_cli.processes import start_worker, starting_workers
from ultron_cli.sweep.steps import Place
from ultron_cli.sweep.tasks import Task

END_S = 5.0  # that a worker has to end in, once it has nothing more to do


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task ended."""

    task: Task
    result: Path | UltronError  # or why it failed
    trace: str = ""  # of a fault that is a bug


class Performer(Protocol):
    """What tasks are handed to."""

    @property
    def n_idle(self) -> int:
        """How many tasks it takes at once now."""
        ...

    def begin(self, task: Task, results: Mapping[str, Path]) -> None:
        """Takes a task. results: of the tasks it needs, by key."""
        ...

    def outcome(self) -> Outcome:
        """Of a task that was begun, as soon as it is over."""
        ...


def outcome_of(task: Task, results: Mapping[str, Path], place: Place) -> Outcome:
    """Performs a task; whatever it raises becomes its outcome, as other cells may go on without it."""
    try:
        return Outcome(task=task, result=task.perform(results, place))
    except UltronError as error:
        return Outcome(task=task, result=error)
    except Exception as error:
        if line := user_code.fault_of_user(error):
            return Outcome(task=task, result=UltronError(line))
        bug = UltronError(f"{type(error).__name__}: {error}; its traceback stands above")
        return Outcome(task=task, result=bug, trace=traceback.format_exc())


class ThisProcess:
    """Performs one task at a time, here."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._begun: tuple[Task, Mapping[str, Path]] | None = None
        self._warned_once = WarnedOnce()

    @property
    def n_idle(self) -> int:
        """1 unless a task was begun."""
        return 0 if self._begun else 1

    def begin(self, task: Task, results: Mapping[str, Path]) -> None:
        """Takes a task, which is performed when its outcome is asked for."""
        self._begun = task, results

    def outcome(self) -> Outcome:
        """Of the task that was begun."""
        assert self._begun is not None
        task, results = self._begun
        self._begun = None
        with quiet_parts(self._warned_once):
            return outcome_of(task, results, self._place)


class _Worker:
    """A process, and the task it is at."""

    def __init__(self, place: Place, n_workers: int) -> None:
        context = get_context("spawn")  # not forked: the caller may hold threads or a GPU
        self.line, far_end = context.Pipe()
        arguments = (far_end, place, memory_budget(), n_workers, log.level, user_code.permissions())
        self.process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=True)
        with starting_workers(), _threads_of_children(max(1, n_threads() // n_workers)):
            self.process.start()
        far_end.close()
        self.task: Task | None = None


@contextlib.contextmanager
def _threads_of_children(n: int) -> Iterator[None]:
    """Inside, processes that start compute with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(
    line: Connection,
    place: Place,
    max_memory: int,
    n_workers: int,
    log_level: int,
    permissions: tuple[Sequence[str], bool],
) -> None:
    """What a worker does until its line is closed."""
    start_worker()
    user_code.take_over(permissions)
    start_log(0)
    log.setLevel(log_level)
    set_memory_budget(max_memory, n_workers)
    with quiet_parts(WarnedOnce()), contextlib.suppress(EOFError):
        while True:
            task, results = line.recv()
            line.send(outcome_of(task, results, place))


class Workers:
    """Processes that perform a task each. One that dies, for example for want of memory, fails its task alone."""

    def __init__(self, place: Place, n_workers: int) -> None:
        self._place = place
        self._n = n_workers
        self._workers: list[_Worker] = []

    @property
    def n_idle(self) -> int:
        """Processes without a task, those included that are still to be started."""
        return self._n - sum(worker.task is not None for worker in self._workers)

    def begin(self, task: Task, results: Mapping[str, Path]) -> None:
        """Hands a task to a process that has none, which is started where there is none yet."""
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            worker = _Worker(self._place, self._n)
            self._workers.append(worker)
        worker.task = task
        with contextlib.suppress(OSError):  # it has died, which its outcome says
            worker.line.send((task, {key: results[key] for key in task.needs.values()}))

    def outcome(self) -> Outcome:
        """Of the first task that is over."""
        busy = {worker.line: worker for worker in self._workers if worker.task is not None}
        line = connection.wait(list(busy))[0]
        worker = busy[line]  # type: ignore[index]  # what is waited for are its keys
        task = worker.task
        assert task is not None
        try:
            outcome: Outcome = worker.line.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join(END_S)
            died = f"its process died (exit code {worker.process.exitcode}; -9 is often want of memory)"
            return Outcome(task=task, result=UltronError(f"{died}; compute fewer cells at once", "set `workers` to 1"))
        worker.task = None
        return outcome

    def close(self) -> None:
        """Ends all processes, those at work too."""
        for worker in self._workers:
            worker.line.close()
            if worker.task is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(END_S)
            if worker.process.is_alive():
                worker.process.kill()
        self._workers = []
