"""Where the local features of a search are; opened.py opens them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.local_features.files import local_path


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """Where the local features of a search are; nothing is opened before a step needs it."""

    query_file: Path
    query_names: Sequence[str]  # by the ranking's queries
    database_files: tuple[Path, ...]  # of the database, and of each file of distractors after it
    database: Descriptors  # whose rows the ranking means

    @classmethod
    def of(cls, queries: Descriptors, database: Descriptors, files: Sequence[Path] = ()) -> "LocalSource | None":
        """files: of the queries, the database and each file of distractors, in place of those that lie beside the
        descriptor files; None where they are in no files. Raises UltronError for a wrong number of files."""
        if not isinstance(queries, DescriptorFile) or not isinstance(database, (DescriptorFile, JoinedFiles)):
            return None
        database_parts = parts_of(database)
        if files and len(files) != 1 + len(database_parts):
            raise UltronError(
                f"`local_features` takes a file of the queries, then one of each descriptor file that is searched, "
                f"{1 + len(database_parts)} in all; found {len(files)}"
            )
        paths = files or [local_path(part.path) for part in (queries, *database_parts)]
        return cls(query_file=paths[0], query_names=queries.names, database_files=tuple(paths[1:]), database=database)

    def of_queries(self, start: int, stop: int) -> "LocalSource":
        """The same for a block of the queries."""
        return LocalSource(
            query_file=self.query_file,
            query_names=self.query_names[start:stop],
            database_files=self.database_files,
            database=self.database,
        )


def parts_of(database: Descriptors) -> list[DescriptorFile]:
    """The descriptor files that are searched as one."""
    if isinstance(database, JoinedFiles):
        return database.files
    return [database] if isinstance(database, DescriptorFile) else []
