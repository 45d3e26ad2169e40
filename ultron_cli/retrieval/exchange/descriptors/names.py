"""Lists of names beside arrays that have none: a name per line, or a list in JSON."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import read_json, read_text
from ultron_cli.schema.values import shown

UNFIT = re.compile(r"^\s|\s$|[\0\r\n\ud800-\udfff]")
UNFIT_RULE = "a name in UTF-8 on one line that neither begins nor ends with a blank"
ADVICE = "write a name per line, one for each row"


def names_beside(path: Path) -> Path:
    """Where the list of an array's photos lies: `x.names.txt` of `x.npy`."""
    return path.with_suffix(".names.txt")


def read_names(path: Path) -> list[str]:
    """The names of a list, one per row. Raises UltronError for an empty one."""
    if path.suffix.lower() == ".json":
        names = read_json(path, "list of names", list[str], advice=ADVICE, most_bytes=MOST_LIST_BYTES)
    else:
        text = read_text(path, "list of names", advice=ADVICE, most_bytes=MOST_LIST_BYTES)
        names = [line.removesuffix("\r") for line in text.split("\n")]
        while names and not names[-1]:
            names.pop()
    if "" in names or "\0" in "".join(names):
        row = next(row for row, name in enumerate(names) if not name or "\0" in name)
        raise UltronError(f"{path}: the name of row {row} must be a text, found {shown(names[row])}; {ADVICE}")
    return names


def names_text(names: Sequence[str]) -> Iterator[bytes]:
    """A list as a text, a name per line, in large parts."""
    for start, stop in chunks(len(names), 1 << 14):
        yield "".join(f"{name}\n" for name in names[start:stop]).encode()
