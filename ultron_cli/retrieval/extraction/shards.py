"""One descriptor file in shards: each is computed and written by itself, and all are joined into the file.

Which process computes which shard, and what an interrupted run left, is the business of files.py.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import torch

from ultron_cli.configs import to_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.datasets.photo_marks import PhotoMark, PhotoMarks, read_with_mark, state_of
from ultron_cli.datasets.photos import (
    Box,
    LoadedPhoto,
    PhotoReader,
    clip_box,
    read_photos,
)
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import n_cores, n_threads
from ultron_cli.models.runtimes import RUNTIMES, open_network
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch, photo_shape
from ultron_cli.retrieval.extraction.earlier import EarlierWork, StoredPhotos, shard_path, shard_states
from ultron_cli.retrieval.extraction.runtime_choice import ChosenRuntime
from ultron_cli.retrieval.extraction.streams import Described, described_by_batch, described_by_photo
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, SkippedPhoto, WeightsSource

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


def default_workers(device: torch.device) -> int:
    """Decoding processes: beside a GPU all cores but one, up to 8; beside a network on the CPU a quarter of the cores.

    On two cores that is none: a decoding process there slows the network by more than it saves (benchmarks/extract.py).
    The processes that torchrun started on this machine share its cores.
    """
    cores = n_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, cores - 1)) if device.type == "cuda" else cores // 4


@dataclass
class _Shard:
    """A run of consecutive photos on its way to a shard file."""

    rows: range
    descriptors: dict[int, np.ndarray] = field(default_factory=dict)  # by row
    marks: dict[int, PhotoMark] = field(default_factory=dict)  # of these
    skipped: dict[int, SkippedPhoto] = field(default_factory=dict)  # by row

    def take_over(self, stored: StoredPhotos, rows: Collection[int]) -> None:
        """Takes the photos that are stored, but for some rows."""
        for i, (row, descriptor) in enumerate(zip(stored.rows, stored.descriptors(), strict=True)):
            if row not in rows:
                self.descriptors[row] = descriptor
                if stored.marks is not None:
                    self.marks[row] = stored.marks[i]
        self.skipped |= {row: photo for row, photo in stored.skipped.items() if row not in rows}

    @property
    def is_complete(self) -> bool:
        return len(self.descriptors) + len(self.skipped) == len(self.rows)


def _same(photo: LoadedPhoto) -> LoadedPhoto:
    return photo


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
    """What of a descriptor file is still to be computed."""

    rows: dict[int, list[int]]  # by shard: its photos, as rows
    changed: list[str]  # names of those among them that are stored, but of another file than is there now

    def n_photos(self) -> int:
        """Photos to compute."""
        return sum(len(rows) for rows in self.rows.values())


class Extraction:
    """One descriptor file in the making."""

    def __init__(
        self, dataset: Dataset, names: list[str], loaded: LoadedModel, config: ExtractConfig, work: ExtractWork
    ) -> None:
        """The network is computed by torch, unless `use` names another runtime."""
        self.dataset = dataset
        self.names = names
        self.loaded = loaded
        self.config = config
        self.work = work
        self.runtime = ChosenRuntime("torch")
        self.photo_files = dataset.photo_files(names)
        self.shape = photo_shape(config, loaded.model)
        self.shards = [
            range(start, min(start + PHOTOS_PER_SHARD, len(names))) for start in range(0, len(names), PHOTOS_PER_SHARD)
        ]

    def use(self, runtime: ChosenRuntime) -> None:
        """Has the network computed by a runtime, which is part of the configuration."""
        self.runtime = runtime
        self.config = replace(self.config, runtime=runtime.name)

    def earlier(self, parts: Path | None = None, finished: Path | None = None) -> EarlierWork:
        """What is stored already: in the folder of shards, and in a descriptor file of the same configuration."""
        return EarlierWork(self.names, self.shards, parts, finished)

    def disk_bytes(self, out: Path, parts: Path) -> int:
        """About how much the files that are still to be written take: the shards that are not there, then all of them
        joined. Photos that changed since are not asked for here."""
        if out.exists() and not self.work.overwrite:
            return 0
        row_bytes = self.loaded.model.descriptor_dim * np.dtype(self.config.storage).itemsize
        stored_names = set() if self.work.overwrite else set(shard_states(parts))
        missing = [rows for i, rows in enumerate(self.shards) if shard_path(parts, i).name not in stored_names]
        n_rows = len(self.names) + sum(len(rows) for rows in missing)
        return n_rows * (row_bytes + NAME_BYTES) + (len(missing) + 1) * FILE_BYTES

    def left(self, earlier: EarlierWork) -> WorkLeft:
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
        return self.dataset.query(name).bbx if self.config.crop == "bbx" else None

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
        self, parts: Path, rows_of: dict[int, list[int]], earlier: EarlierWork, on_photos: Callable[[int], object]
    ) -> None:
        """Computes photos and writes each shard into the folder when it is complete.

        rows_of: by shard, as in WorkLeft; its other photos are taken from the earlier work. on_photos: called with the
        number of photos after every batch. Raises UltronError for a photo that cannot be decoded (without skip_bad) or
        gets no finite descriptor.
        """
        rows = [row for of_shard in rows_of.values() for row in of_shard]
        problems = {row: problem for row in rows if (problem := self._problem(row))}
        readable = [row for row in rows if row not in problems]
        boxes = [self._box(self.names[row]) for row in readable]
        paths = [self.photo_files.files[self.names[row]] for row in readable]
        names = [self.names[row] for row in readable]
        reader = MarkingReader(readable, paths, boxes, self.shape, self.config.corruption, names)
        open_shards: dict[int, _Shard] = {}
        bad = (
            LoadedPhoto(row, None, problem, PhotoMark(state_of(self.photo_files.files.get(self.names[row]))))
            for row, problem in problems.items()
        )
        with contextlib.closing(self._described(bad, reader)) as described:
            for i, of_shard in groupby(described, lambda part: part.photos[0].row // PHOTOS_PER_SHARD):
                if i not in open_shards:
                    open_shards[i] = self._resumed_shard(i, rows_of[i], earlier)
                for part in of_shard:
                    self._take(open_shards[i], part)
                    on_photos(len(part.photos))
                if open_shards[i].is_complete:
                    self._write_shard(parts, i, open_shards.pop(i))

    def _described(self, bad: Iterable[LoadedPhoto], reader: PhotoReader) -> Generator[Described, None, None]:
        """All photos, shard by shard: the bad ones, then those of the reader, each in their order."""
        name = self.runtime.name
        threads = RUNTIMES[name].threads(n_threads())
        network = self.runtime.network or open_network(
            name, self.loaded, self.work.device, self.config.precision, threads
        )

        def describe(batch: list[LoadedPhoto]) -> np.ndarray:
            return describe_batch(self.loaded.model, batch, self.config, self.work.device, network)

        n_workers = self.work.n_workers
        if RUNTIMES[name].is_per_photo and not n_workers:  # each thread decodes what it describes
            reads: Iterable[Callable[[], LoadedPhoto]] = (partial(reader.__getitem__, i) for i in range(len(reader)))
            yield from described_by_photo(chain((partial(_same, photo) for photo in bad), reads), describe, threads)
            return
        if n_workers is None:
            n_workers = default_workers(self.work.device)
        photos = chain(bad, read_photos(reader, n_workers))
        if RUNTIMES[name].is_per_photo:
            yield from described_by_photo((partial(_same, photo) for photo in photos), describe, threads)
            return
        for _, of_shard in groupby(photos, lambda photo: photo.row // PHOTOS_PER_SHARD):
            yield from described_by_batch(of_shard, describe, self.work.batch_size)

    def _resumed_shard(self, i: int, rows: list[int], earlier: EarlierWork) -> _Shard:
        shard = _Shard(self.shards[i])
        stored = earlier.shard(i) if len(rows) < len(shard.rows) else None
        if stored is not None:
            shard.take_over(stored, set(rows))
        return shard

    def _take(self, shard: _Shard, described: Described) -> None:
        """Adds the descriptors of one batch (or the reason for a bad photo) to its shard."""
        batch, descriptors = described.photos, described.descriptors
        bad = batch[0]
        if descriptors is None:
            if not self.work.skip_bad:
                raise UltronError(
                    f"{bad.problem} (`ultron datasets verify {self.dataset.folder}` finds all that are bad)",
                    "go on without it with `skip_bad`",
                )
            log.warning("left out: %s", bad.problem)
            state = bad.mark.state if bad.mark else None
            shard.skipped[bad.row] = SkippedPhoto(name=self.names[bad.row], reason=bad.problem, state=state)
            return
        finite = np.isfinite(descriptors).all(axis=1)
        if not finite.all():
            name = self.names[batch[int(np.argmin(finite))].row]
            precision = self.config.precision
            ways = () if precision == "float32" else ("try `precision=float32`",)
            raise UltronError(
                f"{name}: the model gave a descriptor that is not finite in {precision}; take other weights", *ways
            )
        for photo, descriptor in zip(batch, descriptors, strict=True):
            shard.descriptors[photo.row] = descriptor
            if photo.mark is not None:
                shard.marks[photo.row] = photo.mark

    @property
    def record(self) -> ExtractionRecord:
        """The configuration, as the file stores it."""
        return ExtractionRecord(stored=to_dict(self.config))

    def _info(self, skipped: Sequence[SkippedPhoto]) -> DescriptorInfo:
        ground_truth = self.dataset.ground_truth_path
        origin = DescriptorProvenance(
            weights=WeightsSource.from_json(self.loaded.source),
            dataset_folder=str(self.dataset.folder.resolve()),
            ground_truth=str(ground_truth.resolve()) if ground_truth else None,
            runtime_cosine=self.runtime.least_cosine,
            other=provenance() | {"device": str(self.work.device)},
        )
        return DescriptorInfo(
            model=self.loaded.model.label,
            weights_sha256=self.loaded.weights_sha256,
            extraction=self.record,
            dataset=self.config.dataset,
            role=self.config.role,
            crop=self.config.crop,
            scales=list(self.config.scales),
            skipped=tuple(skipped),
            provenance=origin,
        )

    def _write_shard(self, parts: Path, i: int, shard: _Shard) -> None:
        rows = sorted(shard.descriptors)
        dim = self.loaded.model.descriptor_dim
        block = np.stack([shard.descriptors[row] for row in rows]) if rows else np.empty((0, dim))
        write_descriptors(
            shard_path(parts, i),
            [self.names[row] for row in rows],
            [block.astype(self.config.storage, copy=False)],
            dim,
            self._info([photo for _, photo in sorted(shard.skipped.items())]),
            # Photos that are taken over from a released version's file have no mark.
            PhotoMarks.of([shard.marks[row] for row in rows]) if set(rows) <= set(shard.marks) else None,
        )

    def merge(self, earlier: EarlierWork, out: Path) -> tuple[SkippedPhoto, ...]:
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
        blocks = (stored.descriptors().astype(self.config.storage, copy=False) for stored in shards)
        dim = self.loaded.model.descriptor_dim
        joined = PhotoMarks.joined(marks) if len(marks) == len(shards) else None
        write_descriptors(out, names, blocks, dim, self._info(skipped), joined)
        return tuple(skipped)
