"""Tables as text: CSV whose first line names the columns, plain lists, and lines whose fields stand between blanks."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.schema.regular import MOST_LIST_BYTES, open_regular
from ultron_cli.schema.values import MOST_SHOWN, Misfit, shown

MOST_LINE_BYTES = 1 << 20  # of a line whose fields stand between blanks
BOM = b"\xef\xbb\xbf"


def csv_lines(
    path: Path,
    what: str,
    *,
    if_absent: str,
    if_unreadable: str,
    delimiters: str = ",",
    most_bytes: int = MOST_LIST_BYTES,
) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every line of a CSV in UTF-8, with or without mark; lines without fields are left out.

    delimiters: of them, the one that is most frequent in the first line parts the fields. if_absent, if_unreadable:
    what to do then. Raises UltronError, naming the line, for what is no CSV in UTF-8.
    """
    descriptor = open_regular(path, what, if_absent=if_absent, most_bytes=most_bytes)
    csv.field_size_limit((1 << 31) - 1)  # a landmark may have thousands of photos in one field
    number = 0
    with open(descriptor, encoding="utf-8-sig", newline="") as handle:
        try:
            first = handle.readline()
            reader = csv.reader(
                _without_nul(itertools.chain([first], handle)), delimiter=max(delimiters, key=first.count)
            )
            for fields in reader:
                number = reader.line_num
                if fields:
                    yield number, fields
        except (UnicodeDecodeError, csv.Error, OSError, Misfit) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:MOST_SHOWN]
            raise UltronError(
                f"{what} {path} cannot be read as a CSV in UTF-8 (after line {number}: {reason}); {if_unreadable}"
            ) from None


def spaced_lines(
    path: Path, what: str, *, if_absent: str = "check the path", if_unreadable: str, most_bytes: int = MOST_LIST_BYTES
) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every line of a text in UTF-8 whose fields stand between blanks (of ASCII); lines without
    fields are left out. Raises UltronError, naming the line."""
    descriptor = open_regular(path, what, if_absent=if_absent, most_bytes=most_bytes)
    with open(descriptor, "rb") as handle:
        for number in itertools.count(1):
            try:
                line = handle.readline(MOST_LINE_BYTES)
                if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
                    raise Misfit(f"it has over {MOST_LINE_BYTES:,} bytes")
                fields = [field.decode() for field in line.removeprefix(BOM if number == 1 else b"").split()]
                if b"\0" in line:
                    raise Misfit("a NUL character")
            except (UnicodeDecodeError, OSError, Misfit) as error:
                reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:MOST_SHOWN]
                raise UltronError(f"{what} {path} cannot be read (line {number}: {reason}); {if_unreadable}") from None
            if fields:
                yield number, fields
            if not line:
                return


def _without_nul(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise Misfit("a NUL character")
        yield line


def csv_rows(
    path: Path,
    what: str,
    *,
    required: Sequence[Sequence[str]],
    optional: Sequence[str] | None = None,
    if_absent: str = "check the path",
    if_unreadable: str = "save it as a CSV in UTF-8",
    delimiters: str = ",",
    most_bytes: int = MOST_LIST_BYTES,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, field by column) of every line below the first, which names the columns; fields are stripped.

    required: sets of columns, one of which must be there whole. optional: other columns that may be there; None: any.
    Raises UltronError for a column that is missing, unknown or named twice, and for a line with more or fewer fields.
    """
    lines = csv_lines(
        path, what, if_absent=if_absent, if_unreadable=if_unreadable, delimiters=delimiters, most_bytes=most_bytes
    )
    _, heading = next(lines, (1, []))
    columns = [column.strip().lower() for column in heading]
    if not any(set(names) <= set(columns) for names in required):
        missing = [name for name in required[0] if name not in columns]
        raise UltronError(
            f"{path}: the first line must name the columns {' or '.join(', '.join(names) for names in required)}; "
            f"{', '.join(missing)} is missing, it is {shown(','.join(heading))}"
        )
    if optional is not None:
        known = (*itertools.chain(*required), *optional)
        for column in columns:
            if column not in known:
                raise UltronError(
                    f"{path}: unknown column {shown(column)}{nearest_names(column[:MOST_SHOWN], known)} (known: "
                    f"{', '.join(known)})"
                )
    if len(set(columns)) < len(columns):
        twice = next(column for i, column in enumerate(columns) if column in columns[:i])
        raise UltronError(f"{path}: the first line names the column {shown(twice)} twice; leave one")
    for number, fields in lines:
        if len(fields) != len(columns):
            raise UltronError(
                f"{path}, line {number} must have {len(columns)} fields, as the first line, found {len(fields)}; put a "
                f"field that holds the character between fields in quotes, or if the file was cut off, {if_unreadable}"
            )
        yield number, dict(zip(columns, map(str.strip, fields), strict=True))
