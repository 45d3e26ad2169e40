"""Descriptors as CSV: a photo's name and then its numbers, a line per photo; a first line may name the columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.descriptors.names import UNFIT, UNFIT_RULE
from ultron_cli.retrieval.exchange.descriptors.rows import MOST_BYTES, DescriptorFormat, NamedRows
from ultron_cli.schema.tables import csv_lines
from ultron_cli.schema.values import shown

SUFFIXES = (".csv", ".tsv")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    advice = "save it as a CSV in UTF-8"
    lines = csv_lines(
        path, "descriptors", if_absent="check the path", if_unreadable=advice, delimiters=",;\t", most_bytes=MOST_BYTES
    )
    for i, (number, fields) in enumerate(lines):
        if i == 0 and _are_columns(fields[1:]):
            continue
        yield number, fields


def _are_columns(fields: list[str]) -> bool:
    """Whether the fields behind the first name columns: no numbers, or those from 0 on, as pandas counts them."""
    try:
        return [float(field) for field in fields[:8]] == list(range(len(fields[:8]))) and len(fields) > 1
    except ValueError:
        return True


def read(path: Path) -> list[NamedRows]:
    """The rows of a table; numbers become float32. Raises UltronError, naming the line."""
    names: list[str] = []
    dim = 0
    for number, fields in _lines(path):
        dim = dim or len(fields) - 1
        if len(fields) - 1 != dim or not dim or not fields[0]:
            raise UltronError(
                f"{path}, line {number} must have a name and {max(dim, 1)} numbers, found {len(fields)} "
                f"fields that begin with {shown(fields[0])}; correct the line"
            )
        names.append(fields[0])
    if not names:
        raise UltronError(f"{path} holds no descriptors; check the path, or name another `format`")

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        rows: list[np.ndarray] = []
        for number, fields in _lines(path):
            try:
                with np.errstate(over="ignore"):
                    rows.append(np.array(fields[1:], np.float64).astype(np.float32))
            except ValueError:
                raise UltronError(
                    f"{path}, line {number} must hold numbers behind the name; correct the line"
                ) from None
            if len(rows) == n_rows:
                yield np.stack(rows)
                rows = []
        if rows:
            yield np.stack(rows)

    return [NamedRows(label=str(path), n=len(names), dim=dim, dtype="float32", blocks=blocks, names=names)]


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """Such a table; numbers are the shortest texts that read back as the same."""
    (part,) = parts
    output.write((",".join(["photo", *(f"d{i}" for i in range(part.dim))]) + "\n").encode())
    row = 0
    names = part.names or ()
    for block in part.blocks(part.rows_per_block()):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        numbers = block.astype("U").tolist()
        writer.writerows([names[row + i], *numbers[i]] for i in range(len(block)))
        output.write(text.getvalue().encode())
        row += len(block)


FORMAT = DescriptorFormat(
    what="a table: a photo's name, then its numbers",
    read=read,
    sniff=lambda path, head: path.suffix.lower() in SUFFIXES,
    write=write,
    unfit=UNFIT,
    unfit_rule=UNFIT_RULE,
)
