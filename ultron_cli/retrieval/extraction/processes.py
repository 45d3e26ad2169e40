"""The processes of one extraction, as torchrun starts them: what the first tells the others, and how none waits for
ever.

They share a file system, on which each writes its own shards, and torchrun's key-value store, through which they agree.
Nothing is sent between GPUs, so that there is no process group: a process that dies breaks no connection of the others.
Alone, nothing here costs anything.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist

from ultron_cli.console import dump_json, log
from ultron_cli.distributed import TIMEOUT, restart_count, started_by_torchrun
from ultron_cli.errors import WorkFailed

LOOK_EVERY_S = (
    0.2  # while waiting; the store's own wait, cut short to look whether the others go on, writes warnings to stderr
)


class OtherProcessFailed(WorkFailed):
    """Another process failed and has said why."""


class ExtractionProcesses:
    """One of `n` processes, number `process` from 0. store: None alone."""

    def __init__(self, process: int = 0, n: int = 1, store: dist.Store | None = None) -> None:
        self.process, self.n, self._store, self._n_own = process, n, store, 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks, decides and merges."""
        return self.process == 0

    def count(self, n: int) -> int:
        """Adds to the number of photos that all processes together have done, and returns it. It is also the sign that
        they go on."""
        if self._store is None:
            self._n_own += n
            return self._n_own
        with _lost_said():
            return int(self._store.add("photos", n))

    def tell(self, key: str, value: Any = True) -> Any:
        """Lets the other processes `hear` plain data; returns it."""
        if self._store is not None:
            with _lost_said():
                self._store.set(key, dump_json(value, indent=None))
        return value

    def hear(self, key: str, meanwhile: Callable[[int], object] = lambda n_photos: None) -> Any:
        """Waits for what another process tells. meanwhile: called with the number of photos done, when it has grown.

        Raises OtherProcessFailed if a process has failed, WorkFailed if for TIMEOUT no process has finished a batch.
        """
        assert self._store is not None  # alone there is nobody to listen to
        n_photos, since_s = self.count(0), time.monotonic()
        while True:
            with _lost_said():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
                if self._store.check(["failed"]):
                    raise OtherProcessFailed(self._store.get("failed").decode())
            now = self.count(0)
            if now != n_photos:
                n_photos, since_s = now, time.monotonic()
                meanwhile(n_photos)
            elif time.monotonic() - since_s > TIMEOUT.total_seconds():
                raise WorkFailed(
                    f"process {self.process} waited {TIMEOUT} in which no process finished a batch, for "
                    f"{key!r}: another process is gone or stuck; "
                    "start the same command again, which continues from the finished shards"
                )
            time.sleep(LOOK_EVERY_S)

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process cannot go on, and why."""
        if self._store is not None:
            with contextlib.suppress(dist.DistError, WorkFailed):  # where the store is gone, so are they
                self._store.set("failed", f"process {self.process} of {self.n} failed: {error or type(error).__name__}")

    def share(self, items: list[int]) -> list[int]:
        """Those of `items` that are this process's work: every n-th, so that slow stretches are spread."""
        return items[self.process :: self.n]


ALONE = ExtractionProcesses()


@contextlib.contextmanager
def extraction_processes() -> Iterator[ExtractionProcesses]:
    """The processes of this extraction; inside, only the first one logs. An error here is told to the others.

    Raises WorkFailed if the store cannot be reached.
    """
    n = int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1
    if n == 1:
        yield ALONE
        return
    processes = ExtractionProcesses(int(os.environ["RANK"]), n, _store(int(os.environ["RANK"])))
    level = log.level
    if not processes.is_first:
        log.setLevel(logging.ERROR)
    try:
        yield processes
        processes.tell(f"process {processes.process} is done")
        if processes.is_first:  # where there is no torchrun to keep it, the store lives in this process
            for other in range(1, n):
                processes.hear(f"process {other} is done")
    except OtherProcessFailed:
        raise
    except BaseException as error:
        processes.fail(error)
        raise
    finally:
        log.setLevel(level)


def _store(process: int) -> dist.Store:
    """torchrun's store; of another launcher that sets the same variables, one in the first process. A restart has names
    of its own."""
    is_ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with _lost_said():
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=is_ours and process == 0,
            timeout=TIMEOUT,
            wait_for_workers=False,
        )
    return dist.PrefixStore(f"ultron-extract-{restart_count()}", store)


@contextlib.contextmanager
def _lost_said() -> Iterator[None]:
    """Inside, a lost connection becomes one line."""
    try:
        yield
    except dist.DistNetworkError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise WorkFailed(
            f"torchrun's store at {where} cannot be reached ({str(error)[:90]}); start the same command again, "
            "which continues"
        ) from error
