"""Texts of the command line as the values of flags and arguments: every command reads its numbers, names and paths
here."""

import copy
import errno
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from ultron_cli.errors import UltronError
from ultron_cli.schema.values import shown

LARGEST = 2**63 - 1  # what counts, sizes and seeds are kept in
FREE_TEXT = "TEXT"  # metavar of what may be empty: a title, a label


def with_reading(parameter: inspect.Parameter, flag: str) -> inspect.Parameter:
    """`parameter` of a command with an option that reads its text by this module. flag: as messages show it."""
    kind, option = typing.get_args(parameter.annotation)
    leaf = kind
    while typing.get_args(leaf):  # list[Path] | None
        leaf = typing.get_args(leaf)[0]
    readers: dict[type, Callable[[str], object]] = {int: _whole_number, float: _number, str: str, Path: _path}
    if leaf not in readers:
        return parameter
    form = option.metavar or flag
    read = _path_text if leaf is str and form == "NAME|DIR" else readers[leaf]

    def value_of(text: object) -> object:
        if not isinstance(text, str):  # a default, which some versions of Typer read too
            return text
        if not text.strip() and form != FREE_TEXT:
            raise UltronError(f"{flag} was given an empty text; give it a value")
        try:
            return read(text)
        except ValueError as fault:
            raise UltronError(f"{flag} takes {fault}") from None

    option = copy.copy(option)
    option.parser = value_of
    return parameter.replace(annotation=Annotated[kind, option])


def refuse_output_among_inputs(values: Mapping[str, object], flags: Mapping[str, str]) -> None:
    """Raises UltronError if a command would write its result over a file that it reads. values: of its settings, by
    name; flags: as messages show them."""
    out = values.get("out")
    if not isinstance(out, Path) or not os.path.isfile(out):
        return
    for name, value in values.items():
        paths = value if isinstance(value, (list, tuple)) else [value]
        for path in paths:
            if name != "out" and isinstance(path, Path) and os.path.isfile(path) and os.path.samefile(path, out):
                raise UltronError(f"{flags['out']} {out} is what {flags[name]} reads; name another file to write")


def _whole_number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"a whole number; found {shown(text)}") from None
    if abs(value) > LARGEST:
        raise ValueError(f"a whole number up to {LARGEST}; found {shown(text)}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a number; found {shown(text)}") from None


def _path_text(text: str) -> str:
    """`text`, which may name a file or folder. Raises ValueError where no path can be so long."""
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            n_bytes = len(os.fsencode(text))
            raise ValueError(f"a path; found one that is too long, {n_bytes:,} bytes: {shown(text)}") from None
    return text


def _path(text: str) -> Path:
    return Path(_path_text(text))
