"""Flat indexes of Faiss, which hold descriptors as they are; a list beside them names the photos.

Faiss would read all of a file into memory. Its flat files are a head and the rows, so they are read and written here.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.descriptors.rows import MOST_BYTES, DescriptorFormat, NamedRows
from ultron_cli.schema.regular import open_regular

KINDS = {b"IxFI": "inner products", b"IxF2": "Euclidean distances", b"IxFl": "another metric"}
INNER_PRODUCT = 0
# Kind, D, N, two numbers without meaning, whether it is trained, metric; then how many float32 follow, and these.
HEAD = struct.Struct("<4siqqq?i")
COUNT = struct.Struct("<Q")
UNUSED = 1 << 20
ADVICE = "export the index as a flat one, or save its vectors with numpy.save"


def read(path: Path) -> list[NamedRows]:
    """The rows of a flat index. Raises UltronError."""
    with open(open_regular(path, "index", if_absent="check the path", most_bytes=MOST_BYTES), "rb") as handle:
        head = handle.read(HEAD.size + 4 + COUNT.size)
        n_bytes = os.fstat(handle.fileno()).st_size
    if head[:4] not in KINDS:
        raise UltronError(f"{path} is no flat index of Faiss, it begins with {head[:4]!r}; {ADVICE}")
    if len(head) < HEAD.size + 4 + COUNT.size:
        raise UltronError(f"{path} is truncated; {ADVICE}")
    _, dim, n, _, _, is_trained, metric = HEAD.unpack_from(head)
    offset = HEAD.size + (4 if metric > 1 else 0)  # a metric of its own has an argument
    (n_numbers,) = COUNT.unpack_from(head, offset)
    offset += COUNT.size
    if dim < 1 or n < 0 or not is_trained or n_numbers != n * dim or offset + 4 * n_numbers > n_bytes:
        raise UltronError(
            f"{path} declares {n:,} rows of {dim} and {n_numbers:,} numbers, and has {n_bytes - offset:,} bytes; "
            f"{ADVICE}"
        )

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        with open(path, "rb") as handle:
            handle.seek(offset)
            for start, stop in chunks(n, n_rows):
                data = handle.read(4 * dim * (stop - start))
                if len(data) < 4 * dim * (stop - start):
                    raise UltronError(f"{path} is truncated; {ADVICE}")
                yield np.frombuffer(data, "<f4").reshape(-1, dim)

    return [NamedRows(label=str(path), n=n, dim=dim, dtype="float32", blocks=blocks)]


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """An IndexFlatIP."""
    (part,) = parts
    output.write(HEAD.pack(b"IxFI", part.dim, part.n, UNUSED, UNUSED, True, INNER_PRODUCT))
    output.write(COUNT.pack(part.n * part.dim))
    for block in part.blocks(part.rows_per_block()):
        output.write(np.ascontiguousarray(block, "<f4").data)


FORMAT = DescriptorFormat(
    what="a flat index of Faiss, with a list of names",
    read=read,
    sniff=lambda path, head: head[:4] in KINDS,
    write=write,
    has_names=False,
)
