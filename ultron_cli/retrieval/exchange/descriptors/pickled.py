"""Pickles of {photo: vector}, as DOLG publishes its descriptors, queries among them. Nothing in a pickle is run."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.retrieval.exchange.descriptors.keyed import of_content
from ultron_cli.retrieval.exchange.descriptors.rows import DescriptorFormat, NamedRows

SUFFIXES = (".pkl", ".pickle", ".pk")


def read(path: Path) -> list[NamedRows]:
    """The descriptors of a pickle. Raises UltronError."""
    content = load_plain_pickle(path, "a pickle of descriptors", "save the array with numpy.save")
    return of_content(content, str(path))


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """{photo: (D,) vector} of protocol 2, queries first. A photo at a time: each is a pickle of its own, of which the
    frame (version, end) is left out."""
    output.write(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT)
    for part in parts:
        row = 0
        names = part.names or ()
        for block in part.blocks(part.rows_per_block()):
            items = (_value(names[row + i]) + _value(vector) + pickle.SETITEM for i, vector in enumerate(block))
            output.write(b"".join(items))
            row += len(block)
    output.write(pickle.STOP)


def _value(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


FORMAT = DescriptorFormat(
    what="a pickle of {photo: vector}, queries among them, as DOLG publishes it",
    read=read,
    sniff=lambda path, head: path.suffix.lower() in SUFFIXES or head[:1] == pickle.PROTO,
    write=write,
    has_both=True,
)
