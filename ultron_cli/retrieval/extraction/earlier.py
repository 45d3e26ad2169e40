"""What earlier runs have stored of a descriptor file in the making: shards of an interrupted one, and the file of a
finished one. A photo whose file is another by now is no part of it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ultron_cli.console import log
from ultron_cli.datasets.photo_marks import PhotoMarks, state_of
from ultron_cli.errors import UltronError
from ultron_cli.files import FileState, file_state
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.origin import SkippedPhoto


def shard_path(parts: Path, shard: int) -> Path:
    """The file of a shard in the folder of the shards."""
    return parts / f"shard-{shard:06d}.h5"


def shard_states(parts: Path) -> dict[str, FileState]:
    """The files of shards in a folder, by name. One listing: asking for each, a network file system would remember for
    a while that it was absent."""
    states = {}
    for path in parts.glob("shard-*.h5"):
        with contextlib.suppress(OSError):  # removed meanwhile
            states[path.name] = file_state(path)
    return states


@dataclass(frozen=True)
class StoredPhotos:
    """Photos of one shard as a file holds them, beside their descriptors. Rows are places in the list of all photos."""

    path: Path
    first: int  # row of the file at which they begin
    rows: list[int]  # of the photos that have a descriptor, ascending
    marks: PhotoMarks | None  # of these; None in files of released versions that did not record them
    skipped: dict[int, SkippedPhoto]

    def descriptors(self) -> np.ndarray:
        """(n, D) float32, of the photos in `rows`."""
        with DescriptorFile(self.path) as stored:
            return stored.read(self.first, self.first + len(self.rows))

    def stale(self, paths: Sequence[Path | None]) -> list[int]:
        """Rows of the photos whose files are others than those that were read. paths: of all photos, None for none."""
        changed = self.marks.changed([paths[row] for row in self.rows]) if self.marks else []
        skipped = [
            row
            for row, photo in self.skipped.items()
            if photo.state is not None and state_of(paths[row]) != photo.state
        ]
        return sorted([self.rows[i] for i in changed] + skipped)


@dataclass(frozen=True)
class _Finished:
    """The descriptor file of an earlier run."""

    path: Path
    file_row: dict[str, int]  # by name
    marks: PhotoMarks | None
    skipped: dict[str, SkippedPhoto]

    @classmethod
    def read(cls, path: Path) -> "_Finished":
        with DescriptorFile(path) as stored:
            return cls(
                path,
                {name: row for row, name in enumerate(stored.names)},
                stored.marks,
                {photo.name: photo for photo in stored.info.skipped},
            )


class EarlierWork:
    """What is stored, as it lies now; made anew, it has seen what was written since."""

    def __init__(
        self, names: Sequence[str], shards: Sequence[range], parts: Path | None = None, finished: Path | None = None
    ) -> None:
        """names: of all photos. shards: their rows. parts: the folder of shards, which come first. finished: a
        descriptor file of the same configuration."""
        self.names = names
        self.shards = shards
        self._parts = parts
        self._path = finished
        self._file_names = set(shard_states(parts)) if parts else set()
        self._read: dict[int, StoredPhotos | None] = {}  # shards that were asked for

    @cached_property
    def _finished(self) -> _Finished | None:
        return _Finished.read(self._path) if self._path else None

    def shard(self, i: int) -> StoredPhotos | None:
        """What is stored of a shard's photos; None if nothing is, or it cannot be read."""
        if i not in self._read:
            self._read[i] = self._stored(i)
        return self._read[i]

    def _stored(self, i: int) -> StoredPhotos | None:
        if self._parts is not None and (path := shard_path(self._parts, i)).name in self._file_names:
            try:
                return self._of_shard(path, self.shards[i])
            except UltronError as error:
                log.warning("computing a shard again that cannot be read (%s)", error)
                return None
        return self._of_finished(self._finished, self.shards[i]) if self._finished else None

    def _of_shard(self, path: Path, rows: range) -> StoredPhotos:
        row_of = {self.names[row]: row for row in rows}
        with DescriptorFile(path) as stored:
            stored.read()
            if {*stored.names, *(photo.name for photo in stored.info.skipped)} != set(row_of):
                raise UltronError(f"{path} must hold the photos of its place and holds others")
            skipped = {row_of[photo.name]: photo for photo in stored.info.skipped}
            return StoredPhotos(path, 0, [row_of[name] for name in stored.names], stored.marks, skipped)

    def _of_finished(self, finished: _Finished, rows: range) -> StoredPhotos | None:
        stored_rows = [row for row in rows if self.names[row] in finished.file_row]
        skipped = {row: finished.skipped[self.names[row]] for row in rows if self.names[row] in finished.skipped}
        if len(stored_rows) + len(skipped) != len(rows):
            return None
        first = finished.file_row[self.names[stored_rows[0]]] if stored_rows else 0
        marks = finished.marks.of_rows(first, first + len(stored_rows)) if finished.marks else None
        return StoredPhotos(finished.path, first, stored_rows, marks, skipped)
