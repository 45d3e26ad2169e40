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

# torch's documented names; pyright takes them for private because torch imports them from its C++ module
from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from ultron_cli.console import dump_json, log
from ultron_cli.distributed import TIMEOUT, restart_count, started_by_torchrun
from ultron_cli.errors import WorkFailed

# While waiting. The store's own wait, cut short to look whether the others go on, would write warnings to stderr.
LOOK_EVERY_S = 0.2


class OtherProcessFailed(WorkFailed):
    """Another process failed and has said why."""


class ExtractionProcesses:
    """One of the processes of an extraction, as it sees the others."""

    def __init__(self, process: int = 0, n: int = 1, store: Store | None = None) -> None:
        """process: its number, from 0. n: how many there are. store: None for a process alone."""
        self.process = process
        self.n = n
        self._store = store
        self._n_photos_alone = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks, decides and merges."""
        return self.process == 0

    def count(self, n: int) -> int:
        """Adds to the number of photos that all processes together have done, and returns it. It is also the sign that
        they go on."""
        if self._store is None:
            self._n_photos_alone += n
            return self._n_photos_alone
        with _one_line_if_lost():
            return int(self._store.add("photos", n))

    def tell(self, key: str, value: object = True) -> None:
        """Lets the other processes `hear` plain data."""
        if self._store is not None:
            with _one_line_if_lost():
                self._store.set(key, dump_json(value, indent=None))

    def hear(self, key: str, meanwhile: Callable[[int], object] = lambda n_photos: None) -> Any:
        """Waits for what another process tells: any plain data. meanwhile: called with the number of photos done, when
        it has grown.

        Raises OtherProcessFailed if a process has failed, WorkFailed if for TIMEOUT no process has finished a batch.
        """
        assert self._store is not None  # alone there is nobody to listen to
        n_photos = self.count(0)
        grown_at_s = time.monotonic()
        while True:
            with _one_line_if_lost():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
                if self._store.check(["failed"]):
                    raise OtherProcessFailed(self._store.get("failed").decode())
            n_photos_now = self.count(0)
            if n_photos_now != n_photos:
                n_photos = n_photos_now
                grown_at_s = time.monotonic()
                meanwhile(n_photos)
            elif time.monotonic() - grown_at_s > TIMEOUT.total_seconds():
                raise WorkFailed(
                    f"process {self.process} waited {TIMEOUT} in which no process finished a batch, for {key!r}: "
                    "another process is gone or stuck; start the same command again, which continues from the "
                    "finished shards"
                )
            time.sleep(LOOK_EVERY_S)

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process cannot go on, and why."""
        if self._store is not None:
            with contextlib.suppress(dist.DistError, WorkFailed):  # where the store is gone, so are they
                self._store.set("failed", f"process {self.process} of {self.n} failed: {error or type(error).__name__}")

    def share(self, items: list[int]) -> list[int]:
        """The part of `items` that is this process's work: every n-th, so that slow stretches are spread."""
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
    process = int(os.environ["RANK"])
    processes = ExtractionProcesses(process, n, _store(process))
    level = log.level
    if not processes.is_first:
        log.setLevel(logging.ERROR)
    try:
        yield processes
        processes.tell(f"process {processes.process} is done")
        if processes.is_first:  # where there is no torchrun to keep it, the store lives in this process
            for helper in range(1, n):
                processes.hear(f"process {helper} is done")
    except OtherProcessFailed:
        raise
    except BaseException as error:
        processes.fail(error)
        raise
    finally:
        log.setLevel(level)


def _store(process: int) -> Store:
    """torchrun's store; under another launcher that sets the same variables, a store in the first process. Keys of one
    start are not seen after a restart."""
    is_ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with _one_line_if_lost():
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=is_ours and process == 0,
            timeout=TIMEOUT,
            wait_for_workers=False,
        )
    return PrefixStore(f"ultron-extract-{restart_count()}", store)


@contextlib.contextmanager
def _one_line_if_lost() -> Iterator[None]:
    """Inside, a lost connection becomes one line."""
    try:
        yield
    except dist.DistNetworkError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise WorkFailed(
            f"torchrun's store at {where} cannot be reached ({str(error)[:90]}); start the same command again, "
            "which continues"
        ) from error
