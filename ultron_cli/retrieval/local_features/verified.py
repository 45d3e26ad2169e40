"""The store of verified pairs (SQLite): a pair that was verified once, alike, is never verified again.

A result is found by what it is of: the identities of both files of local features, the rows there, and the settings.
Every block of results is one transaction, so that a killed search goes on where it stopped.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
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


SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (id INTEGER PRIMARY KEY, made_of TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS pairs (
    source INTEGER NOT NULL, query_row INTEGER NOT NULL, photo_row INTEGER NOT NULL,
    n_matches INTEGER NOT NULL, n_inliers INTEGER NOT NULL, score INTEGER NOT NULL,
    PRIMARY KEY (source, query_row, photo_row)) WITHOUT ROWID;
"""


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
        except sqlite3.OperationalError as error:
            log.info("verified pairs are not kept, as %s cannot be written (%s)", path, one_line(str(error)))
            self._database = _connection_to(":memory:")
        except sqlite3.DatabaseError as error:
            raise self._damage(error) from error

    def _damage(self, error: sqlite3.Error) -> UltronError:
        if isinstance(error, sqlite3.OperationalError):
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
                stored = {int(row[0]): PairResult(*map(int, row[1:])) for row in rows}
                results |= {pair: stored[pair.photo_row] for pair in group if pair.photo_row in stored}
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise self._damage(error if isinstance(error, sqlite3.Error) else sqlite3.DatabaseError(error)) from error
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
        except sqlite3.Error as error:
            raise self._damage(error) from error

    def close(self) -> None:
        """Closes the file."""
        with suppress(sqlite3.Error):
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _connection_to(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=WAIT_S)
    try:
        with database, closing(database.executescript(SCHEMA)):
            pass
    except BaseException:
        database.close()
        raise
    return database
