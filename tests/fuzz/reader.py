"""What an entry of the table of readers is, and what entries are made with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutations import Mutation, mutate_bytes, mutate_json

Make = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader and the files it is tried with."""

    file: str  # that is damaged, as it lies in the folder
    seeds: tuple[Make, ...]  # each makes the sound files of a reading in an empty folder
    read: Callable[[Path], object]  # reads from such a folder
    mutations: tuple[Mutation, ...] = (mutate_bytes,)
    is_guarded: bool = False  # whether it asks a child (ultron_cli/guarded.py)


def text_file(name: str, content: object) -> Make:
    """Makes a file of JSON, or of the text itself."""
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def bytes_file(name: str, content: Callable[[], bytes]) -> Make:
    """Makes a file of what `content` returns."""
    return lambda folder: (folder / name).write_bytes(content())


def json_reader(file: str, *contents: object, read: Callable[[Path], object]) -> Reader:
    """A reader of a JSON file, whose values are changed as well as its bytes."""
    return json_part(file, *(text_file(file, content) for content in contents), read=read)


def json_part(file: str, *seeds: Make, read: Callable[[Path], object]) -> Reader:
    """A reader of a JSON file among others."""
    return Reader(file=file, seeds=seeds, read=read, mutations=(mutate_bytes, mutate_json, mutate_json))


def lazily(module: str, name: str, file: str | None = None) -> Callable[[Path], object]:
    """A reader of the library by name, imported when it is first called; file: what it reads of the folder."""

    def read(folder: Path) -> object:
        from importlib import import_module

        return getattr(import_module(f"ultron_cli.{module}"), name)(folder / file if file else folder)

    return read
