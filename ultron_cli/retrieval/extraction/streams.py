"""Photos on their way to descriptors: in batches on all threads, or photo by photo on every thread at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic

import numpy as np

from ultron_cli.datasets.photos import LoadedPhoto, batches_by_shape
from ultron_cli.machine import limited_threads
from ultron_cli.memory import shared_memory
from ultron_cli.models.runtimes import Threads
from ultron_cli.retrieval.extraction.earlier import Result

AHEAD = 4  # photos under way or done per thread, while the caller takes the first of them

DescribeBatch = Callable[[list[LoadedPhoto]], np.ndarray]  # photos of one shape -> (B, D), in the storage type


@dataclass(frozen=True)
class Described(Generic[Result]):
    """Photos of one shape and their results, or one photo without pixels."""

    photos: list[LoadedPhoto]
    results: Sequence[Result] | None  # of each photo


def described_by_batch(
    photos: Iterable[LoadedPhoto], describe: DescribeBatch, batch_size: int
) -> Iterator[Described[np.ndarray]]:
    """Photos of equal shape together, as batches_by_shape groups them."""
    for batch in batches_by_shape(photos, batch_size, max_waiting=8 * batch_size):
        yield Described(batch, None if batch[0].pixels is None else list(describe(batch)))


def described_by_photo(
    readers: Iterable[Callable[[], LoadedPhoto]], describe: DescribeBatch, threads: Threads
) -> Iterator[Described[np.ndarray]]:
    """Every photo by itself, in order: one thread reads it and describes it, beside others that do the same.

    No photo is shared among cores this way, so that none waits for another, and what reading costs is divided among
    them as well.
    """

    def read_and_describe(read: Callable[[], LoadedPhoto]) -> Described[np.ndarray]:
        photo = read()
        return Described([photo], None if photo.pixels is None else list(describe([photo])))

    n_at_once = threads.n_at_once
    # What torch does before the network (scaling) keeps to these threads too.
    with (
        limited_threads(threads.per_call),
        shared_memory(n_at_once),
        ThreadPoolExecutor(n_at_once, "describe") as pool,
    ):
        under_way: deque[Future[Described[np.ndarray]]] = deque()
        try:
            for read in readers:
                under_way.append(pool.submit(read_and_describe, read))
                if len(under_way) >= AHEAD * n_at_once:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
