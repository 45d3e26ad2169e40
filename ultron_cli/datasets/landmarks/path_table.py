"""Keeps millions of photo paths with their landmark in little memory, and in a file from one start to the next.

The table is cached in the dataset folder and counts as long as every file and folder that it was made from has its old
time of change; adding or removing a photo changes that of its folder.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import file_state, whole_file
from ultron_cli.schema.arrays import read_npz

TABLE_FILE = ".ultron-index.npz"
VERSION = 1
LEAST_TO_CACHE = 5000  # fewer photos are listed faster than a file is worth


class Texts(Sequence[str]):
    """Strings as one block of UTF-8: text i is block[starts[i]:stops[i]]."""

    def __init__(self, block: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        self.block = block  # (bytes,) uint8
        self.starts = starts  # (N,) int64
        self.stops = stops  # (N,) int64

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """The texts put together in their order."""
        encoded = [os.fsencode(text) for text in texts]
        stops = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]]) if encoded else stops
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, stops)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "Texts": ...
    def __getitem__(self, i: int | slice) -> "str | Texts":
        if isinstance(i, slice):
            return Texts(self.block, self.starts[i], self.stops[i])
        return os.fsdecode(self.block[self.starts[i] : self.stops[i]].tobytes())

    def take(self, rows: np.ndarray) -> "Texts":
        """The texts at `rows`, sharing the block."""
        return Texts(self.block, self.starts[rows], self.stops[rows])

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the texts in order."""
        digest = hashlib.sha256((self.stops - self.starts).astype("<i8").tobytes())
        if len(self) and (self.starts[1:] == self.stops[:-1]).all():
            digest.update(self.block[self.starts[0] : self.stops[-1]].tobytes())
        else:
            for i in range(len(self)):
                digest.update(self.block[self.starts[i] : self.stops[i]].tobytes())
        return digest.hexdigest()


class PathTable(Sequence[Path]):
    """Files below one folder; a Path is made when it is asked for."""

    def __init__(self, folder: Path, relative: Texts) -> None:
        self.folder = folder
        self.relative = relative  # paths below the folder, with forward slashes

    def __len__(self) -> int:
        return len(self.relative)

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> "PathTable": ...
    def __getitem__(self, i: int | slice) -> "Path | PathTable":
        if isinstance(i, slice):
            return PathTable(self.folder, self.relative[i])
        return self.folder / self.relative[i]

    def take(self, rows: np.ndarray) -> "PathTable":
        """The files at `rows`."""
        return PathTable(self.folder, self.relative.take(rows))


def state_of(paths: Iterable[Path], table_folder: Path) -> str:
    """Hexadecimal SHA-256 of the times of change and sizes of files and folders; absent ones count too.

    table_folder: where the table itself lies. Writing it changes the folder's time, so the folder's entries count
    instead.
    """
    digest = hashlib.sha256()
    table_folder = table_folder.absolute()
    for path in paths:
        try:
            size, mtime_ns = file_state(path)
            state: object = (mtime_ns, size if path.is_file() else 0)
            if path == table_folder:
                state = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith("."))
            text = f"{path}\0{state}\n"
        except OSError:
            text = f"{path}\0absent\n"
        digest.update(os.fsencode(text))
    return digest.hexdigest()


def write_table(file: Path, photos: PathTable, labels: np.ndarray, names: list[str], sources: list[Path]) -> None:
    """Caches a list of photos. A folder that cannot be written is logged and goes without.

    labels: (N,) int64, places in `names`; sources: the files and folders that the list was made from.
    """
    arrays = {
        "version": np.array(VERSION),
        "folder": np.frombuffer(os.fsencode(photos.folder), np.uint8),
        "labels": labels.astype(np.int32),
    }
    for key, texts in (("path", photos.relative), ("name", Texts.of(names)), ("source", Texts.of(map(str, sources)))):
        arrays |= {f"{key}_block": texts.block, f"{key}_starts": texts.starts, f"{key}_stops": texts.stops}
    arrays["state"] = np.frombuffer(state_of(sources, file.parent).encode(), np.uint8)
    try:
        with whole_file(file) as output:
            np.savez(output, **arrays)
    except UltronError as error:
        log.info("the list of photos is not cached (%s)", error)


TABLE_TYPES = {
    "version": "int64",
    "folder": "uint8",
    "labels": "int32",
    "state": "uint8",
    **{f"{key}_block": "uint8" for key in ("path", "name", "source")},
    **{f"{key}_{end}": "int64" for key in ("path", "name", "source") for end in ("starts", "stops")},
}


def _texts_of(arrays: Mapping[str, np.ndarray], key: str) -> Texts:
    """Raises ValueError if a text lies outside the block."""
    block, starts, stops = (arrays[f"{key}_{part}"] for part in ("block", "starts", "stops"))
    is_sound = block.ndim == starts.ndim == 1 and starts.shape == stops.shape
    if not is_sound or ((starts < 0) | (starts > stops) | (stops > len(block))).any():
        raise ValueError("texts outside their block")
    return Texts(block, starts, stops)


def read_table(file: Path) -> tuple[PathTable, np.ndarray, list[str]] | None:
    """The cached photos, (N,) int64 labels and landmark names; None if there are none, or they are no longer up to
    date."""
    arrays = read_npz(file, TABLE_TYPES)
    if arrays is None or arrays["version"].tolist() != VERSION:
        return None
    labels = arrays["labels"].astype(np.int64)
    try:
        path, name, source = (_texts_of(arrays, key) for key in ("path", "name", "source"))
        if arrays["state"].tobytes().decode() != state_of(map(Path, source), file.parent):
            return None
        names = list(name)
    except ValueError:  # also a path with a NUL
        return None
    if labels.shape != (len(path),) or (len(labels) and not 0 <= labels.min() <= labels.max() < len(names)):
        return None
    return PathTable(Path(os.fsdecode(arrays["folder"].tobytes())), path), labels, names
