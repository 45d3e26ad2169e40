"""One descriptor file in shards: each is computed and written by itself, and all are joined into the file.

Which process computes which shard, and what an interrupted run left, is the business of files.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import torch

from ultron_cli.configs import to_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photos import (
    Box,
    LoadedPhoto,
    PhotoReader,
    batches_by_shape,
    clip_box,
    photo_size,
    read_photos,
)
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch, photo_shape
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
    n_workers: int = 1
    skip_bad: bool = False
    overwrite: bool = False


@dataclass
class _Shard:
    """A run of consecutive photos on its way to a shard file."""

    rows: range
    descriptors: dict[int, np.ndarray] = field(default_factory=dict)  # by row
    skipped: dict[int, str] = field(default_factory=dict)  # reason by row

    @property
    def is_complete(self) -> bool:
        return len(self.descriptors) + len(self.skipped) == len(self.rows)


class Extraction:
    """One descriptor file in the making."""

    def __init__(
        self, dataset: Dataset, names: list[str], loaded: LoadedModel, config: ExtractConfig, work: ExtractWork
    ) -> None:
        self.dataset = dataset
        self.names = names
        self.loaded = loaded
        self.config = config
        self.work = work
        self.shape = photo_shape(config, loaded.model)
        self.shards = [
            range(start, min(start + PHOTOS_PER_SHARD, len(names))) for start in range(0, len(names), PHOTOS_PER_SHARD)
        ]

    def missing(self, parts: Path, *, drop_damaged: bool = False) -> list[int]:
        """Numbers of the shards that are not in the folder. One listing: asking for each, a network file system would
        remember for a while that it was absent.

        drop_damaged: reads those that are there, and removes what is truncated or of other photos.
        """
        file_names = {path.name for path in parts.glob("shard-*.h5")}
        missing = []
        for i, rows in enumerate(self.shards):
            path = self._shard_path(parts, i)
            if path.name not in file_names:
                missing.append(i)
            elif drop_damaged and (fault := self._fault_in(path, rows)):
                log.warning("%s; it is computed again", fault)
                path.unlink()
                missing.append(i)
        return missing

    def _fault_in(self, path: Path, rows: range) -> str:
        """What is wrong with a shard's file; empty if it holds its photos."""
        try:
            with DescriptorFile(path) as shard:
                shard.read()
                names = {*shard.names, *(photo.name for photo in shard.info.skipped)}
        except (UltronError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            return str(error).split("; ")[0]
        return "" if names == {self.names[row] for row in rows} else f"{path} holds other photos"

    def count(self, shards: Sequence[int]) -> int:
        """Photos in shards, by their numbers."""
        return sum(len(self.shards[i]) for i in shards)

    def disk_bytes(self, out: Path, parts: Path) -> int:
        """About how much the files that are still to be written take: the missing shards, then all of them joined."""
        if out.exists() and not self.work.overwrite:
            return 0
        row_bytes = self.loaded.model.descriptor_dim * np.dtype(self.config.storage).itemsize
        missing = range(len(self.shards)) if self.work.overwrite else self.missing(parts)
        n_rows = len(self.names) + self.count(missing)
        return n_rows * (row_bytes + NAME_BYTES) + (len(missing) + 1) * FILE_BYTES

    def _shard_path(self, parts: Path, shard: int) -> Path:
        return parts / f"shard-{shard:06d}.h5"

    def _box(self, name: str) -> Box | None:
        return self.dataset.query(name).bbx if self.config.crop == "bbx" else None

    def _paths(self, rows: list[int]) -> list[Path]:
        """Files of the photos; with --skip-bad a missing one becomes a path that will fail to decode."""
        paths = []
        for row in rows:
            try:
                paths.append(self.dataset.photo_path(self.names[row]))
            except UltronError:
                if not self.work.skip_bad:
                    raise
                paths.append(self.dataset.photo_folder / f"{self.names[row]}.jpg")
        return paths

    def check_photos(self) -> None:
        """Before anything is written: every photo has a file, every box lies in its photo. Raises UltronError."""
        paths = self._paths(list(range(len(self.names))))
        for name, path in zip(self.names, paths, strict=True):
            box = self._box(name)
            if box is None or (self.work.skip_bad and not path.exists()):
                continue
            try:
                size = photo_size(path)
            except UltronError:
                if self.work.skip_bad:
                    continue
                raise
            clip_box(box, *size, where=f"{self.dataset.name}, query {name}")

    def compute(self, parts: Path, shards: list[int], on_photos: Callable[[int], object]) -> None:
        """Computes shards, by number, and writes each into the folder when it is complete.

        on_photos: called with the number of photos after every batch. Raises UltronError for a photo that cannot be
        decoded (without skip_bad) or gets no finite descriptor.
        """
        # One call per thing: torch's declaration of .to knows no device together with a memory format.
        model = self.loaded.model.to(self.work.device).to(memory_format=torch.channels_last)
        rows = [row for i in shards for row in self.shards[i]]
        paths = dict(zip(rows, self._paths(rows), strict=True))
        listed = self.dataset.bad_photos if self.work.skip_bad else {}
        readable = [row for row in rows if paths[row] not in listed]
        boxes = [self._box(self.names[row]) for row in readable]
        reader = PhotoReader(readable, [paths[row] for row in readable], boxes, self.shape)
        open_shards = {i: _Shard(self.shards[i]) for i in shards}
        bad = (LoadedPhoto(row, None, listed[paths[row]]) for row in rows if paths[row] in listed)
        photos = chain(bad, read_photos(reader, self.work.n_workers))
        for i, of_shard in groupby(photos, lambda photo: photo.row // PHOTOS_PER_SHARD):
            for batch in batches_by_shape(of_shard, self.work.batch_size, max_waiting=8 * self.work.batch_size):
                self._take(open_shards[i], batch, model)
                on_photos(len(batch))
            if open_shards[i].is_complete:
                self._write_shard(parts, i, open_shards.pop(i))

    def _take(self, shard: _Shard, batch: list[LoadedPhoto], model: RetrievalModel) -> None:
        """Adds the descriptors of one batch (or the reason for a bad photo) to its shard."""
        bad = batch[0]
        if bad.pixels is None:
            if not self.work.skip_bad:
                raise UltronError(bad.problem, "go on without it with `skip_bad`")
            log.warning("left out: %s", bad.problem)
            shard.skipped[bad.row] = bad.problem
            return
        descriptors = describe_batch(model, batch, self.config, self.work.device)
        finite = np.isfinite(descriptors).all(axis=1)
        if not finite.all():
            name = self.names[batch[int(np.argmin(finite))].row]
            raise UltronError(
                f"{name}: the model gave a descriptor that is not finite; try `precision` float32, or other weights"
            )
        for photo, descriptor in zip(batch, descriptors, strict=True):
            shard.descriptors[photo.row] = descriptor

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
        block = np.stack([shard.descriptors[row] for row in rows]) if rows else np.empty((0, dim), self.config.storage)
        skipped = [SkippedPhoto(name=self.names[row], reason=reason) for row, reason in sorted(shard.skipped.items())]
        write_descriptors(
            self._shard_path(parts, i), [self.names[row] for row in rows], [block], dim, self._info(skipped)
        )

    def merge(self, parts: Path, out: Path) -> tuple[SkippedPhoto, ...]:
        """Joins all shards into `out` and returns the photos left out. Raises WorkFailed if a shard is missing."""
        paths = [self._shard_path(parts, i) for i in range(len(self.shards))]
        if missing := self.missing(parts):
            raise WorkFailed(
                f"{counted(len(missing), 'shard')} cannot be seen in {parts}, though they were written: something "
                "removes them, or the folder is not on a file system that all processes share; name another with `out`"
            )
        names: list[str] = []
        skipped: list[SkippedPhoto] = []
        for path in paths:
            with DescriptorFile(path) as shard:
                names += shard.names
                skipped += shard.info.skipped

        def blocks() -> Iterator[np.ndarray]:
            for path in paths:
                with DescriptorFile(path) as shard:
                    yield shard.read().astype(self.config.storage, copy=False)

        if not names:
            raise UltronError(
                f"not one of {counted(len(skipped), 'photo')} could be decoded, {out} was not written; check the photos"
            )
        write_descriptors(out, names, blocks(), self.loaded.model.descriptor_dim, self._info(skipped))
        return tuple(skipped)
