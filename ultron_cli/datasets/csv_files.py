"""Opens the CSV files that users and publishers write: labels, pairs, boxes, landmark lists and exclusion lists."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ultron_cli.errors import UltronError


@contextlib.contextmanager
def open_csv(
    path: Path, *, what: str, if_absent: str, if_unreadable: str, newline: str | None = ""
) -> Iterator[TextIO]:
    """Yields the text of a CSV in UTF-8, with or without mark.

    what: names the file in an error; if_absent, if_unreadable: what to do then. newline: as of `open`; csv's readers
    want "". Raises UltronError if there is no such file or it is no CSV in UTF-8, also while the block reads it.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as handle:
            yield handle
    except FileNotFoundError:
        raise UltronError(f"{what} {path} does not exist; {if_absent}") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UltronError(f"{what} {path} cannot be read as a CSV in UTF-8 ({error}); {if_unreadable}") from error
