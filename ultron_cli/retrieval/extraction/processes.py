"""The processes of one extraction, as torchrun starts them: what the first tells the others, and how none waits for ever.

They share a file system, on which each writes its own shards, and torchrun's key-value store, through which they agree. Nothing is sent
between GPUs, so that there is no process group: a rank that dies breaks no connection of the others. Alone, nothing here costs anything.
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
from ultron_cli.errors import WorkFailed
from ultron_cli.ranks import TIMEOUT, restart_count, started_by_torchrun

LOOK_EVERY_S = 0.2  # while waiting; the store's own wait, cut short to look whether the others go on, writes warnings to stderr


class OtherRankFailed(WorkFailed):
    """Another rank failed and has said why."""


class ExtractionRanks:
    """One of `n` processes, number `rank` from 0. store: None alone."""

    def __init__(self, rank: int = 0, n: int = 1, store: dist.Store | None = None) -> None:
        self.rank, self.n, self._store, self._n_own = rank, n, store, 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks, decides and merges."""
        return self.rank == 0

    def count(self, n: int) -> int:
        """Adds to the number of photos that all ranks together have done, and returns it. It is also the sign that they go on."""
        if self._store is None:
            self._n_own += n
            return self._n_own
        with _lost_said():
            return int(self._store.add("photos", n))

    def tell(self, key: str, value: Any = True) -> Any:
        """Lets the other ranks `hear` plain data; returns it."""
        if self._store is not None:
            with _lost_said():
                self._store.set(key, dump_json(value, indent=None))
        return value

    def hear(self, key: str, meanwhile: Callable[[int], object] = lambda n_photos: None) -> Any:
        """Waits for what another rank tells. meanwhile: called with the number of photos done, when it has grown.

        Raises OtherRankFailed if a rank has failed, WorkFailed if for TIMEOUT no rank has finished a batch.
        """
        assert self._store is not None  # alone there is nobody to listen to
        n_photos, since_s = self.count(0), time.monotonic()
        while True:
            with _lost_said():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
                if self._store.check(["failed"]):
                    raise OtherRankFailed(self._store.get("failed").decode())
            now = self.count(0)
            if now != n_photos:
                n_photos, since_s = now, time.monotonic()
                meanwhile(n_photos)
            elif time.monotonic() - since_s > TIMEOUT.total_seconds():
                raise WorkFailed(
                    f"rank {self.rank} waited {TIMEOUT} in which no rank finished a batch, for {key!r}: another process is gone or stuck; "
                    "start the same command again, which continues from the finished shards"
                )
            time.sleep(LOOK_EVERY_S)

    def fail(self, error: BaseException) -> None:
        """Tells the others that this rank cannot go on, and why."""
        if self._store is not None:
            with contextlib.suppress(dist.DistError, WorkFailed):  # where the store is gone, so are they
                self._store.set("failed", f"rank {self.rank} of {self.n} failed: {error or type(error).__name__}")

    def share(self, items: list[int]) -> list[int]:
        """Those of `items` that are this rank's work: every n-th, so that slow stretches are spread."""
        return items[self.rank :: self.n]


ALONE = ExtractionRanks()


@contextlib.contextmanager
def extraction_ranks() -> Iterator[ExtractionRanks]:
    """The processes of this extraction; inside, only the first one logs. An error here is told to the others.

    Raises WorkFailed if the store cannot be reached.
    """
    n = int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1
    if n == 1:
        yield ALONE
        return
    ranks = ExtractionRanks(int(os.environ["RANK"]), n, _store(int(os.environ["RANK"])))
    level = log.level
    if not ranks.is_first:
        log.setLevel(logging.ERROR)
    try:
        yield ranks
        ranks.tell(f"rank {ranks.rank} is done")
        if ranks.is_first:  # where there is no torchrun to keep it, the store lives in this process
            for other in range(1, n):
                ranks.hear(f"rank {other} is done")
    except OtherRankFailed:
        raise
    except BaseException as error:
        ranks.fail(error)
        raise
    finally:
        log.setLevel(level)


def _store(rank: int) -> dist.Store:
    """torchrun's store; of another launcher that sets the same variables, one in the first process. A restart has names of its own."""
    is_ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with _lost_said():
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=is_ours and rank == 0, timeout=TIMEOUT, wait_for_workers=False
        )
    return dist.PrefixStore(f"ultron-extract-{restart_count()}", store)


@contextlib.contextmanager
def _lost_said() -> Iterator[None]:
    """Inside, a lost connection becomes one line."""
    try:
        yield
    except dist.DistNetworkError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise WorkFailed(f"torchrun's store at {where} cannot be reached ({str(error)[:90]}); start the same command again, which continues") from error
