"""One file of results of photos in shards: each is computed and written by itself, and all are joined into the file.

What a photo's result is, a kind of extraction says: described.py its descriptor, retrieval/local_features/ its local
features. Which process computes which shard, and what an interrupted run left, is the business of files.py.
"""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Generic, Literal, Protocol

import torch

from ultron_cli.configs import to_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.corruptions import Corruption
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.datasets.photo_marks import PhotoMark, PhotoMarks, read_with_mark, state_of
from ultron_cli.datasets.photos import Box, LoadedPhoto, PhotoReader, clip_box
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import n_cores
from ultron_cli.retrieval.extraction.earlier import (
    EarlierWork,
    FileKind,
    Result,
    StoredPhotos,
    shard_path,
    shard_states,
)
from ultron_cli.retrieval.extraction.streams import Described
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto

# A batch holds no more photos than this either: batches lie within a shard, so that a photo's descriptor does not
# depend on which process computes which shards.
PHOTOS_PER_SHARD = 64
# What a file takes beside its rows: a name and its place, and HDF5's headers with the attributes.
NAME_BYTES = 32
FILE_BYTES = 16384


@dataclass(frozen=True, kw_only=True)
class ExtractWork:
    """How the work is done; none of it shapes the numbers (beyond rounding)."""

    device: torch.device
    batch_size: int = 8
    n_workers: int | None = None  # processes that decode; None: `default_workers`, or none for a runtime per photo
    skip_bad: bool = False
    overwrite: bool = False


def worker_cores() -> int:
    """The cores of this process: those that torchrun started on this machine share its cores."""
    return max(1, n_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def default_workers(device: torch.device) -> int:
    """Decoding processes: beside a GPU all cores but one, up to 8; beside a network on the CPU a quarter of the cores.

    On two cores that is none: a decoding process there slows the network by more than it saves (benchmarks/extract.py).
    """
    cores = worker_cores()
    return max(1, min(8, cores - 1)) if device.type == "cuda" else cores // 4


class ExtractSettings(Protocol):
    """What every extraction has among the settings that shape its results; a frozen dataclass."""

    @property
    def role(self) -> Literal["query", "database"]:
        """Of the photos."""
        ...

    @property
    def crop(self) -> Literal["bbx", "none"]:
        """Whether photos are cropped to their boxes."""
        ...

    @property
    def corruption(self) -> Corruption | None:
        """By which photos are made worse on purpose."""
        ...


@dataclass
class _Shard(Generic[Result]):
    """A run of consecutive photos on its way to a shard file."""

    rows: range
    results: dict[int, Result] = field(default_factory=dict)  # by row
    marks: dict[int, PhotoMark] = field(default_factory=dict)  # of these
    skipped: dict[int, SkippedPhoto] = field(default_factory=dict)  # by row

    def take_over(self, stored: StoredPhotos[Result], rows: Collection[int]) -> None:
        """Takes the photos that are stored, but for some rows."""
        for i, (row, result) in enumerate(zip(stored.rows, stored.results(), strict=True)):
            if row not in rows:
                self.results[row] = result
                if stored.marks is not None:
                    self.marks[row] = stored.marks[i]
        self.skipped |= {row: photo for row, photo in stored.skipped.items() if row not in rows}

    @property
    def is_complete(self) -> bool:
        return len(self.results) + len(self.skipped) == len(self.rows)


class MarkingReader(PhotoReader):
    """Marks what it reads."""

    def __getitem__(self, i: int) -> LoadedPhoto:
        path = self.paths[i]
        try:
            photo, mark = read_with_mark(path, partial(super().__getitem__, i))
        except UltronError as error:
            return LoadedPhoto(self.rows[i], None, error.message, PhotoMark(state_of(path)))
        return replace(photo, mark=mark)


@dataclass(frozen=True, kw_only=True)
class WorkLeft:
    """What of a file is still to be computed."""

    rows: dict[int, list[int]]  # by shard: its photos, as rows
    changed: list[str]  # names of those among them that are stored, but of another file than is there now

    def n_photos(self) -> int:
        """Photos to compute."""
        return sum(len(rows) for rows in self.rows.values())


class Extraction(ABC, Generic[Result]):
    """One file in the making."""

    kind: FileKind[Result]
    storage_bytes: int  # of a photo's result, about

    def __init__(self, dataset: Dataset, names: list[str], work: ExtractWork) -> None:
        self.dataset = dataset
        self.names = names
        self.work = work
        self.photo_files = dataset.photo_files(names)
        self.shards = [
            range(start, min(start + PHOTOS_PER_SHARD, len(names))) for start in range(0, len(names), PHOTOS_PER_SHARD)
        ]

    @property
    @abstractmethod
    def settings(self) -> ExtractSettings:
        """Everything that shapes the results."""

    @abstractmethod
    def reader(self, rows: list[int], paths: list[Path], boxes: list[Box | None], names: Sequence[str]) -> PhotoReader:
        """Of the photos of these rows, marking what it reads."""

    @abstractmethod
    def described(self, bad: Iterable[LoadedPhoto], reader: PhotoReader) -> Generator[Described[Result], None, None]:
        """All photos, shard by shard: the bad ones, then those of the reader, each in their order."""

    @abstractmethod
    def require_sound(self, names: Sequence[str], results: Sequence[Result]) -> None:
        """Raises UltronError if a result of the photos of these names cannot be stored."""

    @abstractmethod
    def write(
        self,
        path: Path,
        names: Sequence[str],
        results: Sequence[Result],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        """Writes a file of results, one per name."""

    @abstractmethod
    def join(
        self,
        path: Path,
        names: Sequence[str],
        shards: Sequence[StoredPhotos[Result]],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        """Writes a file of what is stored in shards, one after the other."""

    def prepare(self, parts: Path, finished: Path | None, *, is_first: bool) -> None:
        """What precedes the photos. parts: the folder of shards, which is there. finished: the file of an earlier run.
        is_first: whether this is the process that decides, before the others."""

    def shard_of(self, row: int) -> int:
        """The shard in which a photo is."""
        return row // PHOTOS_PER_SHARD

    @property
    def what(self) -> str:
        """Which photos and what of them, where it is not their descriptors: `query`, `query local features`."""
        return self.settings.role

    def earlier(self, parts: Path | None = None, finished: Path | None = None) -> EarlierWork[Result]:
        """What is stored already: in the folder of shards, and in a file of the same configuration."""
        return EarlierWork(self.kind, self.names, self.shards, parts, finished)

    def disk_bytes(self, out: Path, parts: Path) -> int:
        """About how much the files that are still to be written take: the shards that are not there, then all of them
        joined. Photos that changed since are not asked for here."""
        if out.exists() and not self.work.overwrite:
            return 0
        stored_names = set() if self.work.overwrite else set(shard_states(parts))
        missing = [rows for i, rows in enumerate(self.shards) if shard_path(parts, i).name not in stored_names]
        n_rows = len(self.names) + sum(len(rows) for rows in missing)
        return n_rows * (self.storage_bytes + NAME_BYTES) + (len(missing) + 1) * FILE_BYTES

    def left(self, earlier: EarlierWork[Result]) -> WorkLeft:
        """What the earlier work lacks, or has of photos whose files are others now."""
        paths = [self.photo_files.files.get(name) for name in self.names]
        rows = {}
        changed = []
        for i, shard in enumerate(self.shards):
            stored = earlier.shard(i)
            stale = list(shard) if stored is None else stored.stale(paths)
            if stale:
                rows[i] = stale
                changed += [] if stored is None else [self.names[row] for row in stale]
        return WorkLeft(rows=rows, changed=changed)

    def _box(self, name: str) -> Box | None:
        return self.dataset.query(name).bbx if self.settings.crop == "bbx" else None

    def check_photos(self) -> None:
        """Before anything is written: every photo has a file of its own, every box lies in its photo. Raises
        UltronError."""
        if self.photo_files.problems and not self.work.skip_bad:
            raise next(iter(self.photo_files.problems.values()))
        for name, path in self.photo_files.files.items():
            box = self._box(name)
            if box is None:
                continue
            try:
                size = photo_size(path)
            except UltronError:
                if self.work.skip_bad:
                    continue
                raise
            clip_box(box, *size, where=f"{self.dataset.name}, query {name}")

    def _problem(self, row: int) -> str | None:
        """Why a photo is left out by skip_bad without a look at it; None if there is no reason."""
        name = self.names[row]
        if name in self.photo_files.problems:
            return self.photo_files.problems[name].message
        return self.dataset.bad_photos.get(self.photo_files.files[name]) if self.work.skip_bad else None

    def compute(
        self,
        parts: Path,
        rows_of: dict[int, list[int]],
        earlier: EarlierWork[Result],
        on_photos: Callable[[int], object],
    ) -> None:
        """Computes photos and writes each shard into the folder when it is complete.

        rows_of: by shard, as in WorkLeft; its other photos are taken from the earlier work. on_photos: called with the
        number of photos after every batch. Raises UltronError for a photo that cannot be decoded (without skip_bad) or
        whose result cannot be stored.
        """
        rows = [row for of_shard in rows_of.values() for row in of_shard]
        problems = {row: problem for row in rows if (problem := self._problem(row))}
        readable = [row for row in rows if row not in problems]
        boxes = [self._box(self.names[row]) for row in readable]
        paths = [self.photo_files.files[self.names[row]] for row in readable]
        names = [self.names[row] for row in readable]
        reader = self.reader(readable, paths, boxes, names)
        open_shards: dict[int, _Shard[Result]] = {}
        bad = (
            LoadedPhoto(row, None, problem, PhotoMark(state_of(self.photo_files.files.get(self.names[row]))))
            for row, problem in problems.items()
        )
        with contextlib.closing(self.described(bad, reader)) as described:
            for i, of_shard in groupby(described, lambda part: self.shard_of(part.photos[0].row)):
                if i not in open_shards:
                    open_shards[i] = self._resumed_shard(i, rows_of[i], earlier)
                for part in of_shard:
                    self._take(open_shards[i], part)
                    on_photos(len(part.photos))
                if open_shards[i].is_complete:
                    self._write_shard(parts, i, open_shards.pop(i))

    def _resumed_shard(self, i: int, rows: list[int], earlier: EarlierWork[Result]) -> _Shard[Result]:
        shard: _Shard[Result] = _Shard(self.shards[i])
        stored = earlier.shard(i) if len(rows) < len(shard.rows) else None
        if stored is not None:
            shard.take_over(stored, set(rows))
        return shard

    def _take(self, shard: _Shard[Result], described: Described[Result]) -> None:
        """Adds the results of one batch (or the reason for a bad photo) to its shard."""
        batch, results = described.photos, described.results
        bad = batch[0]
        if results is None:
            if not self.work.skip_bad:
                raise UltronError(
                    f"{bad.problem} (`ultron datasets verify {self.dataset.folder}` finds all that are bad)",
                    "go on without it with `skip_bad`",
                )
            log.warning("left out: %s", bad.problem)
            state = bad.mark.state if bad.mark else None
            shard.skipped[bad.row] = SkippedPhoto(name=self.names[bad.row], reason=bad.problem, state=state)
            return
        self.require_sound([self.names[photo.row] for photo in batch], results)
        for photo, result in zip(batch, results, strict=True):
            shard.results[photo.row] = result
            if photo.mark is not None:
                shard.marks[photo.row] = photo.mark

    @property
    def record(self) -> ExtractionRecord:
        """The configuration, as the file stores it."""
        return ExtractionRecord(stored=to_dict(self.settings))

    def _write_shard(self, parts: Path, i: int, shard: _Shard[Result]) -> None:
        rows = sorted(shard.results)
        self.write(
            shard_path(parts, i),
            [self.names[row] for row in rows],
            [shard.results[row] for row in rows],
            [photo for _, photo in sorted(shard.skipped.items())],
            # Photos that are taken over from a released version's file have no mark.
            PhotoMarks.of([shard.marks[row] for row in rows]) if set(rows) <= set(shard.marks) else None,
        )

    def merge(self, earlier: EarlierWork[Result], out: Path) -> tuple[SkippedPhoto, ...]:
        """Joins what is stored into `out` and returns the photos left out. Raises WorkFailed if a shard is missing."""
        shards = [stored for i in range(len(self.shards)) if (stored := earlier.shard(i)) is not None]
        if len(shards) < len(self.shards):
            raise WorkFailed(
                f"{counted(len(self.shards) - len(shards), 'shard')} of {out} cannot be seen, though they were "
                "written: something removes them, or the folder is not on a file system that all processes share; "
                "name another with `out`"
            )
        names = [self.names[row] for stored in shards for row in stored.rows]
        skipped = [photo for stored in shards for _, photo in sorted(stored.skipped.items())]
        if not names:
            raise UltronError(
                f"not one of {counted(len(skipped), 'photo')} could be decoded, {out} was not written; check the photos"
            )
        marks = [stored.marks for stored in shards if stored.marks is not None]
        joined = PhotoMarks.joined(marks) if len(marks) == len(shards) else None
        self.join(out, names, shards, skipped, joined)
        return tuple(skipped)
