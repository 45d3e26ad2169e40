"""What exact search keeps of some queries while it goes through the database: the best rows so far and the candidates.

A candidate is a row whose float32 product lies so near the k-th best score that rounding could have put it on the wrong
side; only candidates get a final score. See `exact.py` for the whole.
"""

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ultron_cli.console import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.rankings import key_scores, packed

UNIT_ROW_NORM = 1.01  # unit rows with room for float16 rounding; a longer row in an array is measured
NORM_VALUES = 4096  # summed at once where norms are bounded
THREADED_ROWS = 1000  # per query; where fewer are re-scored, one thread does it
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
    return BlockSizes(
        queries=queries,
        disk_rows=max(
            1, min(2 * share // (18 * dim), 2**26 // (4 * dim))
        ),  # three blocks alive, float16 beside float32
        rows=max(
            1, min(most_rows // n_threads, (2**22 if on_cpu else 2**26) // (4 * dim))
        ),  # 4 MiB stay in a CPU's cache
        first_rows=max(1, min(most_rows, 2 * DENSE * k)),
        dense_rows=max(1, 2 * share // (queries * 8 + n_threads * 24)),
        exact_rows=max(1, min(share // (n_threads * (queries * 64 + dim * 64)), 2**20 // dim)),
        candidates=max(1, min(share // 64, max(4096, 4 * queries * k))),
    )


@dataclass(frozen=True)
class Hurdle:
    """What a row must reach to be a candidate: `products` (padded Q,) float32, from the k-th best scores and the
    longest row."""

    floor: np.ndarray
    largest_norm: float
    products: np.ndarray


@dataclass(frozen=True)
class Scanned:
    """What one float32 product found. positions: flat, in (n, padded Q); None where they are too many to be worth
    listing."""

    start: int
    stop: int
    hurdle: Hurdle
    positions: np.ndarray | None = None
    products: np.ndarray | None = None


class QueryGroup:
    """Queries searched together: their best keys so far (shared with the result) and the candidates that wait for a
    final score."""

    def __init__(
        self,
        descriptors: np.ndarray,
        best: np.ndarray,
        filled: np.ndarray,
        sizes: BlockSizes,
        device: torch.device,
        workers: ThreadPoolExecutor,
    ) -> None:
        n_queries, dim = descriptors.shape
        self.rows64 = np.asarray(descriptors, np.float32).astype(np.float64)
        self.norms = np.sqrt(np.einsum("ij,ij->i", self.rows64, self.rows64))
        padded = np.zeros(
            (-(-n_queries // 8) * 8, dim), np.float32
        )  # matrix libraries are up to a fifth slower on odd widths
        padded[:n_queries] = descriptors
        self.queries32 = torch.from_numpy(padded).to(device)
        self.best, self.filled, self.k = best, filled, best.shape[1]
        self.sizes, self.device, self.workers = sizes, device, workers
        self.on_cpu = device.type == "cpu"
        self.largest_norm, self.measures_rows = UNIT_ROW_NORM, False
        full = filled == self.k
        self.floor = np.where(full, key_scores(best[:, -1]), -np.inf).astype(
            np.float64
        )  # no k-th best score is below it
        self.pool: list[tuple[np.ndarray, ...]] = []  # (query, row in the part, float32 product) of candidates
        self.n_pooled = 0

    def margin(self, largest_norm: float) -> np.ndarray:
        """(Q,) how far a float32 product with a row of at most that norm can lie from the final score.

        A sum of D products in any order, with or without fused operations, errs by at most D u / (1 - D u) * |x| |y|, u
        = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1, with Cauchy-Schwarz).
        Eight more u cover the rounding of the final score to float32; the constant covers underflow.
        """
        dim_roundoff = (self.rows64.shape[1] + 8) * 2.0**-24
        return dim_roundoff / max(1 - dim_roundoff, 1e-9) * self.norms * largest_norm + 1e-30

    def hurdle(self, floor: np.ndarray, largest_norm: float) -> Hurdle:
        """What float32 products must reach so that no final score of `floor` or more is missed; infinite for
        padding."""
        products = np.full(len(self.queries32), np.inf, np.float32)
        products[: len(floor)] = np.nextafter(
            (floor - self.margin(largest_norm)).astype(np.float32), np.float32(-np.inf)
        )
        return Hurdle(floor.copy(), largest_norm, products)

    def search(self, part: np.ndarray, first_row: int, n_threads: int, dense: bool) -> None:
        """Merges the best of `part`, whose first row is the database's `first_row`. dense: k is a large part of all
        rows."""
        if dense:
            self.score_all(part, first_row)
            return
        # A block of many times k rows finds a threshold in itself; else a larger first block gives it, and the others
        # wait for it.
        waits = self.sizes.rows < DENSE * self.k and not self.filled.all()
        n_first = min(self.sizes.first_rows if waits else self.sizes.rows, len(part))
        limits = [(0, n_first), *((n_first + a, n_first + b) for a, b in chunks(len(part) - n_first, self.sizes.rows))]
        under_way: deque = deque()
        hurdle = self.hurdle(self.floor, self.largest_norm)
        for start, stop in limits:
            if self.largest_norm > hurdle.largest_norm or not np.array_equal(self.floor, hurdle.floor):
                hurdle = self.hurdle(self.floor, self.largest_norm)
            under_way.append(self.workers.submit(self.scan, part, first_row, start, stop, hurdle))
            if len(under_way) >= 2 * n_threads or (waits and not np.isfinite(self.floor).all()):
                self.collect(part, first_row, under_way.popleft().result())
        for scanned in under_way:
            self.collect(part, first_row, scanned.result())
        self.prune()
        self.rescore(part, first_row)

    def on_device(self, rows: np.ndarray) -> torch.Tensor:
        """(n, D) float32 or float16 rows as they are, on the device."""
        block = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        return block if self.on_cpu else block.pin_memory().to(self.device, non_blocking=True)

    def squares(self, block: torch.Tensor) -> np.ndarray:
        """Numbers of which the largest is at least the largest squared norm of a row, and at most a few times that of
        unit rows."""
        if not self.on_cpu:
            return (block * block).sum(1).cpu().numpy()
        # A call per row costs more than its sum, so a sum goes over several rows; the bound may be that much too large.
        rows_per_sum = max(1, NORM_VALUES // block.shape[1])
        n_grouped = len(block) // rows_per_sum * rows_per_sum
        grouped, rest = block[:n_grouped].reshape(-1, rows_per_sum * block.shape[1]).numpy(), block[n_grouped:].numpy()
        return np.concatenate([np.vecdot(grouped, grouped), np.vecdot(rest, rest)])

    def measured(self, block: torch.Tensor, first_row: int) -> float:
        """A bound of the norms of these rows and those before. Raises UltronError naming a row that is not finite."""
        if not self.measures_rows:
            return self.largest_norm
        squares = self.squares(block)
        if not np.isfinite(squares).all():  # or so large that float32 cannot hold its square
            squares = (block.double() ** 2).sum(1).cpu().numpy()
            if not np.isfinite(squares).all():
                row = first_row + int(np.flatnonzero(~np.isfinite(squares))[0])
                raise UltronError(
                    f"database descriptors must be finite, row {row} has NaN or infinity; extract the database again"
                )
        largest = math.sqrt(float(squares.max())) * (
            1 + max(NORM_VALUES, block.shape[1]) * 2.0**-23
        )  # the sums have rounding errors
        return max(self.largest_norm, largest)

    def scan(self, part: np.ndarray, first_row: int, start: int, stop: int, hurdle: Hurdle) -> Scanned:
        """Finds the candidates among rows start..stop of `part`. Runs in a worker and changes nothing."""
        block, n_queries = self.on_device(part[start:stop]).float(), len(self.rows64)
        largest_norm = self.measured(block, first_row + start)
        # On a CPU NumPy's product was 10 to 20 % faster than torch's on tall blocks (AMD EPYC, OpenBLAS against MKL).
        scores = torch.from_numpy(block.numpy() @ self.queries32.numpy().T) if self.on_cpu else block @ self.queries32.T
        if len(block) >= DENSE * self.k and not np.isfinite(hurdle.floor).all():
            kth = torch.topk(scores[:, :n_queries].T.contiguous(), self.k, dim=1).values[:, -1].double().cpu().numpy()
            hurdle = self.hurdle(np.maximum(hurdle.floor, kth - self.margin(largest_norm)), largest_norm)
        elif largest_norm > hurdle.largest_norm:
            hurdle = self.hurdle(hurdle.floor, largest_norm)
        most = len(block) * n_queries // DENSE
        if self.on_cpu:  # NumPy finds what is rare several times faster than torch
            flags = scores.numpy() >= hurdle.products
            if np.count_nonzero(flags) > most:
                return Scanned(start, stop, hurdle)
            positions = np.flatnonzero(flags)
            return Scanned(start, stop, hurdle, positions, scores.numpy().reshape(-1)[positions])
        flags = (scores >= torch.from_numpy(hurdle.products).to(self.device)).view(-1)
        if int(flags.sum()) > most:
            return Scanned(start, stop, hurdle)
        positions = flags.nonzero().view(-1)
        return Scanned(start, stop, hurdle, positions.cpu().numpy(), scores.view(-1)[positions].cpu().numpy())

    def collect(self, part: np.ndarray, first_row: int, scanned: Scanned) -> None:
        """Takes in what `scan` found."""
        self.largest_norm = max(self.largest_norm, scanned.hurdle.largest_norm)
        self.floor = np.maximum(self.floor, scanned.hurdle.floor)
        if scanned.positions is None:
            self.score_all(part[scanned.start : scanned.stop], first_row + scanned.start)
            return
        width = len(self.queries32)
        self.pool.append((scanned.positions % width, scanned.positions // width + scanned.start, scanned.products))
        self.n_pooled += scanned.positions.size
        if self.n_pooled > self.sizes.candidates:
            self.prune()
            if self.n_pooled > self.sizes.candidates // 2:
                self.rescore(part, first_row)

    def prune(self) -> None:
        """Drops candidates that others in the pool have overtaken; leaves one pool entry, sorted by query."""
        if not self.pool:
            return
        query, row, product = (np.concatenate(column) for column in zip(*self.pool, strict=True))
        order = np.argsort(
            query.astype(np.uint64) << np.uint64(32) | packed(product, row) >> np.uint64(32)
        )  # by query, best first
        query, row, product = query[order], row[order], product[order]
        limits, margin = np.searchsorted(query, np.arange(len(self.floor) + 1)), self.margin(self.largest_norm)
        kth = limits[:-1] + self.k - 1
        enough = kth < limits[1:]
        self.floor[enough] = np.maximum(self.floor[enough], product[kth[enough]].astype(np.float64) - margin[enough])
        keep = product >= (self.floor - margin)[query]
        self.pool, self.n_pooled = [(query[keep], row[keep], product[keep])], int(keep.sum())

    def rescore(self, part: np.ndarray, first_row: int) -> None:
        """Gives the pooled candidates their final scores, merges them and empties the pool (which `prune` has
        sorted)."""
        if not self.pool:
            return
        query, row, _ = self.pool[0]
        limits = np.searchsorted(query, np.arange(len(self.floor) + 1))

        def rescore_query(i: int) -> None:
            rows = row[limits[i] : limits[i + 1]]
            keys = np.empty(len(rows), np.uint64)
            for start, stop in chunks(len(rows), self.sizes.exact_rows):
                picked = np.take(part, rows[start:stop], axis=0)
                products = np.vecdot(picked, self.rows64[i])[None]  # float64: NumPy converts a few values at a time
                scores = self.final_scores(products, slice(i, i + 1), picked, self.largest_norm)
                keys[start:stop] = packed(scores[0], first_row + rows[start:stop])
            self.merge(i, keys)

        queries = np.flatnonzero(np.diff(limits)).tolist()
        # Threads that do little between calls wait longer for Python than they compute.
        list(
            self.workers.map(rescore_query, queries)
            if len(row) > THREADED_ROWS * len(queries)
            else map(rescore_query, queries)
        )
        self.pool, self.n_pooled = [], 0

    def score_all(self, part: np.ndarray, first_row: int) -> None:
        """Merges every row of `part`, whose first row is the database's `first_row`."""
        queries = torch.from_numpy(self.rows64).to(self.device)
        for start, stop in chunks(len(part), self.sizes.dense_rows):
            keys = np.empty((len(self.rows64), stop - start), np.uint64)

            def score_rows(limits: tuple[int, int], start: int = start, keys: np.ndarray = keys) -> float:
                a, b = limits
                rows = part[start + a : start + b]
                block = self.on_device(rows).double()
                largest_norm = self.measured(block, first_row + start + a)
                scores = self.final_scores((queries @ block.T).cpu().numpy(), slice(None), rows, largest_norm)
                keys[:, a:b] = packed(scores, np.arange(first_row + start + a, first_row + start + b))
                return largest_norm

            self.largest_norm = max(self.workers.map(score_rows, chunks(stop - start, self.sizes.exact_rows)))
            list(self.workers.map(self.merge, range(len(keys)), keys))

    def final_scores(self, products: np.ndarray, queries: slice, rows: np.ndarray, largest_norm: float) -> np.ndarray:
        """(q, n) float32 scores of these queries and (n, D) rows from float64 products summed in whatever order a
        library chose.

        Two orders differ by at most twice D v / (1 - D v) * |x| |y|, v = 2^-53. Where that could change the rounding to
        float32 (about one score in 100,000), the sum is taken again in one fixed order.
        """
        bound = (2.02 * (rows.shape[1] + 4) * 2.0**-53 * largest_norm) * self.norms[queries, None] + 1e-300
        scores = (products - bound).astype(np.float32)
        query, position = np.nonzero(scores != (products + bound).astype(np.float32))
        for start, stop in chunks(len(query), self.sizes.exact_rows):
            those = query[start:stop], position[start:stop]
            scores[those] = dot_in_fixed_order(self.rows64[queries][those[0]], rows[those[1]])
        return scores

    def merge(self, i: int, keys: np.ndarray) -> None:
        """Takes new keys of query i into its best. A row of `best` is sorted once it is full; k <= N, so each gets
        full."""
        best, n_taken = self.best[i], min(self.k - int(self.filled[i]), keys.size)
        if n_taken:
            best[self.filled[i] : self.filled[i] + n_taken] = keys[:n_taken]
            self.filled[i] += n_taken
            if self.filled[i] < self.k:
                return
            best.sort()
            keys = keys[n_taken:]
        keys = np.sort(keys[keys < best[-1]])[: self.k]
        if keys.size:
            # The k smallest of two ascending lists: pair the first's tail, from its end, with the second's head and
            # keep each pair's smaller (the first stage of a bitonic merge). In place, however large k is.
            tail = best[self.k - keys.size :]
            np.minimum(tail, keys[::-1], out=tail)
            best.sort()
        self.floor[i] = max(self.floor[i], float(key_scores(best[-1:])[0]))


def dot_in_fixed_order(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) float64 inner products of rows. left, right: (n, D) holding float32 values, whose products float64 holds
    exactly."""
    terms = left.astype(np.float64) * right.astype(np.float64)
    width = terms.shape[1]
    while width > 1:  # halves are added to each other: the order depends on D alone
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]
