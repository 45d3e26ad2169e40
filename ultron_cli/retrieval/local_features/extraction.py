"""The local features of photos, as a file is made of them."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, cast

import numpy as np

from ultron_cli.configs import within
from ultron_cli.datasets.corruptions import Corruption
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photo_marks import PhotoMark, PhotoMarks, read_with_mark, state_of
from ultron_cli.datasets.photos import Box, LoadedPhoto, PhotoReader, PhotoShape, PlacedPixels, load_placed, read_photos
from ultron_cli.errors import UltronError
from ultron_cli.local.detectors import Comparison, DescriptorType, Detector, strongest
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import Projection
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.extraction.earlier import FileKind, StoredFile, StoredPhotos
from ultron_cli.retrieval.extraction.shards import Extraction, ExtractWork, worker_cores
from ultron_cli.retrieval.extraction.streams import Described
from ultron_cli.retrieval.local_features.files import (
    COLUMNS,
    LocalFeatureFile,
    LocalFeatureInfo,
    write_local_features,
)
from ultron_cli.retrieval.origin import DescriptorProvenance, SkippedPhoto, WeightsSource

MOST_KEYPOINTS = 100_000
MIN_SIDE_PX = 16  # below it OpenCV's pyramids have no level


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """Everything that shapes the numbers of a file of local features; stored whole in it, and compared before
    continuing one."""

    dataset: str
    photos_sha256: str  # of names and boxes
    role: Literal["query", "database"]
    crop: Literal["bbx", "none"]
    corruption: Corruption | None = None
    detector: str
    settings: dict[str, object]  # of the detector
    code_sha256: str | None = None  # of a detector by import path
    comparison: Comparison
    descriptor_type: DescriptorType
    max_keypoints: int
    max_side_px: int | None
    # Of dense features: the model, its weights, and how photos are brought to it.
    network: dict[str, object] | None = None

    def __post_init__(self) -> None:
        within("local_points", self.max_keypoints, 1, MOST_KEYPOINTS)
        if self.max_side_px is not None:
            within("local_side", self.max_side_px, 32, 16384)


def local_shape(max_side_px: int | None) -> PhotoShape:
    """To which shape photos are brought for a detector."""
    return PhotoShape(max_side_px=max_side_px, min_side_px=MIN_SIDE_PX)


def in_photo(features: LocalFeatures, placed: PlacedPixels) -> LocalFeatures:
    """Features of resized pixels as those of the photo."""
    height, width = placed.pixels.shape[:2]
    steps = np.array(placed.part_size, np.float64) / (width, height)
    first = np.array(placed.left_top, np.float64)
    positions = first + (features.positions + 0.5) * steps - 0.5
    # Rounding to float32 may step over the edge.
    positions = np.clip(positions, first - 0.5, first + placed.part_size - 0.5).astype(np.float32)
    scales = (features.scales * np.sqrt(steps.prod())).astype(np.float32)
    return replace(features, positions=positions, scales=scales, size=placed.photo_size)


@dataclass(frozen=True)
class _ReadPhoto(LoadedPhoto):
    """A photo that was read, and its features where the process that read it detects them too."""

    placed: PlacedPixels | None = None
    features: LocalFeatures | None = None


class LocalReader(PhotoReader):
    """Marks what it reads."""

    # Called in the process that reads; None leaves detection to the process that gets the photo.
    detect: Callable[[PlacedPixels], LocalFeatures] | None = None

    def __getitem__(self, i: int) -> LoadedPhoto:
        path, row = self.paths[i], self.rows[i]

        def read() -> PlacedPixels:
            return load_placed(path, self.boxes[i], self.shape, self.corruption, self.names[i])

        try:
            placed, mark = read_with_mark(path, read)
        except UltronError as error:
            return _ReadPhoto(row, None, error.message, PhotoMark(state_of(path)))
        if self.detect is None:
            return _ReadPhoto(row, None, mark=mark, placed=placed)
        return _ReadPhoto(row, None, mark=mark, features=self.detect(placed))


def _features(stored: StoredFile, start: int, stop: int) -> list[LocalFeatures]:
    return cast(LocalFeatureFile, stored).between(start, stop)


LOCAL_FEATURES = FileKind(what="photo", open=LocalFeatureFile, results=_features)


@dataclass(frozen=True)
class Placing:
    """Detection whose features are those of the photo: the strongest ones, in their order."""

    detector: Detector
    max_keypoints: int

    def __call__(self, placed: PlacedPixels) -> LocalFeatures:
        features = self.detector.detect(placed.pixels, self.max_keypoints)
        return in_photo(strongest(features, self.max_keypoints), placed)


class LocalExtraction(Extraction[LocalFeatures]):
    """One file of local features in the making."""

    kind = LOCAL_FEATURES

    def __init__(
        self,
        dataset: Dataset,
        names: list[str],
        detector: Detector,
        config: LocalConfig,
        work: ExtractWork,
        weights: WeightsSource | None = None,
    ) -> None:
        """weights: of the network, where the features are of its maps."""
        super().__init__(dataset, names, work)
        self.detector = detector
        self.config = config
        self.weights = weights
        self.shape = local_shape(config.max_side_px)
        self.projection: Projection | None = None  # that descriptors go through
        row_bytes = 4 * COLUMNS + detector.descriptor_dim * np.dtype(detector.descriptor_type).itemsize
        self.storage_bytes = config.max_keypoints * row_bytes  # at most

    @property
    def settings(self) -> LocalConfig:
        return self.config

    @property
    def n_default_workers(self) -> int:
        """Processes that decode photos, and where the detector is for them detect in them, unless a number is set."""
        return worker_cores() if self.detector.is_for_workers else 0

    @property
    def what(self) -> str:
        return f"{self.config.role} {self.config.detector}"

    def reader(self, rows: list[int], paths: list[Path], boxes: list[Box | None], names: Sequence[str]) -> PhotoReader:
        reader = LocalReader(rows, paths, boxes, self.shape, self.config.corruption, names)
        if self.detector.is_for_workers:
            reader.detect = Placing(self.detector, self.config.max_keypoints)
        return reader

    def described(
        self, bad: Iterable[LoadedPhoto], reader: PhotoReader
    ) -> Generator[Described[LocalFeatures], None, None]:
        detect = Placing(self.detector, self.config.max_keypoints)
        n_workers = self.work.n_workers
        if n_workers is None:
            n_workers = self.n_default_workers
        for photo in chain(bad, read_photos(reader, n_workers)):
            features = photo.features if isinstance(photo, _ReadPhoto) else None
            if isinstance(photo, _ReadPhoto) and photo.placed is not None:
                features = detect(photo.placed)
            # Pixels are let go here.
            read = LoadedPhoto(photo.row, None, photo.problem, photo.mark)
            yield Described([read], None if features is None else [features])

    def require_sound(self, names: Sequence[str], results: Sequence[LocalFeatures]) -> None:
        pass  # of what a detector gives

    def write(
        self,
        path: Path,
        names: Sequence[str],
        results: Sequence[LocalFeatures],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        self._write(path, names, [len(features) for features in results], results, skipped, marks)

    def join(
        self,
        path: Path,
        names: Sequence[str],
        shards: Sequence[StoredPhotos[LocalFeatures]],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        counts: list[int] = []
        for stored in shards:
            with LocalFeatureFile(stored.path) as file:
                counts += file.counts[stored.first : stored.first + len(stored.rows)].tolist()
        self._write(path, names, counts, (photo for stored in shards for photo in stored.results()), skipped, marks)

    def _write(
        self,
        path: Path,
        names: Sequence[str],
        counts: Sequence[int],
        photos: Iterable[LocalFeatures],
        skipped: Sequence[SkippedPhoto],
        marks: PhotoMarks | None,
    ) -> None:
        width = self.detector.descriptor_dim, np.dtype(self.detector.descriptor_type)
        info = self._info(skipped)
        write_local_features(path, names, counts, photos, width, info, marks=marks, projection=self.projection)

    def _info(self, skipped: Sequence[SkippedPhoto]) -> LocalFeatureInfo:
        config, ground_truth = self.config, self.dataset.ground_truth_path
        origin = DescriptorProvenance(
            weights=self.weights,
            dataset_folder=str(self.dataset.folder.resolve()),
            ground_truth=str(ground_truth.resolve()) if ground_truth else None,
            other=provenance(),
        )
        return LocalFeatureInfo(
            detector=config.detector,
            settings=config.settings,
            comparison=config.comparison,
            max_keypoints=config.max_keypoints,
            max_side_px=config.max_side_px,
            dataset=config.dataset,
            role=config.role,
            crop=config.crop,
            extraction=self.record,
            skipped=tuple(skipped),
            origin=origin,
        )
