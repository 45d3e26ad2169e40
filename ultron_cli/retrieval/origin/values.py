"""What a file from elsewhere holds under a key, if it is of the kind that is looked for; and how people read it."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

T = TypeVar("T")
Json = Mapping[str, object]  # an object of a JSON file
SHOWN_OF_SHA256 = 16  # characters of 64, which tell any two files apart
ABSENT = "none"  # how a comparison shows what a result does not have
_SHA256 = re.compile(r"[0-9a-f]{64}")


def of_kind(value: object, kind: type[T] | tuple[type[T], ...]) -> T | None:
    """`value` if it is of that kind, else None: a file from elsewhere may hold anything under a key."""
    return value if isinstance(value, kind) else None


def object_of(value: object) -> Json:
    return cast(Json, value) if isinstance(value, Mapping) else {}


def objects_of(values: object) -> tuple[Json, ...]:
    return tuple(map(object_of, sequence_of(values)))


def in_words(value: object) -> str:
    """A setting's value as a comparison shows it."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value)) or ABSENT
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text[:SHOWN_OF_SHA256] if _SHA256.fullmatch(text) else text


def two_texts(values: object) -> tuple[str, str] | None:
    if isinstance(values, (list, tuple)) and len(values) == 2:
        first, second = values
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    return None


def box_of(values: object) -> tuple[float, float, float, float] | None:
    """(x1, y1, x2, y2), if that is what it is."""
    numbers = [float(value) for value in values if isinstance(value, (int, float))] if isinstance(values, list) else []
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def whole_numbers(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, int) for value in values):
        return None
    return tuple(values)


def sequence_of(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def number_of(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
