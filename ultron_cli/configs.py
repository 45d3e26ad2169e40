"""Configurations: frozen dataclasses that are checked when made, read from TOML and flags, and stored whole in
results."""

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.schema.texts import parse_toml, read_json, read_toml
from ultron_cli.schema.values import Misfit, shown

C = TypeVar("C")
Choice = TypeVar("Choice", bound=str)

LEAST_SCALE, LARGEST_SCALE = 0.05, 8.0
MIN_SIDE_PX, MAX_SIDE_PX = 32, 16384  # of photos that a network takes
SCALE_SETS: dict[str, tuple[float, ...]] = {
    "1": (1.0,),
    "3": (0.7071, 1.0, 1.4142),  # CVNet and SuperGlobal
    "5": (0.3535, 0.5, 0.7071, 1.0, 1.4142),  # DELG and DOLG
}


def parse_scales(text: str) -> tuple[float, ...]:
    """`1`, `3` or `5` (the published sets) or a list such as `0.5,1,2`. Raises UltronError for anything else."""
    if text in SCALE_SETS:
        return SCALE_SETS[text]
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if (
        not scales
        or not all(LEAST_SCALE <= scale <= LARGEST_SCALE for scale in scales)
        or len(set(scales)) != len(scales)
    ):
        raise UltronError(
            "`scales` takes 1, 3, 5 or different numbers from 0.05 to 8 with commas between "
            f"(0.7071,1,1.4142); found {text!r}"
        )
    return scales


def parse_sides(name: str, text: str) -> tuple[int, int]:
    """`480x640` as (height, width) in pixels. Raises UltronError for anything else."""
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not sides or not all(MIN_SIDE_PX <= int(side) <= MAX_SIDE_PX for side in sides.groups()):
        raise UltronError(
            f"{_quoted(name)} takes height and width, each from {MIN_SIDE_PX} to {MAX_SIDE_PX} px, with an x between "
            f"(480x640); found {shown(text)}"
        )
    return int(sides[1]), int(sides[2])


def _quoted(name: str) -> str:
    """A setting's name as messages show it; other names (`list.toml: paths`) stand for themselves."""
    return f"`{name}`" if name.replace(".", "").isidentifier() else name


def one_of(name: str, value: str, choices: Iterable[Choice]) -> Choice:
    """`value`, which is one of `choices`. Raises UltronError, naming the nearest, if it is not."""
    choices = tuple(choices)
    if value not in choices:
        raise UltronError(
            f"{_quoted(name)} must be one of {', '.join(choices)}; "
            f"found {shown(value)}{nearest_names(str(value)[:60], choices)}"
        )
    return cast(Choice, value)


def within(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises UltronError unless low <= value <= high, and finite where there is no highest."""
    if not (low <= value < high or value == high < math.inf):
        rule = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
        raise UltronError(f"{_quoted(name)} must {rule}; found {value}")


def _convert(name: str, value: Any, annotation: Any) -> Any:
    """`value` as the annotated type: ints for floats, lists for tuples, text from --set for everything."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is object or annotation is typing.Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none" and type(None) in arguments):
            return None
        return _convert(name, value, next(kind for kind in arguments if kind is not type(None)))
    if origin is typing.Literal:
        one_of(name, value, [str(choice) for choice in arguments])
        return value
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) and isinstance(value, dict):
        return from_dict(annotation, value, prefix=f"{name}.")
    if origin in (tuple, list):
        items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, (int, float)) else value
        if isinstance(items, (list, tuple)):
            return origin(_convert(name, item, arguments[0]) for item in items)
    if annotation is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    elif annotation in (int, float):
        try:
            number = math.nan if isinstance(value, bool) else float(value)
            if math.isfinite(number) and (annotation is float or number.is_integer()):
                return number if annotation is float else value if isinstance(value, int) else int(number)
        except (TypeError, ValueError, OverflowError):
            pass  # said below, with the rule
    elif (annotation is str and isinstance(value, str)) or (
        (origin is dict or annotation is dict) and isinstance(value, dict)
    ):
        return value
    readable = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        annotation, str(annotation)
    )
    raise UltronError(f"{name} must be {readable}; found {shown(value)}")


def from_dict(kind: type[C], values: Mapping[str, object], prefix: str = "") -> C:
    """Makes a configuration of dataclass `kind`. Raises UltronError for an unknown key, naming the nearest, or a wrong
    type."""
    annotations = typing.get_type_hints(kind)
    _refuse_unknown(values, annotations, prefix)
    return kind(**{key: _convert(prefix + key, value, annotations[key]) for key, value in values.items()})


def _refuse_unknown(values: Mapping[str, object], known: Iterable[str], prefix: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UltronError(
            f"unknown setting {prefix}{shown(unknown[0])[1:-1]}{nearest_names(unknown[0][:60], known)} (known: "
            f"{', '.join(known) or 'none'})"
        )


def from_signature(
    factory: Callable[..., object], values: Mapping[str, object], *, prefix: str = "", n_passed: int = 0
) -> dict[str, object]:
    """Settings as the keyword arguments of a class or function, converted to the types of its signature.

    n_passed: arguments that it gets before them, which are no settings. A single further parameter that is annotated
    with a dataclass gets the settings as one. Raises UltronError as from_dict does, and for a parameter without default
    that no setting names.
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())
        annotations = typing.get_type_hints(factory.__init__ if isinstance(factory, type) else factory)
    except (NameError, TypeError, ValueError):  # annotations that only a type checker can read
        parameters, annotations = list(inspect.signature(factory).parameters.values()), {}
    by_position = [part for part in parameters if part.kind in (part.POSITIONAL_ONLY, part.POSITIONAL_OR_KEYWORD)]
    takes_any = any(part.kind is part.VAR_POSITIONAL for part in parameters)
    if len(by_position) < n_passed and not takes_any:
        raise UltronError(f"must take {n_passed} arguments before its settings; found {inspect.signature(factory)}")
    by_name = [part for part in parameters if part.kind is part.KEYWORD_ONLY]
    settings = {part.name: part for part in (*by_position[n_passed:], *by_name)}
    if len(settings) == 1:
        (name,) = settings
        kind = annotations.get(name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return {name: from_dict(kind, values, prefix=prefix)}
    _refuse_unknown(values, settings, prefix)
    missing = [name for name, part in settings.items() if part.default is part.empty and name not in values]
    if missing:
        raise UltronError(f"needs a value for {missing[0]}; give it with `{prefix}{missing[0]}=VALUE`")
    return {
        key: _convert(prefix + key, value, annotations.get(key) or _kind_of(settings[key].default))
        for key, value in values.items()
    }


def _kind_of(default: object) -> type:
    """The type of a setting that has no annotation: that of its default."""
    return type(default) if isinstance(default, (bool, int, float, str)) else object


# Metadata of a setting that came with a later version: it is stored where it is not None, so that what earlier versions
# made, and named by a hash of it, is found as before.
LATER = {"later": True}


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain data (tuples become lists), as stored in results."""
    content = dataclasses.asdict(config)
    _leave_out_later(config, content)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}


def _leave_out_later(config: object, content: dict[str, Any]) -> None:
    assert dataclasses.is_dataclass(config)
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if value is None and part.metadata.get("later"):
            del content[part.name]
        elif dataclasses.is_dataclass(value):
            _leave_out_later(value, content[part.name])


def read_toml_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises UltronError if it is absent or malformed."""
    return read_toml(path, "configuration", dict[str, Any], if_absent="check `config`")


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """config.json of a run."""

    config: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> StoredRun:
    """What a run's folder says of it in config.json. Raises UltronError if it is absent or unsound."""
    return read_json(
        folder / "config.json", "configuration of the run", StoredRun, advice="put the file back, or start a new run"
    )


def apply_set(
    values: Mapping[str, object],
    assignments: Sequence[str],
    setting: str = "set",
    example: str = "epochs=20",
) -> dict[str, Any]:
    """`values` with each `a.b=c` of the setting `set` (or another) applied; c is read as TOML where it is TOML, else as
    text. example: an assignment of that setting, for messages."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise UltronError(f"`{setting}` takes key=value ({example}); found {shown(assignment)}")
        try:
            value = parse_toml(f"value = {text}")["value"]
        except Misfit:
            value = text
        *parents, key = path.strip().split(".")
        section = merged
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UltronError(
                    f"`{setting}` {assignment}: {parent} is a single setting, it has no part {key!r}; give it one value"
                )
        section[key] = value
    return merged


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested dictionaries as one of dotted keys."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def differences(stored: Mapping[str, object], requested: Mapping[str, object]) -> list[str]:
    """One phrase for each setting in which two stored configurations differ.

    A switch that one of them does not have, as it came with a later version, is off there.
    """
    old, new = flatten(stored), flatten(requested)
    for side, other in ((old, new), (new, old)):
        side.update({key: False for key, value in other.items() if value is False and key not in side})
    return [
        f"{key} (stored {old.get(key)}, asked {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
