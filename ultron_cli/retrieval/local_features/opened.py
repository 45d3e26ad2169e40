"""The local features of a search, opened: of its queries and of the database's photos, by the rows that a ranking
means."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.local.calibration import Calibration
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, open_local_features
from ultron_cli.retrieval.local_features.source import LocalSource, parts_of

EXTRACT = "`ultron extract --local rootsift`"
ANOTHER_FILE = "name another file with `local_features`"
READ_FOR_IDENTITY = 32  # photos of a file
MUST_AGREE = ("detector", "comparison", "max_side_px")
IN_NO_FILE = ""  # in place of a file's identity


class LocalPhotos:
    """The local features of a database, opened: its photos ready to be verified, by the rows of a ranking. A context
    manager."""

    def __init__(
        self, files: Sequence[Path], database: Descriptors, step: str, queries: LocalFeatureFile | None = None
    ) -> None:
        """files: of each descriptor file of `database`. step: the re-ranking that asks for them. queries: theirs, where
        they are in a file. Raises UltronError if a file is absent or damaged, lacks photos, or was made otherwise than
        the others."""
        with ExitStack() as stack:
            self.files = [stack.enter_context(_open_file(path, step)) for path in files]
            for file in self.files:
                require_alike(queries or self.files[0], file)
            parts = parts_of(database)
            rows = [rows_of(file, part.names) for file, part in zip(self.files, parts, strict=True)]
            self._file_of_row = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
            self._row_of_row = np.concatenate(rows)
            self._identities = [file_identity(file) for file in self.files]
            self._stack = stack.pop_all()
        self.is_binary = self.files[0].info.comparison == "hamming"
        self.calibrations: dict[str, Calibration] = {}  # by how they were made

    @property
    def store_path(self) -> Path:
        """Where results of the photos are kept."""
        return self.files[0].path.with_suffix(".verified.db")

    @property
    def bytes_per_photo(self) -> float:
        """On disk."""
        return sum(file.bytes_per_photo * file.n for file in self.files) / max(1, sum(file.n for file in self.files))

    def place_of(self, row: int) -> tuple[str, int]:
        """(identity of its file, row there) of a photo; row -1 where it was skipped."""
        return self._identities[self._file_of_row[row]], int(self._row_of_row[row])

    def numbers(self) -> np.ndarray:
        """(N,) int64 of every row that a ranking means: its place among the photos of all files, one file after the
        other; -1 where it was skipped."""
        firsts = np.cumsum([0, *(file.n for file in self.files)])[self._file_of_row]
        return np.where(self._row_of_row >= 0, firsts + self._row_of_row, -1)

    def photo(self, row: int) -> VerifiablePhoto:
        """A photo."""
        return verifiable(self.files[self._file_of_row[row]], int(self._row_of_row[row]))

    def close(self) -> None:
        """Closes the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class OpenLocalFeatures:
    """The local features of a search, opened: of its queries, and the LocalPhotos of its database. A context manager,
    which leaves those photos open that were so before."""

    def __init__(self, source: LocalSource | None, step: str) -> None:
        """step: the re-ranking that asks for them. Raises UltronError if there is no source, a file is absent or
        damaged, lacks photos, or was made otherwise than the others, or features of photos by path cannot be found as
        those of the database were."""
        if source is None:
            raise UltronError(
                f"re-ranking by {step} needs the local features of queries and database, which lie beside descriptor "
                f"files; search with descriptor files, and make their local features with {EXTRACT}"
            )
        self._detected: list[LocalFeatures] | None = None
        self._query_file: LocalFeatureFile | None = None
        with ExitStack() as stack:
            if source.query_file is not None:
                self._query_file = stack.enter_context(_open_file(source.query_file, step))
            self.photos = source.photos or stack.enter_context(
                LocalPhotos(source.database_files, source.database, step, self._query_file)
            )
            if self._query_file is not None:
                self._query_rows = rows_of(self._query_file, source.query_names)
                self._identity = file_identity(self._query_file)
            elif source.detect_queries is not None:
                self._detected = list(source.detect_queries(self.photos.files[0]))
                self._query_rows = np.arange(len(self._detected))
                self._identity = IN_NO_FILE
            self._stack = stack.pop_all()

    def place_of_query(self, query: int) -> tuple[str, int]:
        """(identity of its file or IN_NO_FILE, row there) of a query; row -1 where its photo was skipped."""
        return self._identity, int(self._query_rows[query])

    def descriptors_of_query(self, query: int) -> np.ndarray:
        """(n, D) of a query's features, of its box where there is one; n is 0 where its photo was skipped."""
        row = int(self._query_rows[query])
        if self._detected is not None:
            return self._detected[row].descriptors
        assert self._query_file is not None
        return self._query_file.read(row).descriptors if row >= 0 else np.empty((0, self._query_file.dim), np.float32)

    def query(self, query: int) -> VerifiableQuery:
        """A query; its features are those of its box where there is one."""
        row = int(self._query_rows[query])
        if self._detected is not None:
            return VerifiableQuery.of(verifiable_like(self.photos.files[0], self._detected[row]))
        assert self._query_file is not None
        return VerifiableQuery.of(verifiable(self._query_file, row))

    def close(self) -> None:
        """Closes the files that were opened."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _open_file(path: Path, step: str) -> LocalFeatureFile:
    if not path.exists():
        raise UltronError(f"{path} is absent, and re-ranking by {step} needs local features; make them with {EXTRACT}")
    return open_local_features(path)


def verifiable(file: LocalFeatureFile, row: int) -> VerifiablePhoto:
    """A photo of a file, ready to be verified."""
    return verifiable_like(file, file.read(row))


def verifiable_like(file: LocalFeatureFile, features: LocalFeatures) -> VerifiablePhoto:
    """A photo whose features were found as those of the file."""
    info = file.info
    is_binary = info.comparison == "hamming"
    return VerifiablePhoto.of(features, max_side_px=info.max_side_px, is_binary=is_binary, cell_px=info.cell_px)


def file_identity(file: LocalFeatureFile) -> str:
    """32 hexadecimal digits of what a file of local features is of, how it was made and when, and of the features of
    some photos: reading all of them would take longer than a search."""
    digest = hashlib.sha256(json.dumps([dict(file.info.extraction.stored), file.info.created]).encode())
    marks = file.marks
    digest.update("\0".join(file.names).encode("utf-8", "surrogateescape"))
    for array in (file.counts, *((marks.states, marks.digests) if marks else ())):
        digest.update(np.ascontiguousarray(array).tobytes())
    for row in np.unique(np.linspace(0, file.n - 1, min(file.n, READ_FOR_IDENTITY)).astype(np.int64)).tolist():
        features = file.read(row)
        digest.update(features.positions.tobytes() + features.descriptors.tobytes())
    return digest.hexdigest()[:32]


def require_alike(queries: LocalFeatureFile, database: LocalFeatureFile) -> None:
    """Raises UltronError if two files' features cannot be matched with each other."""
    for name in (*MUST_AGREE, "dim"):
        of_queries, of_database = (getattr(file if name == "dim" else file.info, name) for file in (queries, database))
        if of_queries != of_database:
            raise UltronError(
                f"{queries.path} and {database.path} must be of the same local features; their {name} are "
                f"{of_queries} and {of_database}; extract both alike",
                ANOTHER_FILE,
            )
    projection = queries.projection
    if (projection is None) != (database.projection is None) or (
        projection is not None and not projection.equals(database.projection)
    ):
        raise UltronError(
            f"{queries.path} and {database.path} went through different projections; extract one of them again, with "
            "the projection of the other (`local_set` projection=FILE)",
            ANOTHER_FILE,
        )


def rows_of(file: LocalFeatureFile, names: Sequence[str]) -> np.ndarray:
    """(n,) int64 rows of photos by name, -1 for those that the file's extraction skipped. Raises UltronError if it
    lacks others."""
    rows = file.rows
    skipped = {photo.name for photo in file.info.skipped}
    lacking = [name for name in names if name not in rows and name not in skipped]
    if lacking:
        raise UltronError(
            f"{file.path} lacks {len(lacking)} of {len(names)} photos, such as {lacking[0]}; make it of the same "
            f"photos with {EXTRACT}",
            ANOTHER_FILE,
        )
    return np.array([rows.get(name, -1) for name in names], np.int64)
