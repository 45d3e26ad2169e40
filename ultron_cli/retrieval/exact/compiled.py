"""Candidates of exact search by the compiled scan, which compares products as it forms them."""

from dataclasses import dataclass

import numpy as np
from ultron_kernels import search

from ultron_cli.retrieval.exact.candidates import DENSE, DatabasePart, Hurdle, NumpyScanner, Scanned

WORTH_BUILDING = 2 * 10**11  # multiplications, which NumPy does in some seconds on two cores


@dataclass(frozen=True)
class CompiledScanner(NumpyScanner):
    """On the CPU, once there is a floor. What it finds is final only after `QueryBlock.final_scores`, as with every
    scanner, so that results are the same."""

    def scan(self, part: DatabasePart, start: int, stop: int, hurdle: Hurdle) -> Scanned:
        rows = part.rows[start:stop]
        if np.isfinite(hurdle.floor).all() and search.can_scan(rows):
            most = len(rows) * self.queries.n // DENSE
            candidates = search.scan(rows, self.queries.padded32, hurdle.products, most)
            if candidates is not None and candidates[2] <= hurdle.largest_norm:
                return Scanned(start, stop, hurdle, *candidates[:2])
        return super().scan(part, start, stop, hurdle)
