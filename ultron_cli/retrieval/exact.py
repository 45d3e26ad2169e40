"""Exact search by inner product, in blocks of bounded memory, on the CPU or a CUDA device.

A score is the float64 inner product of the float32 rows rounded to float32, equal scores are ordered by row: the result depends
neither on block sizes nor on threads nor on the device. How it stays fast:
  1. float32 matrix products find candidates: rows that the rounding error could still put among the k best (`QueryGroup.margin`);
  2. only candidates get their final score (`final_scores`); where they are many, float64 matrix products give every score;
  3. score and row are packed into one integer whose order is the order of the ranking, so merging and ties are integer sorts.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ultron_cli.console import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.ranks import EMPTY, Ranking, check_search, key_scores, packed, unpacked

UNIT_ROW_NORM = 1.01  # unit rows with room for float16 rounding; a longer row in an array is measured
DENSE = 16  # with more than 1/16 of all pairs to be re-scored, float64 products of whole blocks are the faster way


@dataclass(frozen=True)
class BlockSizes:
    """How the work is cut; each number is at least 1."""

    queries: int  # searched together
    disk_rows: int  # read from a file at once
    rows: int  # of one float32 product
    first_rows: int  # of the first product, which sets the first threshold
    dense_rows: int  # scored in full before they are merged
    exact_rows: int  # in float64 at once
    candidates: int  # that may wait for re-scoring


def block_sizes(n_queries: int, dim: int, k: int, *, dense: bool, on_cpu: bool, max_memory_mib: int) -> BlockSizes:
    """Cuts the work so that all buffers together stay under 3/4 of max_memory_mib; the rest is for matrix libraries."""
    share = int(max_memory_mib * 2**20 * 3 / 4) // 8  # 8 shares: disk 2, float64 products 2, each of the others 1
    queries = max(1, min(n_queries, 64 if dense else 1024, share // (20 * dim)))  # float32 twice, float64 once
    most_rows = share // (queries * 24 + dim * 12)  # a score with its flag and survivor, the block on host and device
    return BlockSizes(
        queries=queries,
        disk_rows=max(1, min(2 * share // (18 * dim), 2**26 // (4 * dim))),  # three blocks alive, float16 beside float32
        rows=max(1, min(most_rows, (2**24 if on_cpu else 2**26) // (4 * dim))),  # 16 MiB stay in a CPU's cache
        first_rows=max(1, min(most_rows, max(4096, 2 * DENSE * k))),
        dense_rows=max(1, 2 * share // (queries * 12 + dim * 12)),
        exact_rows=max(1, min(share // (queries * 64 + dim * 64), 2**21 // dim)),
        candidates=max(1, min(share // 64, max(4096, 4 * queries * k))),
    )


def exact_search(
    query_descriptors: np.ndarray, database: np.ndarray | DescriptorFile, k: int, *, device: str = "cpu", max_memory_mib: int = 768
) -> Ranking:
    """The k database rows of largest inner product per query, equal scores by row.

    query_descriptors: (Q, D) float32. database: (N, D) float32 or float16 array, or an open descriptor file, which is read in
    blocks with the next one read ahead. k: 1..N. max_memory_mib bounds what is used beside the inputs and the (Q, k) result.
    Raises UltronError if k or the dimensions do not fit or a value is not finite.
    """
    n, dim = database_shape(database)
    check_search(query_descriptors, n, dim, k)
    target, dense = torch.device(device), DENSE * k > n
    sizes = block_sizes(len(query_descriptors), dim, k, dense=dense, on_cpu=target.type == "cpu", max_memory_mib=max_memory_mib)
    best = np.full((len(query_descriptors), k), EMPTY)  # becomes the rows of the result, in place
    filled = np.zeros(len(query_descriptors), np.int64)
    largest_norm = UNIT_ROW_NORM
    with full_float32(target), contextlib.closing(database_parts(database, sizes.disk_rows)) as parts:
        for first_row, part in parts:
            for start, stop in chunks(len(query_descriptors), sizes.queries):
                group = QueryGroup(query_descriptors[start:stop], best[start:stop], filled[start:stop], largest_norm, sizes, target)
                group.measures_rows = start == 0 and isinstance(database, np.ndarray)  # files are checked as they are read
                group.search(part, first_row, dense)
                largest_norm = group.largest_norm
    return unpacked(best)


def database_shape(database: np.ndarray | DescriptorFile) -> tuple[int, int]:
    """(N, D). Raises ValueError for an array of another kind, UltronError for more rows than keys can name."""
    if isinstance(database, DescriptorFile):
        n, dim = database.n, database.dim
    elif database.ndim == 2 and database.dtype in (np.float32, np.float16):
        n, dim = database.shape
    else:
        raise ValueError(f"database must be (N, D) float32 or float16, got {database.shape} {database.dtype}")
    if n >= 2**32:
        raise UltronError(f"exact search takes at most {2**32 - 1} database rows, found {n}; split the database")
    return n, dim


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Inside, float32 products are float32 whatever this process has chosen: no TF32, no bfloat16, no autocast."""
    matmuls = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    for matmul in matmuls:
        matmul.fp32_precision = "ieee"
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


def database_parts(database: np.ndarray | DescriptorFile, rows_per_part: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of consecutive parts: an array whole, a file in blocks of which a thread reads the next one ahead."""
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


def device_blocks(part: np.ndarray, first_rows: int, rows: int, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row in the part, (n, D) float32 on the device); the next block is on its way while one is worked on."""
    limits = [(0, min(first_rows, len(part)))]
    limits += [(start + first_rows, stop + first_rows) for start, stop in chunks(max(0, len(part) - first_rows), rows)]
    waiting = None
    for start, stop in limits:
        block = torch.from_numpy(np.require(part[start:stop], requirements=["C", "W"]))
        if device.type == "cuda":
            block = block.pin_memory()
        block = block.to(device, non_blocking=True).float()
        if waiting is not None:
            yield waiting
        waiting = start, block
    yield waiting


class QueryGroup:
    """Queries searched together: their best keys so far (shared with the result) and the candidates that wait for a final score."""

    def __init__(
        self, descriptors: np.ndarray, best: np.ndarray, filled: np.ndarray, largest_norm: float, sizes: BlockSizes, device: torch.device
    ) -> None:
        self.rows32 = np.ascontiguousarray(descriptors, np.float32)
        self.rows64 = self.rows32.astype(np.float64)
        self.norms = np.sqrt(np.einsum("ij,ij->i", self.rows64, self.rows64))
        self.best, self.filled, self.k = best, filled, best.shape[1]
        self.largest_norm, self.sizes, self.device = largest_norm, sizes, device
        self.measures_rows = False
        full = filled == self.k
        self.floor = np.where(full, key_scores(best[:, -1]), -np.inf).astype(np.float64)  # no k-th best score is below it
        self.pool: list[tuple[np.ndarray, ...]] = []  # (query, row in the part, float32 product) of candidates
        self.n_pooled = 0

    @property
    def margin(self) -> np.ndarray:
        """(Q,) how far a float32 product can lie from the final score.

        A sum of D products in any order, with or without fused operations, errs by at most D u / (1 - D u) * |x| |y|, u = 2^-24
        (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1, with Cauchy-Schwarz). Eight more u cover the
        roundings of the final score and of the norms used here; the constant covers underflow.
        """
        dim_roundoff = (self.rows32.shape[1] + 8) * 2.0**-24
        return dim_roundoff / max(1 - dim_roundoff, 1e-9) * self.norms * self.largest_norm + 1e-30

    def search(self, part: np.ndarray, first_row: int, dense: bool) -> None:
        """Merges the best of `part`, whose first row is the database's `first_row`."""
        n_queries, n_first = len(self.rows32), self.sizes.rows if self.filled.all() else self.sizes.first_rows
        if dense:
            for start, block in device_blocks(part, self.sizes.dense_rows, self.sizes.dense_rows, self.device):
                self.measure(block, first_row + start)
                self.score_all(part[start : start + len(block)], block, first_row + start)
            return
        padded = -(-n_queries // 8) * 8  # matrix libraries are up to a fifth slower on odd widths
        queries = np.zeros((padded, self.rows32.shape[1]), np.float32)
        queries[:n_queries] = self.rows32
        queries = torch.from_numpy(queries).to(self.device).T
        buffer = torch.empty((min(len(part), max(n_first, self.sizes.rows)), padded), device=self.device)
        threshold = self.threshold(padded)
        for start, block in device_blocks(part, n_first, self.sizes.rows, self.device):
            if self.measure(block, first_row + start):
                threshold = self.threshold(padded)
            scores = torch.mm(block, queries, out=buffer[: len(block)])
            if not np.isfinite(self.floor).all() and len(block) >= DENSE * self.k:
                kth = torch.topk(scores.T.contiguous()[:n_queries], self.k, dim=1).values[:, -1].double().cpu().numpy()
                self.floor = np.maximum(self.floor, kth - self.margin)
                threshold = self.threshold(padded)
            survivors = not_below(scores, threshold)
            if survivors.size * DENSE > len(block) * n_queries:
                self.score_all(part[start : start + len(block)], block, first_row + start)
                threshold = self.threshold(padded)
                continue
            values = scores.view(-1)[torch.from_numpy(survivors).to(self.device)].cpu().numpy()
            self.pool.append((survivors % padded, survivors // padded + start, values))
            self.n_pooled += survivors.size
            if self.n_pooled > self.sizes.candidates:
                self.prune()
                if self.n_pooled > self.sizes.candidates // 2:
                    self.rescore(part, first_row)
                threshold = self.threshold(padded)
        self.prune()
        self.rescore(part, first_row)

    def threshold(self, padded: int) -> torch.Tensor:
        """(padded,) float32: a product below it cannot belong to the k best; infinite for padding."""
        values = np.full(padded, np.inf, np.float32)
        values[: len(self.floor)] = np.nextafter((self.floor - self.margin).astype(np.float32), np.float32(-np.inf))
        return torch.from_numpy(values).to(self.device)

    def measure(self, block: torch.Tensor, first_row: int) -> bool:
        """Whether a row longer than any before was found, which widens the margin. Raises UltronError for a row that is not finite."""
        if not self.measures_rows:
            return False
        norms = torch.linalg.vector_norm(block, dim=1)
        largest = float(norms.max())
        if not np.isfinite(largest):
            row = first_row + int(torch.nonzero(~torch.isfinite(norms))[0])
            raise UltronError(f"database descriptors must be finite, row {row} has NaN or infinity; extract the database again")
        grew = largest > self.largest_norm
        self.largest_norm = max(self.largest_norm, largest)
        return grew

    def prune(self) -> None:
        """Drops candidates that others in the pool have overtaken; leaves one pool entry, sorted by query."""
        if not self.pool:
            return
        query, row, value = (np.concatenate(column) for column in zip(*self.pool, strict=True))
        order = np.argsort(query.astype(np.uint64) << np.uint64(32) | packed(value, row) >> np.uint64(32))  # by query, best first
        query, row, value = query[order], row[order], value[order]
        limits = np.searchsorted(query, np.arange(len(self.floor) + 1))
        kth = limits[:-1] + self.k - 1
        enough = kth < limits[1:]
        overtaken = value[kth[enough]].astype(np.float64) - self.margin[enough]
        self.floor[enough] = np.maximum(self.floor[enough], overtaken)
        keep = value >= (self.floor - self.margin)[query]
        self.pool = [(query[keep], row[keep], value[keep])]
        self.n_pooled = int(keep.sum())

    def rescore(self, part: np.ndarray, first_row: int) -> None:
        """Gives the pooled candidates their final scores, merges them and empties the pool (which `prune` has sorted)."""
        if not self.pool:
            return
        query, row, _ = self.pool[0]
        limits = np.searchsorted(query, np.arange(len(self.floor) + 1))
        for i in np.flatnonzero(np.diff(limits)):
            rows = row[limits[i] : limits[i + 1]]
            keys = np.empty(len(rows), np.uint64)
            for start, stop in chunks(len(rows), self.sizes.exact_rows):
                picked = part[rows[start:stop]].astype(np.float64)
                products = np.einsum("ij,j->i", picked, self.rows64[i])[None]
                scores = self.final_scores(products, slice(i, i + 1), picked)
                keys[start:stop] = packed(scores[0], first_row + rows[start:stop])
            self.merge(i, keys)
        self.pool, self.n_pooled = [], 0

    def score_all(self, part: np.ndarray, block: torch.Tensor, first_row: int) -> None:
        """Merges every row of a block: `part` on the host, `block` the same rows on the device."""
        queries = torch.from_numpy(self.rows64).to(self.device)
        for start, stop in chunks(len(block), self.sizes.dense_rows):
            keys = np.empty((len(self.rows64), stop - start), np.uint64)
            for a, b in chunks(stop - start, self.sizes.exact_rows):
                products = (queries @ block[start + a : start + b].double().T).cpu().numpy()
                scores = self.final_scores(products, slice(None), part[start + a : start + b])
                keys[:, a:b] = packed(scores, np.arange(first_row + start + a, first_row + start + b))
            for i in range(len(keys)):
                self.merge(i, keys[i])

    def final_scores(self, products: np.ndarray, queries: slice, rows: np.ndarray) -> np.ndarray:
        """(q, n) float32 scores of these queries and (n, D) rows from float64 products summed in whatever order a library chose.

        Two orders differ by at most twice D v / (1 - D v) * |x| |y|, v = 2^-53. Where that could change the rounding to float32
        (about one score in 100,000), the sum is taken again in one fixed order.
        """
        bound = (2.02 * (self.rows64.shape[1] + 4) * 2.0**-53 * self.largest_norm) * self.norms[queries, None] + 1e-300
        scores = (products - bound).astype(np.float32)
        query, position = np.nonzero(scores != (products + bound).astype(np.float32))
        for start, stop in chunks(len(query), self.sizes.exact_rows):
            those = query[start:stop], position[start:stop]
            scores[those] = dot_in_fixed_order(self.rows64[queries][those[0]], rows[those[1]])
        return scores

    def merge(self, i: int, keys: np.ndarray) -> None:
        """Takes new keys of query i into its best. A row of `best` is sorted once it is full; k <= N, so each gets full."""
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
            # The k smallest of two ascending lists: pair the first's tail, from its end, with the second's head and keep each
            # pair's smaller (the first stage of a bitonic merge). In place, however large k is.
            tail = best[self.k - keys.size :]
            np.minimum(tail, keys[::-1], out=tail)
            best.sort()
        self.floor[i] = max(self.floor[i], float(key_scores(best[-1:])[0]))


def not_below(scores: torch.Tensor, threshold: torch.Tensor) -> np.ndarray:
    """Flat positions of scores that reach their column's threshold; NumPy finds rare ones several times faster on the CPU."""
    if scores.device.type == "cpu":
        return np.flatnonzero(scores.numpy() >= threshold.numpy())
    return torch.nonzero((scores >= threshold).view(-1)).view(-1).cpu().numpy()


def dot_in_fixed_order(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) float64 inner products of rows. left, right: (n, D) holding float32 values, whose products float64 holds exactly."""
    terms = left.astype(np.float64) * right.astype(np.float64)
    width = terms.shape[1]
    while width > 1:  # halves are added to each other: the order depends on D alone
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]
