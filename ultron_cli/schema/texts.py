"""Files of text, JSON, JSON lines and TOML."""

import contextlib
import gc
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ultron_cli.errors import UltronError
from ultron_cli.memory import check_memory
from ultron_cli.schema.regular import MOST_BYTES, MOST_LIST_BYTES, read_bytes
from ultron_cli.schema.values import MOST_LEVELS, Misfit, fit, refuse_odd

T = TypeVar("T")
Numbers = dict[str, int | float | None]  # a line of JSON about one step or one epoch

MOST_TOML_BYTES = 1 << 20
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|\'[^\'\n]*+\'?')  # to the line's end where it is open
_TOO_DEEP = f"lists and tables may lie {MOST_LEVELS} deep at most"
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MOST_LEVELS}}}")
NEWLINE = b"\n"
# What CPython takes for each of these signs in JSON: for a value and its place, for an object and for a list.
_JSON_BYTES = {b",": 56, b":": 56, b"{": 184, b"[": 64}


def _text(data: bytes) -> str:
    """UTF-8 with or without mark. Raises Misfit that names the line."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Misfit(f"line {line} is not UTF-8") from None


def read_text(
    path: Path,
    what: str,
    *,
    if_absent: str = "check the path",
    advice: str = "save it as UTF-8",
    most_bytes: int = MOST_BYTES,
) -> str:
    """The text of a small file in UTF-8, with or without mark. Raises UltronError."""
    try:
        return _text(read_bytes(path, what, if_absent=if_absent, most_bytes=most_bytes))
    except Misfit as misfit:
        raise UltronError(f"{what} {path}: {misfit}; {advice}") from None


def parse_json(text: bytes | str, label: str = "a text") -> Any:
    """The plain data of a JSON text. Raises Misfit that names line and column, or the place of a number or a text that
    no reader could take: over 64 bits, with a NUL, more than MOST_LEVELS deep. Raises OverBudget, naming the label, for
    a text whose data would take more memory than may be taken, up to forty times its length."""
    import msgspec  # takes 12 ms, which a command that reads no file need not wait

    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    n_bytes = len(data) + sum(data.count(sign) * size for sign, size in _JSON_BYTES.items())
    check_memory(n_bytes, f"{label}: JSON of {len(data):,} bytes")
    data = data.removeprefix(b"\xef\xbb\xbf")
    has_surrogates = False
    try:
        _text(data)  # msgspec does not say where
        try:
            with without_collection():
                value = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            # The name of a file that is not UTF-8, as Python's json writes it, which msgspec takes for damage, or near
            # the end of the text for a text that is cut.
            has_surrogates = re.search(rb"\\u[dD][89a-fA-F]", data) is not None
            if not has_surrogates:
                raise
            try:
                value = json.loads(data, parse_constant=_no_number)
            except ValueError:
                raise error from None
    except RecursionError:
        raise Misfit(f"lists and objects may lie {MOST_LEVELS} deep at most") from None
    except msgspec.DecodeError as error:
        raise Misfit(_malformed(str(error), data)) from None
    is_odd = (
        has_surrogates
        or b"\\u0000" in data
        or data.count(b"[") + data.count(b"{") > MOST_LEVELS
        or re.search(rb"\d{19}", data)
    )
    if is_odd:
        refuse_odd(value)
    return value


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Inside, Python does not look for what can be freed. It looks again after every so many lists and objects, which
    takes five times as long as reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _malformed(message: str, data: bytes) -> str:
    """msgspec's message with line and column in place of the byte."""
    if not data.strip():
        return "it is empty"
    if "truncated" in message:
        return "it ends too early"
    reason, _, place = message.removeprefix("JSON is malformed: ").partition(" (byte ")
    if not place:
        return reason
    offset = int(place.rstrip(")"))
    line = data.count(NEWLINE, 0, offset) + 1
    return f"line {line}, column {offset - data.rfind(NEWLINE, 0, offset)}: {reason}"


def read_json(
    path: Path,
    what: str,
    kind: type[T] = object,
    *,
    advice: str = "make it again",
    if_absent: str = "check the path",
    most_bytes: int = MOST_BYTES,
) -> T:
    """A JSON file as `kind`.

    what: names the file in an error; advice: what to do if it is unsound. Raises UltronError that names file and place.
    """
    data = read_bytes(path, what, if_absent=if_absent, most_bytes=most_bytes)
    try:
        content = parse_json(data, f"{what} {path}")
    except Misfit as misfit:
        raise UltronError(f"{what} {path} is not readable JSON ({misfit}); {advice}") from None
    return fit_file(content, kind, path, what, advice)


def fit_file(content: object, kind: type[T], path: Path, what: str, advice: str) -> T:
    """Plain data that was read from a file as `kind`. Raises UltronError that names file and place."""
    with in_file(path, what, advice):
        return fit(content, kind)


@contextlib.contextmanager
def in_file(path: Path, what: str, advice: str) -> Iterator[None]:
    """Inside, what does not fit becomes an UltronError that names the file."""
    try:
        yield
    except Misfit as misfit:
        raise UltronError(f"{what} {path}: {misfit}; {advice}") from None


def read_json_lines(path: Path, what: str, kind: type[T]) -> Iterator[tuple[int, T | None]]:
    """(line, value) of every line that is not empty; None where the line is none of `kind`. Nothing for a file that is
    absent. Raises UltronError if it cannot be opened."""
    if not os.path.exists(path):
        return
    for number, line in enumerate(read_bytes(path, what, most_bytes=MOST_LIST_BYTES).split(NEWLINE), start=1):
        if line.strip():
            try:
                yield number, fit(parse_json(line, f"{what} {path}"), kind)
            except Misfit:
                yield number, None


def parse_toml(text: str) -> dict[str, Any]:
    """The plain data of a TOML text. Raises Misfit that names the place, also for numbers that are not finite."""
    # Python's reader takes an hour for a key of 100,000 parts.
    if _DEEP_KEY.search(_QUOTED.sub("x", text)):
        raise Misfit(_TOO_DEEP)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise Misfit(_TOO_DEEP) from None
    except ValueError as error:  # also a date that is none, a number of thousands of digits
        raise Misfit(str(error)) from None
    refuse_odd(values)
    return values


def read_toml(
    path: Path, what: str, kind: type[T] = dict, *, if_absent: str = "check the path", advice: str = "correct it"
) -> T:
    """A TOML file as `kind`. Raises UltronError that names file and place."""
    text = read_text(path, what, if_absent=if_absent, most_bytes=MOST_TOML_BYTES)
    try:
        content = parse_toml(text)
    except Misfit as misfit:
        raise UltronError(f"{path} is not valid TOML: {misfit}; {advice}") from None
    return fit_file(content, kind, path, what, advice)
