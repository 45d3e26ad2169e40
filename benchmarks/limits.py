"""What a method cannot do without, measured alone and in the same run: the limits of benchmarks' rows.

Products are NumPy's in float32, on as many threads as its BLAS has.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ultron_cli.machine import n_threads

Work = Callable[[], object]
LARGE_SIDE = 1536  # of the square matrices whose product tells how fast the machine multiplies
LARGE_FLOPS = 2 * LARGE_SIDE**3
REST_S = 0.2
ARITHMETIC = "float32 arithmetic alone"  # passed by what multiplies smaller numbers, or fewer


def product(left: np.ndarray, right: np.ndarray) -> Work:
    """The product of (n, D) and (m, D) float32 rows, into memory that it has already. Of an array with itself one half
    is computed."""
    out = np.empty((len(left), len(right)), np.float32)
    return lambda: np.matmul(left, right.T, out=out)


def reading(array: np.ndarray) -> Work:
    """Reading a float32 array once, a part by each thread, for its product with itself, which BLAS leaves to one
    thread."""
    parts = np.array_split(array.reshape(-1), n_threads())
    workers = ThreadPoolExecutor(len(parts))
    return lambda: list(workers.map(lambda part: np.dot(part, part), parts))


def large_product() -> Work:
    """A product of two matrices that are large enough for the machine's full speed."""
    square = np.random.default_rng(0).standard_normal((LARGE_SIDE, LARGE_SIDE), dtype=np.float32)
    return product(square, square.copy())


def arithmetic(flops: float, large: Sequence[float]) -> list[float]:
    """What so many float32 operations, two per multiply-add, take at the speed of `large_product`: of each of its
    rounds, in their unit."""
    return [taken * flops / LARGE_FLOPS for taken in large]


def rest() -> None:
    """Lets the threads of a BLAS, which wait spinning for a tenth of a second after a product, go to sleep: they would
    take a core from what is timed next."""
    time.sleep(REST_S)


def seconds_of(work: Work) -> float:
    """Of one run, with a rest before and after it."""
    rest()
    started_s = time.perf_counter()
    work()
    seconds = time.perf_counter() - started_s
    rest()
    return seconds
