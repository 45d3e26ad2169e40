"""Exact search by inner product, in blocks of bounded memory, on the CPU or a CUDA device.

A score is the float64 inner product of the float32 rows, rounded to float32. Equal scores are ordered by row. The
result depends neither on block sizes nor on threads nor on the device. How it stays fast:
  1. float32 matrix products find candidates: rows that the rounding error could still put among the k best
     (`QueryGroup.margin`);
  2. only candidates get their final score (`final_scores`); where they are many, float64 matrix products give every
     score;
  3. score and row are packed into one integer whose order is the order of the ranking, so merging and ties are integer
     sorts;
  4. threads take a block each, with one-threaded libraries: they never wait for each other inside a product, which on a
     machine with other work costs more than the product.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ultron_cli.console import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.exact_candidates import DENSE, UNIT_ROW_NORM, QueryGroup, block_sizes
from ultron_cli.retrieval.rankings import EMPTY, RankedRows, check_search, unpacked

MOST_THREADS = 32  # more would wait for Python and for memory
ONE_SEARCH = threading.Lock()  # a search uses every core, and sets torch's process-wide switches while it lasts


def exact_search(
    query_descriptors: np.ndarray,
    database: np.ndarray | Descriptors,
    k: int,
    *,
    device: str = "cpu",
    max_memory_mib: float = 768,
) -> RankedRows:
    """The k database rows of largest inner product per query, equal scores by row.

    query_descriptors: (Q, D) float32. database: (N, D) float32 or float16 array, or an open descriptor file, which is
    read in blocks with the next one read ahead. k: 1..N. max_memory_mib bounds what is used beside the inputs and the
    (Q, k) result. Uses as many threads as torch may. Raises UltronError if k or the dimensions do not fit or a value is
    not finite.
    """
    n, dim = database_shape(database)
    check_search(query_descriptors, n, dim, k)
    target = torch.device(device)
    on_cpu = target.type == "cpu"
    # In a database of random order, about k (1 + ln(n / k)) rows are among the k best so far when they are met.
    dense = DENSE * k * (1 + math.log(n / k)) > n
    best = np.full((len(query_descriptors), k), EMPTY)  # becomes the rows of the result, in place
    filled = np.zeros(len(query_descriptors), np.int64)
    largest_norm = UNIT_ROW_NORM
    with ONE_SEARCH, full_float32(), worker_threads() as (n_threads, workers):
        in_place = on_cpu and (
            not isinstance(database, np.ndarray) or (database.dtype == np.float32 and database.flags.carray)
        )
        sizes = block_sizes(
            len(query_descriptors),
            dim,
            k,
            n_threads=n_threads,
            dense=dense,
            in_place=in_place,
            on_cpu=on_cpu,
            max_memory_mib=max_memory_mib,
        )
        with contextlib.closing(database_parts(database, sizes.disk_rows)) as parts:
            for first_row, part in parts:
                for start, stop in chunks(len(query_descriptors), sizes.queries):
                    group = QueryGroup(
                        query_descriptors[start:stop], best[start:stop], filled[start:stop], sizes, target, workers
                    )
                    group.largest_norm = largest_norm
                    # Files are checked as they are read.
                    group.measures_rows = start == 0 and isinstance(database, np.ndarray)
                    group.search(part, first_row, n_threads, dense)
                    largest_norm = group.largest_norm
    return unpacked(best)


def database_shape(database: np.ndarray | Descriptors) -> tuple[int, int]:
    """(N, D). Raises ValueError for an array of another kind, UltronError for more rows than keys can name."""
    if not isinstance(database, np.ndarray):
        n, dim = database.n, database.dim
    elif database.ndim == 2 and database.dtype in (np.float32, np.float16):
        n, dim = database.shape
    else:
        raise ValueError(f"database must be (N, D) float32 or float16, got {database.shape} {database.dtype}")
    if n >= 2**32:
        raise UltronError(f"exact search takes at most {2**32 - 1} database rows, found {n}; split the database")
    return n, dim


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 products are float32 whatever this process has chosen: no TF32, no bfloat16."""
    matmuls = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    for matmul in matmuls:
        matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


@contextlib.contextmanager
def worker_threads() -> Iterator[tuple[int, ThreadPoolExecutor]]:
    """Yields as many workers as torch may use threads, each with a one-threaded torch; then torch has its threads
    back."""
    before = torch.get_num_threads()
    n_threads = min(before, MOST_THREADS)
    try:
        one_thread = threadpool_limits(1, "blas")  # NumPy's products; torch's are set per thread
        with (
            one_thread,
            ThreadPoolExecutor(n_threads, "search", initializer=torch.set_num_threads, initargs=(1,)) as workers,
        ):
            yield n_threads, workers
    finally:
        torch.set_num_threads(before)


def database_parts(database: np.ndarray | Descriptors, rows_per_part: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of consecutive parts: an array whole, a file in blocks of which a thread reads the next one
    ahead."""
    if isinstance(database, np.ndarray):
        yield 0, database
        return
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        limits = list(chunks(database.n, rows_per_part))
        ahead = reader.submit(database.read, *limits[0])
        for i, (start, _) in enumerate(limits):
            part = ahead.result()
            ahead = reader.submit(database.read, *limits[i + 1]) if i + 1 < len(limits) else None
            yield start, part
