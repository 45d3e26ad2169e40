"""Files of torch: a tensor (N, D), {photo: vector}, or matrices with names. They are read with weights_only."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ultron_cli.retrieval.arrays import is_array, to_numpy
from ultron_cli.retrieval.exchange.descriptors.keyed import KEY_OF_ROLE, of_content
from ultron_cli.retrieval.exchange.descriptors.rows import DescriptorFormat, NamedRows
from ultron_cli.stops import undisturbed

SUFFIXES = (".pt", ".pth")
# What torch began files with before 2020: a number in a pickle.
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read(path: Path) -> list[NamedRows]:
    """The descriptors of a file of torch. Raises UltronError."""
    reading = importlib.import_module("ultron_cli.models.weights.reading")  # loads torch, as no other format does
    content: object = reading.load_torch_file(path, "descriptors")
    if isinstance(content, dict):
        content = {key: to_numpy(value) if is_array(value) else value for key, value in content.items()}
    return of_content(to_numpy(content) if is_array(content) else content, str(path))


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """{"descriptors", "names"}, or {"queries", "query_names", "database", "database_names"}: in memory."""
    import torch

    content: dict[str, object] = {}
    for part in parts:
        rows_key, names_key = KEY_OF_ROLE[part.role if len(parts) > 1 else None]
        rows = np.empty((part.n, part.dim), part.dtype)
        first = 0
        for block in part.blocks(part.rows_per_block()):
            rows[first : first + len(block)] = block
            first += len(block)
        content |= {rows_key: torch.from_numpy(rows), names_key: list(part.names or ())}
    with undisturbed():
        torch.save(content, output)


FORMAT = DescriptorFormat(
    what="a file of torch: descriptors and names, {photo: vector} or a tensor (N, D)",
    read=read,
    sniff=lambda path, head: path.suffix.lower() in SUFFIXES or head.startswith(OLD),
    write=write,
    has_both=True,
)
