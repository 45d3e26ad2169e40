"""The descriptors of photos, as a file is made of them."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import cast

import numpy as np

from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.datasets.photos import Box, LoadedPhoto, PhotoReader, read_photos
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_threads
from ultron_cli.models.runtimes import RUNTIMES, open_network
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch, photo_shape
from ultron_cli.retrieval.extraction.earlier import FileKind, StoredFile, StoredPhotos
from ultron_cli.retrieval.extraction.runtime_choice import ChosenRuntime
from ultron_cli.retrieval.extraction.scales import build_for
from ultron_cli.retrieval.extraction.shards import Extraction, ExtractWork, MarkingReader, default_workers
from ultron_cli.retrieval.extraction.streams import Described, described_by_batch, described_by_photo
from ultron_cli.retrieval.origin import DescriptorProvenance, SkippedPhoto, WeightsSource


def _rows(stored: StoredFile, start: int, stop: int) -> np.ndarray:
    return cast(DescriptorFile, stored).read(start, stop)


DESCRIPTORS = FileKind(what="descriptor", open=DescriptorFile, results=_rows)


def _same(photo: LoadedPhoto) -> LoadedPhoto:
    return photo


class DescriptorExtraction(Extraction[np.ndarray]):
    """One descriptor file in the making. A result is (D,), in the storage type."""

    kind = DESCRIPTORS

    def __init__(
        self, dataset: Dataset, names: list[str], loaded: LoadedModel, config: ExtractConfig, work: ExtractWork
    ) -> None:
        """The network is computed by torch, unless `use` names another runtime."""
        super().__init__(dataset, names, work)
        self.loaded = loaded
        self.config = config
        self.runtime = ChosenRuntime("torch")
        self.shape = photo_shape(config, loaded.model)
        self.storage_bytes = loaded.model.descriptor_dim * np.dtype(config.storage).itemsize

    @property
    def settings(self) -> ExtractConfig:
        return self.config

    def use(self, runtime: ChosenRuntime) -> None:
        """Has the network computed by a runtime, which is part of the configuration."""
        self.runtime = runtime
        self.config = replace(self.config, runtime=runtime.name)

    def reader(self, rows: list[int], paths: list[Path], boxes: list[Box | None], names: Sequence[str]) -> PhotoReader:
        return MarkingReader(rows, paths, boxes, self.shape, self.config.corruption, names)

    def described(
        self, bad: Iterable[LoadedPhoto], reader: PhotoReader
    ) -> Generator[Described[np.ndarray], None, None]:
        name = self.runtime.name
        threads = RUNTIMES[name].threads(n_threads())
        network = self.runtime.network or open_network(
            name, self.loaded, self.work.device, self.config.precision, threads
        )

        def describe(batch: list[LoadedPhoto]) -> np.ndarray:
            return describe_batch(self.loaded.model, batch, self.config, self.work.device, network)

        if RUNTIMES[name].is_per_photo:
            build_for(len(reader), self.config.scales, self.loaded.model.preprocessing)
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
        for _, of_shard in groupby(photos, lambda photo: self.shard_of(photo.row)):
            yield from described_by_batch(of_shard, describe, self.work.batch_size)

    def require_sound(self, names: Sequence[str], results: Sequence[np.ndarray]) -> None:
        finite = [bool(np.isfinite(descriptor).all()) for descriptor in results]
        if not all(finite):
            name = names[finite.index(False)]
            precision = self.config.precision
            ways = () if precision == "float32" else ("try `precision=float32`",)
            raise UltronError(
                f"{name}: the model gave a descriptor that is not finite in {precision}; take other weights", *ways
            )

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

    def write(
        self,
        path: Path,
        names: Sequence[str],
        results: Sequence[np.ndarray],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        dim = self.loaded.model.descriptor_dim
        block = np.stack(results) if results else np.empty((0, dim))
        self._write(path, names, [block], skipped, marks)

    def join(
        self,
        path: Path,
        names: Sequence[str],
        shards: Sequence[StoredPhotos[np.ndarray]],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        self._write(path, names, (cast(np.ndarray, stored.results()) for stored in shards), skipped, marks)

    def _write(
        self,
        path: Path,
        names: Sequence[str],
        blocks: Iterable[np.ndarray],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        stored = (block.astype(self.config.storage, copy=False) for block in blocks)
        write_descriptors(path, names, stored, self.loaded.model.descriptor_dim, self._info(skipped), marks)
