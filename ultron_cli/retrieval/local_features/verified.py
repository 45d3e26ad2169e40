"""The store of verified pairs (SQLite): a pair that was verified once, alike, is never verified again.

A result is found by what it is of: the identities of both files of local features, the rows there, and the settings.
Every block of results is one transaction, so that a killed search goes on where it stopped.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from ultron_cli.console import log
from ultron_cli.errors import UltronError, WorkFailed, one_line
from ultron_cli.local.verification import VERSION, VerifySettings

WAIT_S = 60.0  # for another search that writes


class PairResult(NamedTuple):
    """What is kept of a Verification."""

    n_matches: int
    n_inliers: int
    score: int


class Pair(NamedTuple):
    """Two photos: each the identity of its file, and its row there."""

    query_file: str
    query_row: int
    photo_file: str
    photo_row: int


TABLES = {
    "sources": "(id INTEGER PRIMARY KEY, made_of TEXT NOT NULL UNIQUE)",
    "pairs": """(
    source INTEGER NOT NULL, query_row INTEGER NOT NULL, photo_row INTEGER NOT NULL,
    n_matches INTEGER NOT NULL, n_inliers INTEGER NOT NULL, score INTEGER NOT NULL,
    PRIMARY KEY (source, query_row, photo_row)) WITHOUT ROWID""",
}
LONGEST_VALUE = 1 << 20  # bytes
# What SQLite says where not the file is at fault, but its disk, its folder, or another process.
OF_THE_DISK = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PROTOCOL,
}


class VerifiedPairs:
    """Results of pairs under some settings, in a file that outlives the search; in memory alone where no file can be
    written. A context manager."""

    def __init__(self, path: Path, settings: VerifySettings) -> None:
        """Raises UltronError if the file is damaged."""
        self.path = path
        self._settings = {"version": VERSION, **settings.identity}
        self._sources: dict[tuple[str, str], int] = {}
        try:
            self._database = _connection_to(path)
        except (sqlite3.Error, ValueError) as error:  # text that is no UTF-8, in a table or in what SQLite says of it
            if not is_of_the_disk(error):
                raise self._damage(error) from error
            log.info("verified pairs are not kept, as %s cannot be written (%s)", path, one_line(str(error)))
            self._database = _connection_to(":memory:")

    def _damage(self, error: Exception) -> UltronError:
        if is_of_the_disk(error):
            return WorkFailed(f"{self.path} could not be used ({one_line(str(error))}); see to its disk and try again")
        return UltronError(
            f"{self.path} is damaged ({one_line(str(error))}); delete it, and its pairs are verified again"
        )

    def _source(self, query_file: str, photo_file: str) -> int:
        """The number of what results are of beside their rows."""
        key = (query_file, photo_file)
        if key not in self._sources:
            made_of = json.dumps({"queries": query_file, "photos": photo_file, "settings": self._settings})
            self._database.execute("INSERT OR IGNORE INTO sources (made_of) VALUES (?)", (made_of,))
            row = self._database.execute("SELECT id FROM sources WHERE made_of = ?", (made_of,)).fetchone()
            if row is None:
                raise sqlite3.DatabaseError("what was put into it is not there")
            self._sources[key] = int(row[0])
        return self._sources[key]

    def known(self, pairs: Iterable[Pair]) -> dict[Pair, PairResult]:
        """The results that are there. Raises UltronError if the file is damaged."""
        results: dict[Pair, PairResult] = {}
        rows_of_source: dict[tuple[int, int], list[Pair]] = {}
        try:
            for pair in pairs:
                source = self._source(pair.query_file, pair.photo_file)
                rows_of_source.setdefault((source, pair.query_row), []).append(pair)
            for (source, query_row), group in rows_of_source.items():
                rows = self._database.execute(
                    "SELECT photo_row, n_matches, n_inliers, score FROM pairs WHERE source = ? AND query_row = ?",
                    (source, query_row),
                )
                stored = {photo_row: _sound_result(*numbers) for photo_row, *numbers in rows}
                results |= {pair: stored[pair.photo_row] for pair in group if pair.photo_row in stored}
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise self._damage(error) from error
        return results

    def add(self, results: Mapping[Pair, PairResult]) -> None:
        """Keeps results, all or none. Raises WorkFailed if the disk is full."""
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (self._source(pair.query_file, pair.photo_file), pair.query_row, pair.photo_row, *result)
                        for pair, result in results.items()
                    ],
                )
        except (sqlite3.Error, ValueError) as error:
            raise self._damage(error) from error

    def close(self) -> None:
        """Closes the file."""
        with suppress(sqlite3.Error):
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_of_the_disk(error: Exception) -> bool:
    """Whether an error of SQLite is not of what a file holds."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in OF_THE_DISK


def _sound_result(n_matches: object, n_inliers: object, score: object) -> PairResult:
    """Three numbers of a row as a result. Raises ValueError if no pair has such."""
    if not (isinstance(n_matches, int) and isinstance(n_inliers, int) and isinstance(score, int)):
        raise ValueError("a result must be whole numbers")
    if not 0 <= score <= n_inliers <= n_matches:
        raise ValueError(f"{score} counted inliers of {n_inliers} of {n_matches} matches")
    return PairResult(n_matches, n_inliers, score)


def _connection_to(path: Path | str) -> sqlite3.Connection:
    """A connection to a file, which is made where it is not there. Raises sqlite3.Error."""
    if isinstance(path, Path) and path.exists() and not path.is_file():
        error = sqlite3.OperationalError("it is no regular file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error
    database = sqlite3.connect(path, timeout=WAIT_S)
    try:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON"):
            database.execute(f"PRAGMA {pragma}")
        with database:
            _make_tables(database)
    except BaseException:
        database.close()
        raise
    return database


def _make_tables(database: sqlite3.Connection) -> None:
    """Makes the tables of an empty file. Raises sqlite3.DatabaseError for a file that has others, or anything that
    computes, as views and triggers do."""
    database.execute("BEGIN IMMEDIATE")
    expected = {("table", name, f"CREATE TABLE {name} {columns}") for name, columns in TABLES.items()}
    parts = set(database.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    if not parts:
        for _, _, statement in expected:
            database.execute(statement)
    elif parts != expected:
        foreign = sorted(str(name) for _, name, _ in parts - expected) or sorted(TABLES)
        raise sqlite3.DatabaseError(f"it does not hold the tables of verified pairs, but {foreign[0]:.60}")
