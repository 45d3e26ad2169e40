"""How exact search goes through part of the database for a block of queries: candidates first, then their final scores.

A candidate is a row that may belong to the k best. Its float32 product with the query reaches the k-th best score so
far, less the margin by which rounding may have lowered it. Only candidates get a final score (`scores.py`).

    PartSearch.run ── sparse: Scanner.scan (workers) ─> CandidatePool.add ─> prune ─> rescore ─┬─> BestKeys.merge
                   └─ dense, and blocks with too many candidates: score_all (float64 products) ┘

Every merge raises the floor, the lower bound of the k-th best score, and with it the hurdle of the scans after it.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from ultron_kernels.halves import widened

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.exact.scores import BestKeys, QueryBlock
from ultron_cli.retrieval.rankings import packed

UNIT_ROW_NORM = 1.01  # unit rows with room for float16 rounding; a longer row in an array is measured
NORM_VALUES = 4096  # summed at once where norms are bounded
THREADED_ROWS = 1000  # per query; where fewer are re-scored, one thread does it
Block = TypeVar("Block")  # of arrays: NumPy's or torch's
DENSE = 16  # with more than 1/16 of all pairs to be re-scored, float64 products of whole blocks are the faster way


@dataclass(frozen=True)
class BlockSizes:
    """How the work is cut; each number is at least 1."""

    queries: int  # searched together
    disk_rows: int  # read from a file at once
    rows: int  # of one float32 product
    first_rows: int  # of the first product, which sets the first threshold
    dense_rows: int  # scored in full before they are merged
    exact_rows: int  # of one float64 product
    candidates: int  # that may wait for re-scoring


def block_sizes(
    n_queries: int,
    dim: int,
    k: int,
    *,
    n_threads: int,
    dense: bool,
    in_place: bool,
    on_cpu: bool,
    max_memory_mib: float,
) -> BlockSizes:
    """Cuts the work so that all buffers together stay under 3/4 of max_memory_mib; the rest is for matrix libraries.

    in_place: products read the database's own memory; otherwise blocks are copied, converted and perhaps sent to a
    device.
    """
    share = int(max_memory_mib * 2**20 * 3 / 4) // 8  # 8 shares: disk 2, dense rows 2, each of the others 1
    queries = max(1, min(n_queries, 64 if dense else 1024, share // (20 * dim)))  # float32 twice, float64 once
    most_rows = share // (queries * 8 + (0 if in_place else dim * 10))  # per score 4 bytes, a flag, few survivors
    disk_rows = min(2 * share, 2**27) // (4 * dim)
    product_bytes = 2**22 if on_cpu else 2**26  # 4 MiB stay in a CPU's cache
    return BlockSizes(
        queries=queries,
        disk_rows=max(1, disk_rows),
        rows=max(1, min(most_rows // n_threads, product_bytes // (4 * dim))),
        first_rows=max(1, min(most_rows, 2 * DENSE * k)),
        dense_rows=max(1, 2 * share // (queries * 8 + n_threads * 24)),
        exact_rows=max(1, min(share // (n_threads * (queries * 64 + dim * 64)), 2**20 // dim)),
        candidates=max(1, min(share // 64, max(4096, 4 * queries * k))),
    )


@dataclass(frozen=True)
class DatabasePart:
    """Consecutive rows of the database, all or a block of a file."""

    rows: np.ndarray  # (n, D) float32 or float16
    first_row: int  # the first one's row in the database
    is_checked: bool  # whether the values are known to be finite and no norm above the largest known
    source: Descriptors | None = None  # what the rows are still to be read from, by `read`, which checks them

    def part(self, start: int, stop: int) -> "DatabasePart":
        """Its rows start..stop."""
        return DatabasePart(self.rows[start:stop], self.first_row + start, self.is_checked, self.source)

    def read(self) -> None:
        """Reads the rows into their place. Raises UltronError for a row that is no unit vector."""
        if self.source is not None:
            self.source.read_into(self.first_row, self.rows)


@dataclass(frozen=True)
class Hurdle:
    """What float32 products must reach so that no final score of `floor` or more is missed."""

    floor: np.ndarray  # (Q,) float64
    largest_norm: float  # of the rows for which it holds
    products: np.ndarray  # (padded Q,) float32; infinite for padding

    @classmethod
    def of(cls, queries: QueryBlock, floor: np.ndarray, largest_norm: float) -> "Hurdle":
        """The hurdle of these queries."""
        products = np.full(queries.padded_n, np.inf, np.float32)
        lowest = (floor - queries.margin(largest_norm)).astype(np.float32)
        products[: queries.n] = np.nextafter(lowest, np.float32(-np.inf))
        return cls(floor.copy(), largest_norm, products)


@dataclass(frozen=True)
class Scanned:
    """The candidates that one float32 product gave."""

    start: int  # of the rows in their part
    stop: int
    hurdle: Hurdle  # with what the rows themselves told about floor and norm
    positions: np.ndarray | None = None  # flat, in (n, padded Q); None where too many to be worth listing
    products: np.ndarray | None = None  # float32, one for each position


@dataclass(frozen=True)
class Scanner(Generic[Block]):
    """Finds candidates, by float32 products of a block of rows with the queries. It changes nothing, so that workers
    may share it.

    A subclass says where products are computed: NumpyScanner below, TorchScanner in device.py. Block is its type of
    arrays.
    """

    queries: QueryBlock
    k: int

    def placed(self, rows: np.ndarray) -> Block:
        """(n, D) float32 or float16 rows as float32, where products are computed."""
        raise NotImplementedError

    def squares(self, block: Block) -> np.ndarray:
        """Numbers of which the largest is at least the largest squared norm of a row, and at most a few times that of
        unit rows."""
        raise NotImplementedError

    def products(self, block: Block) -> Block:
        """(n, padded Q) float32 products of rows with the queries."""
        raise NotImplementedError

    def kth_products(self, products: Block) -> np.ndarray:
        """(Q,) float64: the k-th largest product of each query. products: at least k rows of them."""
        raise NotImplementedError

    def reaching(self, products: Block, lowest: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(flat positions, products) of those that are not below their query's lowest; None for more than `most`."""
        raise NotImplementedError

    def products64(self, rows: np.ndarray) -> np.ndarray:
        """(Q, n) float64 products of (n, D) rows."""
        raise NotImplementedError

    def largest_norm(self, block: Block, part: DatabasePart, known_norm: float) -> float:
        """A bound of known_norm and the norms of the rows of `part`, which `block` holds.

        Raises UltronError naming a row that is not finite.
        """
        if part.is_checked:
            return known_norm
        squares = self.squares(block)
        if not np.isfinite(squares).all():  # or so large that float32 cannot hold its square
            squares = (part.rows.astype(np.float64) ** 2).sum(1)
            if not np.isfinite(squares).all():
                row = part.first_row + int(np.flatnonzero(~np.isfinite(squares))[0])
                raise UltronError(
                    f"database descriptors must be finite, row {row} has NaN or infinity; extract the database again"
                )
        rounding = 1 + max(NORM_VALUES, part.rows.shape[1]) * 2.0**-23  # of the sums
        return max(known_norm, math.sqrt(float(squares.max())) * rounding)

    def scan(self, part: DatabasePart, start: int, stop: int, hurdle: Hurdle) -> Scanned:
        """Finds the candidates among rows start..stop of `part`."""
        scanned_part = part.part(start, stop)
        block = self.placed(scanned_part.rows)
        largest_norm = self.largest_norm(block, scanned_part, hurdle.largest_norm)
        products = self.products(block)
        if stop - start >= DENSE * self.k and not np.isfinite(hurdle.floor).all():
            floor = np.maximum(hurdle.floor, self.kth_products(products) - self.queries.margin(largest_norm))
            hurdle = Hurdle.of(self.queries, floor, largest_norm)
        elif largest_norm > hurdle.largest_norm:
            hurdle = Hurdle.of(self.queries, hurdle.floor, largest_norm)
        candidates = self.reaching(products, hurdle.products, (stop - start) * self.queries.n // DENSE)
        if candidates is None:
            return Scanned(start, stop, hurdle)
        return Scanned(start, stop, hurdle, *candidates)


@dataclass(frozen=True)
class NumpyScanner(Scanner[np.ndarray]):
    """On the CPU. NumPy's float32 product was 10 to 20 % faster than torch's on tall blocks (AMD EPYC, OpenBLAS against
    MKL), its float64 product as fast, and a search without torch begins two seconds sooner."""

    def placed(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(widened(rows))

    def squares(self, block: np.ndarray) -> np.ndarray:
        # A call per row costs more than its sum, so a sum goes over several rows; the bound may be that much too large.
        rows_per_sum = max(1, NORM_VALUES // block.shape[1])
        n_grouped = len(block) // rows_per_sum * rows_per_sum
        grouped = block[:n_grouped].reshape(-1, rows_per_sum * block.shape[1])
        rest = block[n_grouped:]
        return np.concatenate([np.vecdot(grouped, grouped), np.vecdot(rest, rest)])

    def products(self, block: np.ndarray) -> np.ndarray:
        return block @ self.queries.padded32.T

    def kth_products(self, products: np.ndarray) -> np.ndarray:
        by_query = np.ascontiguousarray(products[:, : self.queries.n].T)
        place = by_query.shape[1] - self.k
        by_query.partition(place, axis=1)
        return by_query[:, place].astype(np.float64)

    def reaching(self, products: np.ndarray, lowest: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        flags = products >= lowest
        if np.count_nonzero(flags) > most:
            return None
        positions = np.flatnonzero(flags)
        return positions, products.reshape(-1)[positions]

    def products64(self, rows: np.ndarray) -> np.ndarray:
        return self.queries.rows64 @ widened(rows).astype(np.float64).T


class CandidatePool:
    """Candidates in one part of the database that wait for their final scores."""

    def __init__(self, padded_n_queries: int) -> None:
        self.padded_n_queries = padded_n_queries
        self.n = 0
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # query, row in the part, float32 product

    def add(self, start: int, positions: np.ndarray, products: np.ndarray) -> None:
        """Takes in the candidates of a scan. start: the scanned rows' first in the part."""
        queries = positions % self.padded_n_queries
        rows = positions // self.padded_n_queries + start
        self._entries.append((queries, rows, products))
        self.n += positions.size

    def prune(self, best: BestKeys, margin: np.ndarray) -> None:
        """Raises the floors by what is in the pool, drops candidates that others have overtaken, and leaves the pool
        sorted by query. margin: (Q,) of `QueryBlock.margin`."""
        if not self._entries:
            return
        query, row, product = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        # By query, best first.
        order = np.argsort(query.astype(np.uint64) << np.uint64(32) | packed(product, row) >> np.uint64(32))
        query, row, product = query[order], row[order], product[order]
        limits = np.searchsorted(query, np.arange(len(margin) + 1))
        kth = limits[:-1] + best.k - 1
        has_kth = kth < limits[1:]
        kth_products = product[kth[has_kth]].astype(np.float64)
        best.floor[has_kth] = np.maximum(best.floor[has_kth], kth_products - margin[has_kth])
        remains = product >= (best.floor - margin)[query]
        self._entries = [(query[remains], row[remains], product[remains])]
        self.n = int(remains.sum())

    def emptied(self, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
        """Empties a pruned pool: (n,) rows in the part, by query, and (Q + 1,) where each query's begin and end."""
        query, row, _ = self._entries[0]
        self._entries = []
        self.n = 0
        return row, np.searchsorted(query, np.arange(n_queries + 1))

    def __bool__(self) -> bool:
        return bool(self._entries)


class PartSearch:
    """Queries on their way through one part of the database."""

    def __init__(
        self,
        scanner: Scanner,
        best: BestKeys,
        part: DatabasePart,
        sizes: BlockSizes,
        workers: ThreadPoolExecutor,
        largest_norm: float,
    ) -> None:
        """largest_norm: a bound of the norms of the rows that are known so far."""
        self.queries = scanner.queries
        self.best = best
        self.part = part
        self.sizes = sizes
        self.workers = workers
        self.largest_norm = largest_norm
        self.scanner = scanner
        self.pool = CandidatePool(scanner.queries.padded_n)

    def run(self, n_threads: int, *, dense: bool) -> float:
        """Merges the best of the part; returns a bound of the norms of all rows seen. dense: k is a large part of all
        rows."""
        if dense:
            pieces = (self.part.part(start, stop) for start, stop in chunks(len(self.part.rows), self.sizes.rows))
            list(self.workers.map(DatabasePart.read, pieces))
            self.score_all(self.part)
            return self.largest_norm
        # A block of many times k rows finds a threshold in itself; else a larger first block gives it, and the others
        # wait for it.
        waits = self.sizes.rows < DENSE * self.best.k and not self.best.n_filled.all()
        under_way: deque[Future[Scanned]] = deque()
        hurdle = Hurdle.of(self.queries, self.best.floor, self.largest_norm)
        for start, stop in self._scan_limits(self.sizes.first_rows if waits else self.sizes.rows):
            if self.largest_norm > hurdle.largest_norm or not np.array_equal(self.best.floor, hurdle.floor):
                hurdle = Hurdle.of(self.queries, self.best.floor, self.largest_norm)
            under_way.append(self.workers.submit(self.scan, start, stop, hurdle))
            if len(under_way) >= 2 * n_threads or (waits and not np.isfinite(self.best.floor).all()):
                self.collect(under_way.popleft().result())
        for scanned in under_way:
            self.collect(scanned.result())
        self.prune()
        self.rescore()
        return self.largest_norm

    def scan(self, start: int, stop: int, hurdle: Hurdle) -> Scanned:
        """Reads and scans rows start..stop, which stay in the cache of one core meanwhile."""
        self.part.part(start, stop).read()
        return self.scanner.scan(self.part, start, stop, hurdle)

    def _scan_limits(self, n_first: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of the scans."""
        n_first = min(n_first, len(self.part.rows))
        yield 0, n_first
        for start, stop in chunks(len(self.part.rows) - n_first, self.sizes.rows):
            yield n_first + start, n_first + stop

    def collect(self, scanned: Scanned) -> None:
        """Takes in the candidates of a scan."""
        self.largest_norm = max(self.largest_norm, scanned.hurdle.largest_norm)
        self.best.raise_floor(scanned.hurdle.floor)
        if scanned.positions is None or scanned.products is None:
            self.score_all(self.part.part(scanned.start, scanned.stop))
            return
        self.pool.add(scanned.start, scanned.positions, scanned.products)
        if self.pool.n > self.sizes.candidates:
            self.prune()
            if self.pool.n > self.sizes.candidates // 2:
                self.rescore()

    def prune(self) -> None:
        """Drops candidates that others in the pool have overtaken."""
        self.pool.prune(self.best, self.queries.margin(self.largest_norm))

    def rescore(self) -> None:
        """Gives the candidates of the pruned pool their final scores, merges them and empties the pool."""
        if not self.pool:
            return
        candidate_rows, limits = self.pool.emptied(self.queries.n)

        def rescore_query(query: int) -> None:
            rows = candidate_rows[limits[query] : limits[query + 1]]
            keys = np.empty(len(rows), np.uint64)
            for start, stop in chunks(len(rows), self.sizes.exact_rows):
                descriptors = widened(np.take(self.part.rows, rows[start:stop], axis=0))
                # float64: NumPy converts a few values at a time
                products = np.vecdot(descriptors, self.queries.rows64[query])[None]
                scores = self.queries.final_scores(products, slice(query, query + 1), descriptors, self.largest_norm)
                keys[start:stop] = packed(scores[0], self.part.first_row + rows[start:stop])
            self.best.merge(query, keys)

        queries = np.flatnonzero(np.diff(limits)).tolist()
        # Threads that do little between calls wait longer for Python than they compute.
        if len(candidate_rows) > THREADED_ROWS * len(queries):
            list(self.workers.map(rescore_query, queries))
        else:
            for query in queries:
                rescore_query(query)

    def score_all(self, part: DatabasePart) -> None:
        """Merges every row of `part` by float64 products."""
        for start, stop in chunks(len(part.rows), self.sizes.dense_rows):
            keys = np.empty((self.queries.n, stop - start), np.uint64)

            def score_rows(limits: tuple[int, int], start: int = start, keys: np.ndarray = keys) -> float:
                low, high = limits
                scored = part.part(start + low, start + high)
                largest_norm = self.largest_norm
                if not scored.is_checked:
                    largest_norm = self.scanner.largest_norm(self.scanner.placed(scored.rows), scored, largest_norm)
                products = self.scanner.products64(scored.rows)
                scores = self.queries.final_scores(products, slice(None), scored.rows, largest_norm)
                keys[:, low:high] = packed(scores, np.arange(scored.first_row, scored.first_row + len(scored.rows)))
                return largest_norm

            self.largest_norm = max(self.workers.map(score_rows, chunks(stop - start, self.sizes.exact_rows)))
            list(self.workers.map(self.best.merge, range(len(keys)), keys))
