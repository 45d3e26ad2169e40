"""Where output goes: results to stdout, log lines and progress to stderr.

`settings` holds what the global flags chose (--json, -v, -q, --device, --workspace, --data-root) and how the running
command calls its flags; cli.py fills it before a command runs.
"""

import contextlib
import html
import io
import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ultron_cli.errors import UltronError, with_flags

log = logging.getLogger("ultron")
WIDTH_OF_FILES = 200  # columns of a table that goes into a file or a pipe
COLUMN_GAP = 3  # characters between two columns of a table
MOST_ROWS = 50  # of a table or a list for people
T = TypeVar("T")
_bar_lock = threading.RLock()
_SURROGATE = re.compile("[\ud800-\udfff]")
# Also what turns the direction of a line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Settings:
    """What the global flags of this process chose."""

    json: bool = False
    verbosity: int = 0  # -1 errors only, 0 normal, 1 debug
    device: str = "auto"
    workspace: Path | None = None
    data_root: Path | None = None
    flags: dict[str, str] = field(default_factory=dict)  # of the running command: a setting's name to its flag


settings = Settings()


def reset_settings() -> None:
    """Forgets the global flags of an earlier command: a process may run several."""
    global settings
    settings = Settings()


class _LineFormatter(logging.Formatter):
    """A line with the flags of the running command; of an error in it, what that command can do about it."""

    def format(self, record: logging.LogRecord) -> str:
        values = record.args
        if isinstance(values, tuple):
            values = tuple(v.for_command(settings.flags) if isinstance(v, UltronError) else v for v in values)
        text = printable(with_flags(str(record.msg) % values if values else str(record.msg), settings.flags))
        return labelled(record.levelname.lower(), text) if record.levelno >= logging.WARNING else text


class _LogHandler(logging.StreamHandler):
    """Writes above a progress bar instead of through it, to the stderr of the moment (tests and notebooks swap it)."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" in sys.modules and self.stream.isatty():
            bar_class().write(self.format(record), file=self.stream)
        else:
            super().emit(record)


def start_log(verbosity: int) -> None:
    """Sends log lines to stderr; warnings carry their level."""
    handler = _LogHandler()
    handler.setFormatter(_LineFormatter())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel({-1: logging.ERROR, 0: logging.INFO}.get(verbosity, logging.DEBUG))


class WarnedOnce(logging.Filter):
    """Lets a line through the first time that it is logged."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_new = text not in self._texts
        self._texts.add(text)
        return is_new


@contextlib.contextmanager
def quiet_parts(warned_once: WarnedOnce) -> Iterator[None]:
    """Inside, a part of larger work says only warnings, each once in all its parts, and shows no bar; with -v it says
    all that it says alone."""
    level, verbosity = log.level, settings.verbosity
    log.addFilter(warned_once)
    if level >= logging.INFO:
        log.setLevel(max(level, logging.WARNING))
        settings.verbosity = -1
    try:
        yield
    finally:
        log.removeFilter(warned_once)
        log.setLevel(level)
        settings.verbosity = verbosity


def progress(items: Iterable[object] | None = None, *, total: int | None = None, what: str, unit: str = "photo") -> Any:
    """A tqdm bar with rate and ETA: on stderr where that is a terminal, in a notebook below its cell, and nowhere else;
    never with -q."""
    hidden = settings.verbosity < 0 or not (sys.stderr.isatty() or is_notebook())
    return bar_class()(
        items, total=total, desc=what, unit=f" {unit}", disable=hidden, file=sys.stderr, dynamic_ncols=True
    )


def bar_class() -> Any:
    """tqdm, with a lock of this process alone. Its own is one for all forks of a process, and if one of them is killed
    while it draws, all others wait for good."""
    if is_notebook():
        from tqdm.auto import tqdm  # a widget where the notebook has them, else text
    else:
        from tqdm import tqdm
    tqdm.set_lock(_bar_lock)
    return tqdm


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    item = getattr(value, "item", None)  # NumPy's and torch's scalars
    if item is not None and not hasattr(value, "__len__"):
        return _plain(item())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def dump_json(value: object, *, indent: int | None = 1, ascii_only: bool = False) -> str:
    """JSON text of plain data; NaN and infinity become null, paths and other objects their text."""
    try:  # a million rows are plain already, and looking at each takes as long as writing them
        text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, default=_plain)
    except (TypeError, ValueError):
        value = _plain(value)
        text = json.dumps(value, ensure_ascii=ascii_only)
    if indent is None:
        return without_surrogates(text)
    if "\\ud" in text or (not text.isascii() and _SURROGATE.search(text)):  # msgspec takes half of a pair for damage
        return without_surrogates(json.dumps(_plain(value), indent=indent, ensure_ascii=ascii_only))
    import msgspec  # takes 12 ms, which a command that writes no such JSON need not wait

    return msgspec.json.format(text, indent=indent)  # as Python's json would, which takes five times as long for it


def without_surrogates(json_text: str) -> str:
    """JSON text that can be encoded: bytes of a file's name that are not UTF-8 stand there as escapes (\\udce9), which
    Python reads back as it reads such a name."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


def printable(text: str, *, several_lines: bool = False) -> str:
    """`text` without what a terminal would obey instead of showing it: control characters, and bytes of a file's name
    that are not UTF-8, become escapes (\\n, \\xe9). several_lines: whether the ends of lines stay."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if several_lines and match[0] == "\n":
            return match[0]
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode()

    return _UNPRINTABLE.sub(escape, text)


def print_result(result: Mapping[str, object], text: str) -> None:
    """Prints the one result of a command: `text` for people, nothing of it with --quiet; or `result` as JSON, in ASCII,
    with --json."""
    if settings.verbosity < 0 and not settings.json:
        return
    try:
        print(dump_json(result, ascii_only=True) if settings.json else printable(text, several_lines=True), flush=True)
    except BrokenPipeError:  # `ultron search | head`: the reader has gone, which is not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prints_anything() -> None:
    """Lets stdout show names that its encoding lacks (cp1252, ASCII) as escapes, instead of failing on them."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def labelled(label: str, text: str) -> str:
    """`error: text` for stderr; the label is coloured in a terminal, unless NO_COLOR is set."""
    has_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colour = {"error": 31, "warning": 33}[label]
    return f"\x1b[1;{colour}m{label}:\x1b[0m {text}" if has_colour else f"{label}: {text}"


def cut(items: Sequence[T], what: str, *, most: int = MOST_ROWS, all_in: str | None = None) -> tuple[Sequence[T], str]:
    """(The first `most` items, what people are told of the others: `and 12 more of 62 photos; --json prints all`).

    what: the items, in the plural. all_in: where all are, instead. The text is empty where there are no others.
    """
    n_more = len(items) - most
    if n_more <= 0:
        return items, ""
    where = f"all in {all_in}" if all_in else with_flags("`json` prints all", settings.flags)
    return items[:most], f"and {n_more:,} more of {len(items):,} {what}; {where}"


def named(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c ...`: the first names of a list in a sentence, and whether there are more."""
    return ", ".join(names[:most]) + " ..." * (len(names) > most)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    left: int = 1,
    what: str = "rows",
    most: int = MOST_ROWS,
    all_in: str | None = None,
) -> str:
    """A text table that fits the terminal; the first `left` columns are aligned left, the others right.

    Texts wrap between words, so that numbers and names stay whole. Where not even that fits, each row becomes lines of
    its own, one per column. Of more than `most` rows the others are only counted; `what` and `all_in` are as in
    `cut`.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown_rows, rest = cut(list(rows), what, most=most, all_in=all_in)
    cells = [[str(cell) for cell in row] for row in shown_rows]
    terminal = sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else WIDTH_OF_FILES
    console = Console(width=width, color_system="auto" if terminal else None, file=sys.stdout)
    widths = _column_widths(columns, cells, console.width)
    if widths is None and any(columns):
        pairs = [pair for row in cells for pair in (*zip(columns, row, strict=True), ("", ""))]
        columns, cells, left = ("", ""), [list(pair) for pair in pairs[:-1]], 2
        widths = _column_widths(columns, cells, console.width)
    grid = Table(
        show_header=any(columns),
        show_edge=False,
        pad_edge=False,
        box=box.SIMPLE_HEAD,
    )
    for i, name in enumerate(columns):
        grid.add_column(
            Text(name), justify="left" if i < left else "right", overflow="fold", width=widths[i] if widths else None
        )
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(grid)
    return lines("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")), rest)


def _column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Characters of each column of a table, the widest ones narrowed until all fit into `width`; None where a word
    would have to be broken."""
    texts = [(name, *column) for name, *column in zip(columns, *rows, strict=True)]
    widths = [max(len(line) for text in column for line in (text.split("\n"))) for column in texts]
    narrowest = [max((len(word) for text in column for word in text.split()), default=0) for column in texts]
    while sum(widths) + COLUMN_GAP * (len(widths) - 1) > width:
        i = max(range(len(widths)), key=lambda i: (widths[i] > narrowest[i], widths[i]))
        if widths[i] <= narrowest[i]:
            return None
        widths[i] -= 1
    return widths


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same for a document; the first column is aligned left, the others right."""
    all_rows = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in all_rows)


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1, below: str = "") -> str:
    """The same for a notebook. below: a line of text under the table."""

    def cells(tag: str, values: Sequence[object]) -> str:
        sides = ("left" if i < left else "right" for i in range(len(values)))
        return "".join(
            f'<{tag} style="text-align: {side}">{html.escape(printable(str(value)))}</{tag}>'
            for side, value in zip(sides, values, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>" if any(columns) else ""
    under = f"<p>{html.escape(printable(below))}</p>" if below else ""
    return f"<table>{head}<tbody>{body}</tbody></table>{under}"


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """`1 photo`, `2 photos`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def lines(*parts: str | None) -> str:
    """Joins the parts that are there, one per line."""
    return "\n".join(part for part in parts if part)
