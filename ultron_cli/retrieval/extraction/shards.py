"""From photos to a descriptor file: shards that survive a kill, continued only by the same configuration."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import torch

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import counted, log, progress
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
from ultron_cli.files import make_folder, only_writer, read_json, write_text
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch, photo_shape
from ultron_cli.retrieval.extraction.processes import ALONE, ExtractionProcesses
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, SkippedPhoto, WeightsSource

# At most so many photos are in a batch too: batches lie within a shard, so that a photo's descriptor does not depend on
# which process computes which shards.
PHOTOS_PER_SHARD = 64


@dataclass(frozen=True, kw_only=True)
class ExtractWork:
    """How the work is done; none of it shapes the numbers (beyond rounding)."""

    device: torch.device
    batch_size: int = 8
    n_workers: int = 1
    skip_bad: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """The written file, and how many photos it holds, were computed now, and were left out."""

    path: Path
    n_photos: int
    n_computed: int
    skipped: tuple[SkippedPhoto, ...]


@dataclass
class _Shard:
    """A run of consecutive photos on its way to a shard file."""

    rows: range
    descriptors: dict[int, np.ndarray]
    skipped: dict[int, str]

    @property
    def complete(self) -> bool:
        return len(self.descriptors) + len(self.skipped) == len(self.rows)


class Extraction:
    """One descriptor file in the making."""

    def __init__(
        self, dataset: Dataset, names: list[str], loaded: LoadedModel, config: ExtractConfig, work: ExtractWork
    ) -> None:
        self.dataset, self.names, self.loaded, self.config, self.work = dataset, names, loaded, config, work
        self.shape = photo_shape(config, loaded.model)
        self.shards = [
            range(start, min(start + PHOTOS_PER_SHARD, len(names))) for start in range(0, len(names), PHOTOS_PER_SHARD)
        ]

    def run(self, out: Path, processes: ExtractionProcesses = ALONE) -> ExtractResult:
        """Writes `out`, continuing shards of an interrupted run. Raises UltronError if older work differs in
        configuration.

        processes: with others than this first one, which call `help_run`, shards are shared out.
        """
        if out.exists() and not self.work.overwrite:
            processes.tell(self._missing_key, [])
            return self._reuse(out)
        parts = out.with_name(out.name + ".parts")
        make_folder(out.parent)
        with only_writer(
            parts, f"another `ultron extract` is writing {parts.with_suffix('')}; wait for it, or name another --out"
        ):
            self._continue_or_start(parts)
            n_before = processes.count(0)
            missing = processes.tell(self._missing_key, self._missing(parts))
            n_computed = sum(len(self.shards[i]) for i in missing)
            if len(missing) < len(self.shards):
                log.info("continuing %s: %d of %d photos are there", out, len(self.names) - n_computed, len(self.names))
            with progress(total=len(self.names), what=f"extract {self.config.role}") as bar:
                bar.update(len(self.names) - n_computed)

                def show(n_photos: int) -> None:
                    bar.update(len(self.names) - n_computed + n_photos - n_before - bar.n)

                self._compute(parts, processes.share(missing), lambda n: show(processes.count(n)))
                for other in range(1, processes.n if missing else 1):
                    processes.hear(f"process {other} has its {self.config.role} shards", show)
            skipped = self._merge(parts, out)
        shutil.rmtree(parts)
        return ExtractResult(path=out, n_photos=len(self.names) - len(skipped), n_computed=n_computed, skipped=skipped)

    def help_run(self, out: Path, processes: ExtractionProcesses) -> None:
        """What every process but the first does: its share of the shards that the first finds missing."""
        missing = processes.hear(self._missing_key)
        if missing:
            parts = out.with_name(out.name + ".parts")
            self._require_shared(parts, processes)
            self._compute(parts, processes.share(missing), processes.count)
            processes.tell(f"process {processes.process} has its {self.config.role} shards")

    @property
    def _missing_key(self) -> str:
        return f"missing {self.config.role} shards"

    def _missing(self, parts: Path) -> list[int]:
        """Shards that are not there. One listing: asking for each, a network file system would remember for a while
        that it was absent."""
        there = {path.name for path in parts.glob("shard-*.h5")}
        return [i for i in range(len(self.shards)) if self._shard_path(parts, i).name not in there]

    def _require_shared(self, parts: Path, processes: ExtractionProcesses) -> None:
        """Raises UltronError if this process does not see the folder that the first one made, or was asked for
        something else."""
        stored = parts / "config.json"
        if not stored.exists():
            raise UltronError(
                f"process {processes.process} does not see {stored.resolve()}, which process 0 wrote; --out "
                "must lie on a file system that all machines share"
            )
        differing = differences(read_json(stored, "configuration of the extraction"), to_dict(self.config))
        if differing:
            raise UltronError(
                f"process {processes.process} differs from process 0: {'; '.join(differing)}; start all with "
                "the same command, dataset and weights"
            )

    def _reuse(self, out: Path) -> ExtractResult:
        with DescriptorFile(out) as existing:
            self._require_equal(existing.info.extraction, out)
            shutil.rmtree(out.with_name(out.name + ".parts"), ignore_errors=True)  # left by a kill after the merge
            log.info("reusing %s: same configuration and weights, %s", out, counted(existing.n, "descriptor"))
            return ExtractResult(path=out, n_photos=existing.n, n_computed=0, skipped=existing.info.skipped)

    def _require_equal(self, stored: ExtractionRecord, where: Path) -> None:
        differing = stored.differences(self._record)
        if differing:
            raise UltronError(
                f"{where} was made with another configuration: {'; '.join(differing)}; replace it with "
                "--overwrite, or keep both with another --out"
            )

    def _continue_or_start(self, parts: Path) -> None:
        stored = parts / "config.json"
        if stored.exists() and not self.work.overwrite:
            interrupted = read_json(stored, "configuration of the interrupted extraction")
            self._require_equal(ExtractionRecord(stored=interrupted), parts)
            return
        for old in parts.glob("shard-*.h5"):
            old.unlink()
        write_text(stored, json.dumps(to_dict(self.config), indent=1))

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

    def _compute(self, parts: Path, missing: list[int], on_photos: Callable[[int], object]) -> None:
        model, device = (
            self.loaded.model.to(device=self.work.device, memory_format=torch.channels_last),
            self.work.device,
        )
        rows = [row for i in missing for row in self.shards[i]]
        paths = dict(zip(rows, self._paths(rows), strict=True))
        listed = self.dataset.bad_photos if self.work.skip_bad else {}
        readable = [row for row in rows if paths[row] not in listed]
        reader = PhotoReader(
            readable, [paths[row] for row in readable], [self._box(self.names[row]) for row in readable], self.shape
        )
        open_shards = {i: _Shard(self.shards[i], {}, {}) for i in missing}
        bad = (LoadedPhoto(row, None, listed[paths[row]]) for row in rows if paths[row] in listed)
        photos = chain(bad, read_photos(reader, self.work.n_workers))
        for i, of_shard in groupby(photos, lambda photo: photo.row // PHOTOS_PER_SHARD):
            for batch in batches_by_shape(of_shard, self.work.batch_size, max_waiting=8 * self.work.batch_size):
                self._take(open_shards[i], batch, model, device)
                on_photos(len(batch))
            if open_shards[i].complete:
                self._write_shard(parts, i, open_shards.pop(i))

    def _take(self, shard: _Shard, batch: list[LoadedPhoto], model: RetrievalModel, device: torch.device) -> None:
        """Adds the descriptors of one batch (or the reason for a bad photo) to its shard."""
        bad = batch[0]
        if bad.pixels is None:
            if not self.work.skip_bad:
                raise UltronError(bad.problem)
            log.warning("left out: %s", bad.problem)
            shard.skipped[bad.row] = bad.problem
            return
        descriptors = describe_batch(model, batch, self.config, device)
        finite = np.isfinite(descriptors).all(axis=1)
        if not finite.all():
            name = self.names[batch[int(np.argmin(finite))].row]
            raise UltronError(
                f"{name}: the model gave a descriptor that is not finite; try --precision float32, or other weights"
            )
        for photo, descriptor in zip(batch, descriptors, strict=True):
            shard.descriptors[photo.row] = descriptor

    @property
    def _record(self) -> ExtractionRecord:
        return ExtractionRecord(stored=to_dict(self.config))

    def _info(self, skipped: Sequence[SkippedPhoto]) -> DescriptorInfo:
        ground_truth = self.dataset.ground_truth_path
        made = DescriptorProvenance(
            weights=WeightsSource.from_json(self.loaded.source),
            dataset_folder=str(self.dataset.folder.resolve()),
            ground_truth=str(ground_truth.resolve()) if ground_truth else None,
            other=provenance() | {"device": str(self.work.device)},
        )
        return DescriptorInfo(
            model=self.loaded.model.label,
            weights_sha256=self.loaded.weights_sha256,
            extraction=self._record,
            dataset=self.config.dataset,
            role=self.config.role,
            crop=self.config.crop,
            scales=list(self.config.scales),
            skipped=tuple(skipped),
            provenance=made,
        )

    def _write_shard(self, parts: Path, i: int, shard: _Shard) -> None:
        rows = sorted(shard.descriptors)
        dim = self.loaded.model.descriptor_dim
        block = np.stack([shard.descriptors[row] for row in rows]) if rows else np.empty((0, dim), self.config.storage)
        skipped = [SkippedPhoto(name=self.names[row], reason=reason) for row, reason in sorted(shard.skipped.items())]
        write_descriptors(
            self._shard_path(parts, i), [self.names[row] for row in rows], [block], dim, self._info(skipped)
        )

    def _merge(self, parts: Path, out: Path) -> tuple[SkippedPhoto, ...]:
        """Joins all shards into `out` and returns the photos left out."""
        names: list[str] = []
        skipped: list[SkippedPhoto] = []
        paths = [self._shard_path(parts, i) for i in range(len(self.shards))]
        if missing := self._missing(parts):
            seen = f"{counted(len(missing), 'shard')} of other processes cannot be seen in {parts}"
            raise WorkFailed(f"{seen}; --out must lie on a file system that all machines share")
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
