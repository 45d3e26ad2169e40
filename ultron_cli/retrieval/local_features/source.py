"""Where the local features of a search are; opened.py opens them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, local_path

if TYPE_CHECKING:
    from ultron_cli.retrieval.local_features.opened import LocalPhotos

# Finds the features of photos that are in no file, of each query's, as those of the file were found.
DetectQueries = Callable[[LocalFeatureFile], Sequence[LocalFeatures]]


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """Where the local features of a search are; nothing is opened before a step needs it."""

    query_names: Sequence[str]  # by the ranking's queries
    query_file: Path | None  # None: the queries are in no file, and `detect_queries` finds their features
    detect_queries: DetectQueries | None = None
    database_files: tuple[Path, ...]  # of the database, and of each file of distractors after it
    database: Descriptors  # whose rows the ranking means
    photos: "LocalPhotos | None" = None  # the database's, opened already by who searches often

    @classmethod
    def of(cls, queries: Descriptors, database: Descriptors, files: Sequence[Path] = ()) -> "LocalSource | None":
        """files: of the queries, the database and each file of distractors, in place of those that lie beside the
        descriptor files; None where they are in no files. Raises UltronError for a wrong number of files."""
        if not isinstance(queries, DescriptorFile) or not isinstance(database, (DescriptorFile, JoinedFiles)):
            return None
        n_files = 1 + len(parts_of(database))
        if files and len(files) != n_files:
            raise UltronError(
                f"`local_features` takes a file of the queries, then one of each descriptor file that is searched, "
                f"{n_files} in all; found {len(files)}"
            )
        return cls(
            query_file=files[0] if files else local_path(queries.path),
            query_names=queries.names,
            database_files=database_files(database, files[1:]),
            database=database,
        )

    @classmethod
    def of_photos(
        cls, names: Sequence[str], detect: DetectQueries, database: Descriptors, files: Sequence[Path] = ()
    ) -> "LocalSource | None":
        """Of queries that are in no file. names: theirs. files: of the database and each file of distractors, in place
        of those beside the descriptor files. None where the database is in no file. Raises UltronError for a wrong
        number of files."""
        if not isinstance(database, (DescriptorFile, JoinedFiles)):
            return None
        n_files = len(parts_of(database))
        if files and len(files) != n_files:
            raise UltronError(
                f"`local_features` takes one of each descriptor file that is searched, {n_files}, as photos by path "
                f"have none; found {len(files)}"
            )
        return cls(
            query_file=None,
            detect_queries=detect,
            query_names=names,
            database_files=database_files(database, files),
            database=database,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all files, as a search records them; "" for queries that are in none."""
        first = "" if self.query_file is None else str(self.query_file.resolve())
        return (first, *(str(path.resolve()) for path in self.database_files))

    def of_queries(self, start: int, stop: int) -> "LocalSource":
        """The same for a block of queries that are in a file."""
        return replace(self, query_names=self.query_names[start:stop])


def database_files(database: Descriptors, files: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The files of local features that are named, or those beside the descriptor files."""
    return tuple(files) or tuple(local_path(part.path) for part in parts_of(database))


def parts_of(database: Descriptors) -> list[DescriptorFile]:
    """The descriptor files that are searched as one."""
    if isinstance(database, JoinedFiles):
        return database.files
    return [database] if isinstance(database, DescriptorFile) else []
