"""Photos that stand on two sides of an experiment: copies, and photos of the same landmark.

Candidates are the nearest photos by descriptor, whitened: blur, fog or a frame move the descriptors of all photos in a
few common directions, which outweigh what tells one photo from the next. Where both sides have local features,
geometry decides (local/copies.py), else the similarity of the descriptors alone. A photo that is on both sides as it
is, is known by its bytes or its name (overlap.py).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from threadpoolctl import threadpool_limits

from ultron_cli.blocks import chunks
from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError
from ultron_cli.local.calibration import Calibration, calibrate
from ultron_cli.local.copies import ComparedPhoto, InCommon, in_common
from ultron_cli.local.verification import MODELS, VerifiablePhoto, VerifySettings, verify
from ultron_cli.machine import n_threads
from ultron_cli.retrieval.descriptors import DescriptorFile, require_same_dim, require_same_model
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.leak_features import leak_features
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, local_path, open_local_features
from ultron_cli.retrieval.local_features.opened import require_alike, rows_of
from ultron_cli.retrieval.overlap import own_rows
from ultron_cli.retrieval.whitening import WhitenedFile, Whitening, open_descriptors, require_same_whitening
from ultron_cli.retrieval.whitening_learning import learn_whitening

SideName = Literal["query", "database", "train", "distractors"]
Kind = Literal["same photo", "copy", "mirrored copy", "landmark", "similar"]
KINDS: tuple[Kind, ...] = ("same photo", "copy", "mirrored copy", "landmark", "similar")  # the worst first
ROWS_PER_BLOCK = 1024  # of photos whose nearest are looked for together
CHANCE_PAIRS = 400  # that the number of inliers of one landmark is calibrated on
DRAWN_PER_CHANCE_PAIR = 4  # of which the least similar is taken
MOST_WHITENED_DIMS = 512
PHOTOS_PER_WHITENED_DIM = 4  # that it is learned from; a direction of fewer is noise
LEAST_WHITENED_DIMS = 32  # fewer tell too little
FALSE_PAIRS = 0.5  # to be expected by chance among all candidates
SEED = 0


@dataclass(frozen=True, kw_only=True)
class LeakConfig:
    """How leaks are looked for."""

    k: int = 20  # nearest photos of each that are looked at
    similarity: float = 0.95  # from which descriptors alone make a leak, where there are no local features
    n_workers: int = 0  # threads; 0: as many as may be taken
    detect: bool = True  # faint features too, in the photos; else what lies beside the descriptors (leak_features.py)

    def __post_init__(self) -> None:
        within("k", self.k, 1, 1000)
        within("similarity", self.similarity, -1, 1)
        within("n_workers", self.n_workers, 0, 1024)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two photos that should not stand on both sides. The fields are the keys of an entry of leaks.json."""

    sides: str  # `query-train`, `database-train`, `query-database`, `query-distractors` or `database-distractors`
    first: str  # photo of the side that is named first
    second: str
    kind: Kind
    similarity: float  # of the descriptors
    score: int | None  # inliers, spread over the photo; None without local features
    covered: float | None  # 0 to 1: share of the picture in which both agree; None without local features

    @property
    def badness(self) -> tuple[int, int, float]:
        """The smaller, the worse."""
        return KINDS.index(self.kind), -(self.score or 0), -self.similarity


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """All leaks, the worst first, and how they were told."""

    leaks: list[Leak]
    by_geometry: list[str]  # sides that local features decided on
    by_similarity: list[str]  # sides that descriptors alone decided on
    calibrations: dict[str, Calibration]

    @property
    def training_photos(self) -> list[str]:
        """Photos to be kept out of training, sorted."""
        return sorted({leak.second for leak in self.leaks if leak.sides.endswith("-train")})

    @property
    def queries(self) -> list[str]:
        """Queries that training, or a copy in the database, gives away, sorted."""
        sides = ("query-train", "query-database")
        return sorted({leak.first for leak in self.leaks if leak.sides in sides})

    def to_json(self) -> dict[str, object]:
        """As leaks.json holds it."""
        return {
            "by_geometry": self.by_geometry,
            "by_similarity": self.by_similarity,
            "calibrations": {sides: part.to_json() for sides, part in self.calibrations.items()},
            "training_photos": self.training_photos,
            "queries": self.queries,
            "leaks": [asdict(leak) for leak in self.leaks],
        }


class Side:
    """One descriptor file, and the local features beside it where there are any. A context manager."""

    def __init__(self, path: Path, name: SideName, local: Path | None = None) -> None:
        """local: the file of its local features. Raises UltronError if a file is damaged, or the local features lack
        photos."""
        self.name = name
        with ExitStack() as stack:
            self.descriptors: DescriptorFile = stack.enter_context(open_descriptors(path))
            self.local: LocalFeatureFile | None = None
            if local is not None:
                self.local = stack.enter_context(open_local_features(local))
                self.local_rows = rows_of(self.local, self.descriptors.names)
            self._stack = stack.pop_all()
        self.names = self.descriptors.names

    def features(self, row: int) -> ComparedPhoto | None:
        """A photo to be compared with others; None where it has no local features."""
        file = self.local
        if file is None or self.local_rows[row] < 0:
            return None
        is_binary = file.info.comparison == "hamming"
        features = file.read(int(self.local_rows[row]))
        return ComparedPhoto.of(
            features, max_side_px=file.info.max_side_px, is_binary=is_binary, cell_px=file.info.cell_px
        )

    def photo(self, row: int) -> VerifiablePhoto | None:
        """A photo that others are compared with; None where it has no local features."""
        file = self.local
        if file is None or self.local_rows[row] < 0:
            return None
        is_binary = file.info.comparison == "hamming"
        features = file.read(int(self.local_rows[row]))
        return VerifiablePhoto.of(
            features, max_side_px=file.info.max_side_px, is_binary=is_binary, cell_px=file.info.cell_px
        )

    @cached_property
    def _searched(self) -> tuple[Whitening | None, DescriptorFile]:
        """What is searched, and what takes descriptors to it; None where there are too few photos to learn that from,
        or they are whitened already."""
        file = self.descriptors
        dim = min(file.n // PHOTOS_PER_WHITENED_DIM, file.dim, MOST_WHITENED_DIMS)
        if dim < LEAST_WHITENED_DIMS or file.info.extraction.whitening:
            return None, file
        learned = learn_whitening(file.path, "pca-whitening")
        whitening = learned.reduced(min(dim, learned.dim))
        return whitening, self._stack.enter_context(WhitenedFile(file.path, whitening))

    def nearest(self, descriptors: np.ndarray, k: int) -> list[np.ndarray]:
        """Rows of this side, (k,) int64, that are nearest to each of (n, D) float32 descriptors, the nearest first."""
        whitening, file = self._searched
        return list(exact_search(whitening.apply(descriptors) if whitening else descriptors, file, k).rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def sides_of(train: Path, test: Path, distractors: Sequence[Path]) -> list[tuple[Path, SideName]]:
    """The descriptor files that these files and folders of extractions name, and what each is. Raises UltronError where
    a folder holds none."""
    test_files = _files_in(test, ("queries.h5", "database.h5"))
    if test.is_dir():
        sides: list[tuple[Path, SideName]] = [
            (path, "query" if path.name == "queries.h5" else "database") for path in test_files
        ]
    else:
        with open_descriptors(test) as descriptors:
            sides = [(test, descriptors.info.role)]
    sides.extend((path, "train") for path in _files_in(train, ("database.h5",)))
    sides.extend((path, "distractors") for part in distractors for path in _files_in(part, ("database.h5",)))
    return sides


def _files_in(path: Path, names: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise UltronError(
            f"{path} must be a descriptor file, or a folder with {' or '.join(names)}, and has none; name the folder "
            "that `ultron extract` wrote"
        )
    return files


def leaks_between(files: Sequence[tuple[Path, SideName]], config: LeakConfig) -> Leaks:
    """Leaks between queries, database, training photos and distractors. Raises UltronError if files are damaged, or
    were made by different models."""
    leaks: list[Leak] = []
    by_geometry, by_similarity = [], []
    calibrations: dict[str, Calibration] = {}
    local_of = {path: _local_features(path, config) for path, _ in files}
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(path, name, local_of[path])) for path, name in files]
        for first, second in _pairs_of_sides(sides):
            label = f"{first.name}-{second.name}"
            has_geometry = first.local is not None and second.local is not None
            (by_geometry if has_geometry else by_similarity).append(label)
            search = _PairOfSides(first, second, config)
            leaks += search.leaks()
            if search.calibration:
                calibrations[label] = search.calibration
    leaks.sort(key=lambda leak: (*leak.badness, leak.sides, leak.first, leak.second))
    return Leaks(leaks=leaks, by_geometry=by_geometry, by_similarity=by_similarity, calibrations=calibrations)


def _local_features(path: Path, config: LeakConfig) -> Path | None:
    """The file of local features of a descriptor file's photos; None where there is none."""
    if config.detect:
        return leak_features(path, config.n_workers or None)
    return local_path(path) if local_path(path).exists() else None


def _pairs_of_sides(sides: Sequence[Side]) -> Iterator[tuple[Side, Side]]:
    """Every pair that should have no photo in common; training photos may stand among distractors."""
    tests = [side for side in sides if side.name in ("query", "database")]
    for first in tests:
        for second in sides:
            if second.name in ("train", "distractors") or (first.name, second.name) == ("query", "database"):
                yield first, second


class _PairOfSides:
    """Leaks between two sides."""

    def __init__(self, first: Side, second: Side, config: LeakConfig) -> None:
        files = first.descriptors, second.descriptors
        where = f"{files[0].path} and {files[1].path}"
        require_same_dim(files[0].path, files[0].dim, files[1].path, files[1].dim)
        require_same_model(files[0].info.extraction, files[1].info.extraction, where)
        require_same_whitening(files[0].info.extraction, files[1].info.extraction, where)
        if first.local is not None and second.local is not None:
            require_alike(first.local, second.local)
        self._first, self._second, self._config = first, second, config
        self._settings = VerifySettings(threshold_px=None, ratio=None)
        self._same = own_rows(*files)
        # What a query is to find in its database shows its landmark.
        self._landmarks_may_meet = (first.name, second.name) == ("query", "database")
        self._k = min(config.k, files[1].n)
        self.calibration: Calibration | None = None

    def leaks(self) -> list[Leak]:
        """All of them."""
        first, second = self._first, self._second
        has_geometry = first.local is not None and second.local is not None
        leaks: list[Leak] = []
        with (
            threadpool_limits(1, "blas"),
            ThreadPoolExecutor(self._config.n_workers or n_threads(), "leaks") as workers,
        ):
            if has_geometry:
                self.calibration = self._calibrated(workers)
                log.info("%s-%s: %s", first.name, second.name, self.calibration.text())
            for start, stop in chunks(first.descriptors.n, ROWS_PER_BLOCK):
                rows, similarities = self._nearest(start, stop)
                tasks = workers.map(self._leaks_of, range(start, stop), rows, similarities)
                leaks += [leak for of_photo in tasks for leak in of_photo]
        log.info("%s-%s: %s", first.name, second.name, counted(len(leaks), "leak"))
        return leaks

    def _nearest(self, start: int, stop: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of each photo of a block its candidates' rows, those of the photo itself too, and their similarities."""
        queries = self._first.descriptors.read(start, stop)
        rows, similarities = [], []
        for row, nearest in enumerate(self._second.nearest(queries, self._k), start=start):
            absent = np.setdiff1d(self._same.get(row, np.empty(0, np.int64)), nearest)
            rows.append(np.concatenate([nearest, absent]))
            similarities.append(self._second.descriptors.take(rows[-1]) @ queries[row - start])
        return rows, similarities

    def _leaks_of(self, row: int, candidates: np.ndarray, similarities: np.ndarray) -> list[Leak]:
        """Leaks of one photo of the first side."""
        compared = self._first.features(row) if self._second.local is not None else None
        leaks = []
        for other, similarity in zip(candidates.tolist(), similarities.tolist(), strict=True):
            is_same = other in self._same.get(row, ())
            common = self._in_common(compared, other)
            kind = self._kind(is_same, common, similarity)
            if kind is None or (kind == "landmark" and self._landmarks_may_meet):
                continue
            leaks.append(
                Leak(
                    sides=f"{self._first.name}-{self._second.name}",
                    first=self._first.names[row],
                    second=self._second.names[other],
                    kind=kind,
                    similarity=round(similarity, 4),
                    score=common.score if common else None,
                    covered=round(common.covered, 3) if common else None,
                )
            )
        return leaks

    def _in_common(self, compared: ComparedPhoto | None, other: int) -> InCommon | None:
        """What geometry says; None where one of the photos has no local features."""
        photo = self._second.photo(other) if compared else None
        if compared is None or photo is None or self.calibration is None:
            return None
        return in_common(compared, photo, self._settings, self.calibration.threshold)

    def _kind(self, is_same: bool, common: InCommon | None, similarity: float) -> Kind | None:
        if is_same:
            return "same photo"
        if common is not None:
            return common.kind
        return "similar" if similarity >= self._config.similarity else None

    def _calibrated(self, workers: ThreadPoolExecutor) -> Calibration:
        """The inliers that photos of different things do not reach, of photos that are far apart by descriptor."""
        first, second = self._first, self._second
        draws = np.random.default_rng(SEED)
        n_drawn = CHANCE_PAIRS * DRAWN_PER_CHANCE_PAIR
        pairs = np.stack([draws.integers(0, side.descriptors.n, n_drawn) for side in (first, second)], axis=1)
        pairs = draws.permutation(np.unique(pairs, axis=0))
        descriptors = first.descriptors.take(pairs[:, 0]), second.descriptors.take(pairs[:, 1])
        similarities = np.einsum("nd,nd->n", *descriptors, dtype=np.float64)
        far = pairs[np.argsort(similarities, kind="stable")[: len(pairs) // DRAWN_PER_CHANCE_PAIR]]
        scores = np.array(list(workers.map(self._chance_score, far[:, 0].tolist(), far[:, 1].tolist())), np.int64)
        settings = self._settings
        return calibrate(
            scores,
            share=FALSE_PAIRS / (first.descriptors.n * self._k),
            first=MODELS[settings.model].n_matches,
            least=settings.min_matches,
        )

    def _chance_score(self, row: int, other: int) -> int:
        compared, photo = self._first.features(row), self._second.photo(other)
        return verify(compared.query, photo, self._settings).score if compared and photo else 0
