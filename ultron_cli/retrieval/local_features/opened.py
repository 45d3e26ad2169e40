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
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, open_local_features
from ultron_cli.retrieval.local_features.source import LocalSource, parts_of

EXTRACT = "`ultron extract --local rootsift`"
ANOTHER_FILE = "name another file with `local_features`"
READ_FOR_IDENTITY = 32  # photos of a file
MUST_AGREE = ("detector", "comparison", "max_side_px")


class OpenLocalFeatures:
    """The files of a LocalSource, opened: photos ready to be verified, by the rows of a ranking. A context manager."""

    def __init__(self, source: LocalSource | None, step: str) -> None:
        """step: the re-ranking that asks for them. Raises UltronError if there is no source, or a file is absent or
        damaged, lacks photos, or was made otherwise than the others."""
        if source is None:
            raise UltronError(
                f"re-ranking by {step} needs the local features of queries and database, which lie beside descriptor "
                f"files; search with descriptor files, and make their local features with {EXTRACT}"
            )
        self._step = step
        self._stack = ExitStack()
        try:
            self._queries = self._open(source.query_file)
            self._database = [self._open(path) for path in source.database_files]
            for file in self._database:
                require_alike(self._queries, file)
            self._query_rows = rows_of(self._queries, source.query_names)
            parts = parts_of(source.database)
            rows = [rows_of(file, part.names) for file, part in zip(self._database, parts, strict=True)]
            self._file_of_row = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
            self._row_of_row = np.concatenate(rows)
        except BaseException:
            self._stack.close()
            raise
        self._identities = [file_identity(file) for file in self._database]
        self.query_identity = file_identity(self._queries)
        self.info = self._queries.info  # of the queries' file, with which the others agree
        self._is_binary = self.info.comparison == "hamming"

    def _open(self, path: Path) -> LocalFeatureFile:
        if not path.exists():
            raise UltronError(
                f"{path} is absent, and re-ranking by {self._step} needs local features; make them with {EXTRACT}"
            )
        return self._stack.enter_context(open_local_features(path))

    @property
    def store_path(self) -> Path:
        """Where results of the database's photos are kept."""
        return self._database[0].path.with_suffix(".verified.db")

    @property
    def bytes_per_photo(self) -> float:
        """Of the database's files, on disk."""
        files = self._database
        return sum(file.bytes_per_photo * file.n for file in files) / max(1, sum(file.n for file in files))

    def place_of_query(self, query: int) -> tuple[str, int]:
        """(identity of its file, row there) of a query; row -1 where its photo was skipped."""
        return self.query_identity, int(self._query_rows[query])

    def place_of_photo(self, row: int) -> tuple[str, int]:
        """(identity of its file, row there) of a database photo; row -1 where it was skipped."""
        return self._identities[self._file_of_row[row]], int(self._row_of_row[row])

    @property
    def database_files(self) -> list[LocalFeatureFile]:
        """Of the database, and of each file of distractors after it."""
        return self._database

    def numbers_of_photos(self) -> np.ndarray:
        """(N,) int64 of every row that a ranking means: its place among the photos of all database files, one file
        after the other; -1 where it was skipped."""
        firsts = np.cumsum([0, *(file.n for file in self._database)])[self._file_of_row]
        return np.where(self._row_of_row >= 0, firsts + self._row_of_row, -1)

    def descriptors_of_query(self, query: int) -> np.ndarray:
        """(n, D) of a query's features, of its box where the file is of boxes; n is 0 where its photo was skipped."""
        row = int(self._query_rows[query])
        return self._queries.read(row).descriptors if row >= 0 else np.empty((0, self._queries.dim), np.float32)

    def query(self, query: int) -> VerifiableQuery:
        """A query; its features are those of its box where the file is of boxes."""
        return VerifiableQuery.of(self._verifiable(self._queries, int(self._query_rows[query])))

    def photo(self, row: int) -> VerifiablePhoto:
        """A photo of the database."""
        return self._verifiable(self._database[self._file_of_row[row]], int(self._row_of_row[row]))

    def _verifiable(self, file: LocalFeatureFile, row: int) -> VerifiablePhoto:
        return VerifiablePhoto.of(file.read(row), max_side_px=file.info.max_side_px, is_binary=self._is_binary)

    def close(self) -> None:
        """Closes the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


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
