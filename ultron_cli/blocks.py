"""Consecutive blocks: how work over many rows stays within a bounded memory."""

from collections.abc import Iterator


def chunks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of at most `size` that cover range(n)."""
    for start in range(0, n, size):
        yield start, min(n, start + size)
