"""What fits a type, and where not: plain data, whether of JSON, TOML or a pickle, as dataclasses and lists."""

import math
import re
import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar

from ultron_cli.errors import one_line

T = TypeVar("T")

MOST_LEVELS = 64  # of lists and objects within one another; what ultron writes has under ten
MOST_SHOWN = 60  # characters of a value from a file that a message quotes
MOST_IN_ALL = 400  # characters of a message
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "object": "an object",
    "array": "a list",
}
_FOUND = {**_KINDS, "float": "a number with a fraction"}


class Misfit(ValueError):
    """What is wrong in a text, and at which place, in one line that does not name the file yet."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text[:MOST_IN_ALL]))


class _Short(reprlib.Repr):
    """Quotes a value in bounded time: a list that holds itself a million times over is as quick as an empty one."""

    maxlevel, maxdict, maxlist, maxtuple, maxset, maxfrozenset = 2, 4, 6, 6, 6, 6
    maxstring = maxother = maxlong = MOST_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if -(1 << 64) < x < 1 << 64 else f"a number of {x.bit_length()} bits"


def shown(value: object) -> str:
    """A value from a file as a message quotes it: one line, at most MOST_SHOWN characters."""
    text = _Short().repr(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def refuse_odd(value: object, chain: tuple = (), level: int = 0) -> None:
    """Raises Misfit for what JSON and TOML allow and no number or name of this project is. chain: (chain, key) of the
    place."""
    if level > MOST_LEVELS:
        raise Misfit(f"{_place(chain)} lies too deep; lists and objects may lie {MOST_LEVELS} deep at most")
    parts = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [value])
    for key, part in parts:
        if isinstance(key, str) and (fault := _fault_of(key)):
            raise Misfit(f"a key of {_place(chain)} holds {fault}")
        if isinstance(part, (dict, list)):
            refuse_odd(part, (chain, key), level + 1)
        elif isinstance(part, str) and (fault := _fault_of(part)):
            raise Misfit(f"{_place((chain, key))} holds {fault}")
        elif isinstance(part, int) and not -(1 << 63) <= part < 1 << 63:
            raise Misfit(f"{_place((chain, key))} must be a number of 64 bits, found {shown(part)}")
        elif isinstance(part, float) and not math.isfinite(part):
            raise Misfit(f"{_place((chain, key))} must be a finite number, found {part}")


def _fault_of(text: str) -> str:
    """What no name of a file can hold; empty for any other text."""
    if "\0" in text:
        return "a NUL character"
    if not text.isascii():
        try:
            text.encode("utf-8", "surrogateescape")  # as files are named that are not UTF-8
        except UnicodeEncodeError:
            return "half a character (a lone surrogate)"
    return ""


def _place(chain: tuple) -> str:
    keys: list[object] = []
    while chain:
        chain, key = chain
        keys.insert(0, key)
    return _place_of(keys)


def _place_of(keys: Sequence[object]) -> str:
    """`gnd[3].easy`."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{str(key)[:MOST_SHOWN]}" for key in keys if key is not None]
    return "".join(parts).removeprefix(".")[:200] or "the whole"


def fit(value: object, kind: type[T]) -> T:
    """Plain data as `kind`; tuples are lists. Raises Misfit that names the place."""
    import msgspec

    try:
        return msgspec.convert(value, kind, str_keys=True)
    except RecursionError:
        raise Misfit(f"lists and objects may lie {MOST_LEVELS} deep at most") from None
    except UnicodeEncodeError as error:
        raise Misfit(f"a key is not UTF-8: {shown(error.object)}") from None
    except msgspec.ValidationError as error:
        rule, _, place = str(error).partition(" - at ")
        where = _place_of(_keys(value, kind, str(error), place))
        raise Misfit(_in_words(rule, f"a key of {where}" if " in " in place else where)) from None


def _keys(value: Any, kind: type, message: str, place: str) -> list[str | int]:
    """The keys of `$.protocols[...].ap[...]`; for [...], which stands for a key of a dictionary, the one that is wrong.

    It is looked for by halves: with the wrong key alone the message is the same.
    """
    import msgspec

    def is_wrong(changed: object) -> bool:
        try:
            msgspec.convert(changed, kind, str_keys=True)
        except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:
            return str(error) == message
        return False

    path: list[str | int] = []
    for name, number in re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", place):
        if number != "...":
            path.append(int(number) if number else name)
            continue
        table = value
        for key in path:
            table = table[key]
        keys = list(table)
        while len(keys) > 1:
            half = keys[: len(keys) // 2]
            keys = half if is_wrong(_replaced(value, path, {key: table[key] for key in half})) else keys[len(half) :]
        value = _replaced(value, path, {key: table[key] for key in keys})
        path += keys
    return path


def _replaced(value: Any, path: Sequence[str | int], part: object) -> Any:
    """A copy of nested data in which the part at `path` is another."""
    if not path:
        return part
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _replaced(value[path[0]], path[1:], part)
    return changed


def _in_words(rule: str, where: str) -> str:
    """msgspec's rule in this project's words: `gnd[3].easy must be a list, found a number`."""
    if match := re.fullmatch(r"Object missing required field `(.*)`", rule):
        return f"{where} lacks {match[1]}"
    if match := re.fullmatch(r"Expected `([^`]*)`(.*?)(?:, got `?([^`]*)`?)?", rule):
        expected = " or ".join(_KINDS.get(name, name) for name in match[1].split(" | "))
        obtained = f", found {_FOUND.get(match[3], match[3])}" if match[3] else ""
        return f"{where} must be {expected}{match[2]}{obtained}"
    if match := re.fullmatch(r"Invalid enum value (.*)", rule, re.DOTALL):
        return f"{where} holds {match[1][:MOST_SHOWN]}, which is no known value"
    return f"{where}: {rule}"
