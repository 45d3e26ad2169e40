"""What earlier runs have stored of a file in the making, one result per photo: shards of an interrupted one, and the
file of a finished one. A photo whose file is another by now is no part of it."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from ultron_cli.console import log
from ultron_cli.datasets.photo_marks import PhotoMarks, state_of
from ultron_cli.errors import UltronError
from ultron_cli.files import FileState, file_state
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto

Result = TypeVar("Result")  # what an extraction makes of a photo


class StoredInfo(Protocol):
    """What a file of results says of their making."""

    @property
    def extraction(self) -> ExtractionRecord:
        """Everything that shaped the results."""
        ...

    @property
    def skipped(self) -> tuple[SkippedPhoto, ...]:
        """Photos that were left out."""
        ...


class StoredFile(Protocol):
    """An open file of results of n photos."""

    n: int

    @property
    def info(self) -> StoredInfo:
        """What it says of their making."""
        ...

    @property
    def names(self) -> list[str]:
        """Of the photos."""
        ...

    @property
    def marks(self) -> PhotoMarks | None:
        """Of the photos, where they are known."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True, kw_only=True)
class FileKind(Generic[Result]):
    """A kind of file that an extraction makes."""

    what: str  # a photo has in it, for messages
    open: Callable[[Path], StoredFile]
    results: Callable[[StoredFile, int, int], Iterable[Result]]  # of consecutive photos, start..stop, of what it opened


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
class StoredPhotos(Generic[Result]):
    """Photos of one shard as a file holds them, beside their results. Rows are places in the list of all photos."""

    kind: FileKind[Result]
    path: Path
    first: int  # row of the file at which they begin
    rows: list[int]  # of the photos that have a result, ascending
    marks: PhotoMarks | None  # of these; None in files of released versions that did not record them
    skipped: dict[int, SkippedPhoto]

    def results(self) -> Iterable[Result]:
        """Of the photos in `rows`."""
        with self.kind.open(self.path) as stored:
            return self.kind.results(stored, self.first, self.first + len(self.rows))

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
    """The file of an earlier run."""

    path: Path
    file_row: dict[str, int]  # by name
    marks: PhotoMarks | None
    skipped: dict[str, SkippedPhoto]

    @classmethod
    def read(cls, path: Path, kind: FileKind[Result]) -> "_Finished":
        with kind.open(path) as stored:
            return cls(
                path,
                {name: row for row, name in enumerate(stored.names)},
                stored.marks,
                {photo.name: photo for photo in stored.info.skipped},
            )


class EarlierWork(Generic[Result]):
    """What is stored, as it lies now; made anew, it has seen what was written since."""

    def __init__(
        self,
        kind: FileKind[Result],
        names: Sequence[str],
        shards: Sequence[range],
        parts: Path | None = None,
        finished: Path | None = None,
    ) -> None:
        """names: of all photos. shards: their rows. parts: the folder of shards, which come first. finished: a file of
        the same configuration."""
        self.kind = kind
        self.names = names
        self.shards = shards
        self._parts = parts
        self._path = finished
        self._file_names = set(shard_states(parts)) if parts else set()
        self._read: dict[int, StoredPhotos[Result] | None] = {}  # shards that were asked for

    @cached_property
    def _finished(self) -> _Finished | None:
        return _Finished.read(self._path, self.kind) if self._path else None

    def shard(self, i: int) -> StoredPhotos[Result] | None:
        """What is stored of a shard's photos; None if nothing is, or it cannot be read."""
        if i not in self._read:
            self._read[i] = self._stored(i)
        return self._read[i]

    def _stored(self, i: int) -> StoredPhotos[Result] | None:
        if self._parts is not None and (path := shard_path(self._parts, i)).name in self._file_names:
            try:
                return self._of_shard(path, self.shards[i])
            except UltronError as error:
                log.warning("computing a shard again that cannot be read (%s)", error)
                return None
        return self._of_finished(self._finished, self.shards[i]) if self._finished else None

    def _of_shard(self, path: Path, rows: range) -> StoredPhotos[Result]:
        row_of = {self.names[row]: row for row in rows}
        with self.kind.open(path) as stored:
            self.kind.results(stored, 0, stored.n)  # all of it can be read
            if {*stored.names, *(photo.name for photo in stored.info.skipped)} != set(row_of):
                raise UltronError(f"{path} must hold the photos of its place and holds others")
            skipped = {row_of[photo.name]: photo for photo in stored.info.skipped}
            return StoredPhotos(self.kind, path, 0, [row_of[name] for name in stored.names], stored.marks, skipped)

    def _of_finished(self, finished: _Finished, rows: range) -> StoredPhotos[Result] | None:
        stored_rows = [row for row in rows if self.names[row] in finished.file_row]
        skipped = {row: finished.skipped[self.names[row]] for row in rows if self.names[row] in finished.skipped}
        if len(stored_rows) + len(skipped) != len(rows):
            return None
        first = finished.file_row[self.names[stored_rows[0]]] if stored_rows else 0
        marks = finished.marks.of_rows(first, first + len(stored_rows)) if finished.marks else None
        return StoredPhotos(self.kind, finished.path, first, stored_rows, marks, skipped)
