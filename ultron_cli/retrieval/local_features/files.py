"""Files of local features (HDF5): the only code that reads or writes them.

Layout (a contract, see docs/file-formats.md): attributes format, version, complete, detector, config, dataset, role,
crop, skipped, provenance, created, ultron_version; /names (N,) UTF-8, /sizes (N, 2) int32, width and height; of all
photos' features one after the other, /keypoints (F, 5) float32 (x, y, scale, angle, strength) and /descriptors (F, D),
those of photo i in the rows /offsets[i] up to /offsets[i + 1]; where there is one, /projection_mean (C,) and
/projection (D, C) float32; and the marks of datasets/photo_marks.py.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NotRequired, Self, TypedDict, cast

import h5py
import numpy as np

from ultron_cli import __version__
from ultron_cli.blocks import chunks
from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.local.detectors import Comparison
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import Projection
from ultron_cli.retrieval.hdf5 import (
    TEXT,
    H5Layout,
    H5Part,
    damage_said,
    mark_parts,
    new_h5,
    open_h5,
    read_h5_marks,
    write_h5_header,
    write_h5_marks,
    write_h5_names,
    write_h5_text,
)
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, Json, SkippedPhoto, StoredSkippedPhoto

FORMAT = "ultron-local-features"
VERSION = 1
SUFFIX = ".local.h5"
COLUMNS = 5  # of /keypoints: x, y, scale, angle, strength
LARGEST = np.finfo(np.float32).max
BELOW_360 = np.nextafter(np.float32(360), np.float32(0))
LEAST_KEYPOINT = np.array([[-0.5], [-0.5], [np.nextafter(np.float32(0), np.float32(1))], [0], [-LARGEST]], np.float32)
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="file of local features",
    parts={
        "names": H5Part(axes="(N,)", types=(TEXT,)),
        "offsets": H5Part(axes="(N + 1,)", types=("int64",)),
        "sizes": H5Part(axes="(N, 2)", types=("int32",)),
        "keypoints": H5Part(axes="(F, 5)", types=("float32",)),
        "descriptors": H5Part(axes="(F, D)", types=("uint8", "float16", "float32")),
        "projection_mean": H5Part(axes="(C,)", types=("float32",), may_lack=True),
        "projection": H5Part(axes="(D, C)", types=("float32",), may_lack=True),
        **mark_parts("photo"),
    },
    attributes={
        "complete": bool,
        "detector": str,
        "config": str,
        "dataset": str,
        "role": str,
        "crop": str,
        "skipped": str,
        "provenance": str,
        "created": str,
        "ultron_version": str,
    },
    defaults={"skipped": "[]", "provenance": "{}"},
    again="delete it and run the same `ultron extract` (or `ultron datasets leaks`) again",
)


class StoredNetwork(TypedDict):
    """The types of what is read of the network whose maps the features are places of."""

    model: dict[str, object]
    weights_sha256: str
    preprocessing: dict[str, object]
    resize: Literal["down", "always"]
    box_edges: Literal["truncated"] | None
    layer: str
    cell_px: float


class StoredLocalExtraction(TypedDict):
    """The types of what the `config` of a file of local features holds, as far as they are read."""

    settings: dict[str, object]
    comparison: Comparison
    max_keypoints: int
    max_side_px: int | None
    network: NotRequired[StoredNetwork | None]


@dataclass(frozen=True, kw_only=True)
class LocalFeatureInfo:
    """What a file of local features says of its origin."""

    detector: str  # a name of DETECTORS, or an import path
    settings: Json  # of the detector
    comparison: Comparison
    max_keypoints: int  # of a photo
    max_side_px: int | None  # to which photos, or their boxes, were brought first; None: as they are
    # Of places of a map, the side of a cell at scale 1, in pixels of the photo as it was brought; None of keypoints.
    cell_px: float | None = None
    dataset: str
    role: Literal["query", "database"]
    crop: Literal["bbx", "none"]  # bbx: the features inside the query's box
    extraction: ExtractionRecord = field(default_factory=ExtractionRecord)  # everything that shaped the numbers
    skipped: tuple[SkippedPhoto, ...] = ()
    origin: DescriptorProvenance = field(default_factory=DescriptorProvenance)
    created: str = ""
    ultron_version: str = __version__


def local_path(descriptor_path: Path) -> Path:
    """Where the local features of a descriptor file's photos are: queries.local.h5 beside queries.h5."""
    return descriptor_path.with_suffix(SUFFIX)


def open_local_features(path: Path) -> "LocalFeatureFile":
    """Opens a file of local features. Raises UltronError if it is absent, damaged, of another kind or unfinished."""
    return LocalFeatureFile(path)


class LocalFeatureFile:
    """A file of local features opened for reading; photos are read from disk when they are needed. A context
    manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = str(path)
        self._names: list[str] | None = None  # read when they are needed
        self._file = open_h5(path, LAYOUT)
        try:
            self._check()
        except UltronError:
            self.close()
            raise

    def _check(self) -> None:
        attributes = self._file.attributes
        if not attributes["complete"]:
            raise UltronError(f"{self.path} was never finished; run the same `ultron extract` again to continue it")
        keypoints, descriptors = self._file.dataset("keypoints"), self._file.dataset("descriptors")
        self.n: int = self._file.dataset("names").shape[0]
        self._offsets, self._sizes = self._file.array("offsets"), self._file.array("sizes")
        self.n_features: int = keypoints.shape[0]
        self.dim: int = descriptors.shape[1]  # numbers of a descriptor; bytes, where they are bits
        self.dtype: np.dtype = descriptors.dtype
        is_whole = (
            self._sizes.shape == (self.n, 2)
            and (self._sizes > 0).all()
            and self._offsets.shape == (self.n + 1,)
            and self._offsets[0] == 0
            and self._offsets[-1] == self.n_features == descriptors.shape[0]
            and (np.diff(self._offsets) >= 0).all()
            and keypoints.shape[1] == COLUMNS
            and self.dim > 0
        )
        if not is_whole:
            raise UltronError(
                f"{self.path}: /names, /offsets, /sizes, /keypoints and /descriptors must be of the same photos and "
                f"features and are not; {LAYOUT.again}"
            )
        config = cast(StoredLocalExtraction, self._file.json("config", StoredLocalExtraction))
        network = config.get("network")
        self.info = LocalFeatureInfo(
            detector=attributes["detector"],
            settings=config["settings"],
            comparison=config["comparison"],
            max_keypoints=config["max_keypoints"],
            max_side_px=config["max_side_px"],
            cell_px=network["cell_px"] if network else None,
            dataset=attributes["dataset"],
            role=attributes["role"],
            crop=attributes["crop"],
            extraction=ExtractionRecord(stored=cast(Json, config)),
            skipped=SkippedPhoto.list_from_json(self._file.json("skipped", list[StoredSkippedPhoto])),
            origin=DescriptorProvenance.from_json(self._file.json("provenance", dict)),
            created=attributes["created"],
            ultron_version=attributes["ultron_version"],
        )
        with damage_said(self.path, LAYOUT.again):
            self._keypoints, self._descriptors = _mapped(self.path, keypoints), _mapped(self.path, descriptors)

    @property
    def names(self) -> list[str]:
        """Photo names, one per row."""
        if self._names is None:
            self._names = self._file.texts("names")
        return self._names

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row by photo name."""
        return {name: row for row, name in enumerate(self.names)}

    @property
    def marks(self) -> PhotoMarks | None:
        """What tells the photos from others of their names, one per row; None where it is not recorded."""
        return read_h5_marks(self._file, "photo", self.n)

    @property
    def counts(self) -> np.ndarray:
        """(N,) int64, features of each photo."""
        return np.diff(self._offsets)

    @property
    def bytes_per_photo(self) -> float:
        """Bytes on disk, of the whole file."""
        return self.path.stat().st_size / max(1, self.n)

    @property
    def projection(self) -> Projection | None:
        """What the descriptors went through before they were stored."""
        if not (self._file.has("projection") and self._file.has("projection_mean")):
            return None
        mean, matrix = self._file.array("projection_mean"), self._file.array("projection")
        if matrix.shape != (self.dim, len(mean)) or not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
            raise UltronError(
                f"{self.path}: /projection must be finite, {self.dim} rows as long as /projection_mean; {LAYOUT.again}"
            )
        return Projection(mean=mean, matrix=matrix)

    def read(self, row: int) -> LocalFeatures:
        """The features of one photo. Raises UltronError if they are not such as a photo has, IndexError for a row that
        is not there."""
        if not 0 <= row < self.n:
            raise IndexError(f"photo {row} of {self.n}")
        return self.between(row, row + 1)[0]

    def take(self, rows: Iterable[int]) -> list[LocalFeatures]:
        """The features of photos in any order, with repeats. Raises as `read` does."""
        return [self.read(int(row)) for row in rows]

    def blocks(self, n_rows: int) -> Iterator[tuple[int, list[LocalFeatures]]]:
        """(first row, features of each photo) of consecutive blocks of photos. Raises as `read` does."""
        for start, stop in chunks(self.n, n_rows):
            yield start, self.between(start, stop)

    def between(self, start: int, stop: int) -> list[LocalFeatures]:
        """The features of consecutive photos, start..stop. Raises as `read` does."""
        first, last = int(self._offsets[start]), int(self._offsets[stop])
        with damage_said(self.path, LAYOUT.again):
            keypoints = np.array(self._keypoints[first:last])
            descriptors = np.array(self._descriptors[first:last])
        edges = self._offsets[start : stop + 1] - first
        return [
            self._features(row, keypoints[edges[i] : edges[i + 1]], descriptors[edges[i] : edges[i + 1]])
            for i, row in enumerate(range(start, stop))
        ]

    def _features(self, row: int, keypoints: np.ndarray, descriptors: np.ndarray) -> LocalFeatures:
        width, height = self._sizes[row].tolist()
        columns = np.ascontiguousarray(keypoints.T)
        _, _, scales, angles, strengths = columns
        # The photo ends half a pixel beyond the outer centres.
        largest = np.array([[width - 0.5], [height - 0.5], [LARGEST], [BELOW_360], [LARGEST]], np.float32)
        is_sound = (
            ((columns >= LEAST_KEYPOINT) & (columns <= largest)).all()  # not a number is neither
            and (strengths[1:] <= strengths[:-1]).all()
            and (self.dtype == np.uint8 or np.isfinite(descriptors).all())
        )
        if not is_sound:
            raise UltronError(
                f"{self.path}: the features of {self.names[row]} must be finite, inside the photo, of scales over 0, "
                f"angles of 0 up to 360 and falling strengths, and are not; {LAYOUT.again}"
            )
        return LocalFeatures(
            positions=np.ascontiguousarray(keypoints[:, :2]),
            scales=scales,
            angles=angles,
            strengths=strengths,
            descriptors=descriptors,
            size=(width, height),
        )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _mapped(path: Path, stored: h5py.Dataset) -> np.ndarray | h5py.Dataset:
    """A dataset through a memory map of its file: HDF5 takes as long for a photo's rows as matching them. The dataset
    itself where its bytes do not lie in one piece, as another program may write it."""
    offset = stored.id.get_offset() if stored.dtype.isnative else None
    return stored if offset is None else np.memmap(path, stored.dtype, "r", offset, stored.shape)


def write_local_features(
    path: Path,
    names: Sequence[str],
    counts: Sequence[int],
    photos: Iterable[LocalFeatures],
    descriptors: tuple[int, np.dtype],
    info: LocalFeatureInfo,
    *,
    marks: PhotoMarks | None = None,
    projection: Projection | None = None,
) -> None:
    """Writes a file of local features atomically.

    names, counts, photos: of N photos in one order, the counts those of their features. descriptors: (D, their type).
    marks: of the N photos, where they are known. Raises ValueError if counts or descriptors are others than announced.
    """
    dim, dtype = descriptors
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    with new_h5(path) as (handle, _):
        write_h5_names(handle, "names", names)
        write_h5_marks(handle, "photo", marks)
        handle["offsets"] = offsets
        # In one piece each, so that a reader can map them into memory.
        keypoints = handle.create_dataset("keypoints", (int(offsets[-1]), COLUMNS), np.float32)
        stored = handle.create_dataset("descriptors", (int(offsets[-1]), dim), dtype)
        sizes = np.zeros((len(names), 2), np.int32)
        n_done = 0
        for row, features in enumerate(photos):
            if len(features) != counts[row] or features.descriptors.dtype != dtype:
                raise ValueError(f"{names[row]}: {len(features)} features of {features.descriptors.dtype}")
            start, stop = offsets[row : row + 2].tolist()
            if stop > start:
                columns = (features.positions, features.scales, features.angles, features.strengths)
                keypoints[start:stop] = np.column_stack(columns)
                stored[start:stop] = features.descriptors
            sizes[row] = features.size
            n_done += 1
        if n_done != len(names):
            raise ValueError(f"features of {n_done} photos for {len(names)} names")
        handle["sizes"] = sizes
        if projection is not None:
            handle["projection_mean"] = projection.mean
            handle["projection"] = projection.matrix
        write_h5_header(handle, FORMAT, VERSION, created=info.created, ultron_version=info.ultron_version)
        for key in ("detector", "dataset", "role", "crop"):
            write_h5_text(handle, key, getattr(info, key))
        write_h5_text(handle, "config", json.dumps(dict(info.extraction.stored), sort_keys=True))
        handle.attrs["skipped"] = json.dumps([photo.to_json() for photo in info.skipped])
        handle.attrs["provenance"] = json.dumps(info.origin.to_json())
        handle.attrs["complete"] = True
