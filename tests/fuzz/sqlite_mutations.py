"""Damages SQLite files where they keep structure: pages, the schema, and values of other types than the schema says."""

import random
import sqlite3
from contextlib import closing

from tests.fuzz.mutations import NUMBERS, mutate_bytes

VALUES = ["NULL", "-1", "0", "9223372036854775807", "-9223372036854775808", "1e300", "'x'", "x'ff00'", "'7'", "1.5"]
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x, x, x, x, x FROM n"
# {table}, {column} and {value} are drawn; what SQLite refuses leaves the file as it was.
STATEMENTS = (
    "DROP TABLE {table}",
    "DELETE FROM {table}",
    "ALTER TABLE {table} RENAME TO other",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other",
    "ALTER TABLE {table} ADD COLUMN more",
    "UPDATE {table} SET {column} = {value}",
    "UPDATE {table} SET {column} = {value} WHERE rowid % 3 = 0",
    "UPDATE pairs SET {column} = {value} WHERE photo_row % 3 = 0",
    "UPDATE sources SET made_of = x'ff' || made_of",
    "CREATE VIEW more AS SELECT * FROM {table}",
    "CREATE TABLE more (a, b)",
    "CREATE INDEX more ON {table} ({column})",
    "CREATE TRIGGER more AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
    "CREATE TRIGGER more BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END",
    "DROP TABLE pairs; CREATE VIEW pairs AS " + ENDLESS,
    "DROP TABLE sources; CREATE VIEW sources AS " + ENDLESS,
    "DROP TABLE pairs; CREATE TABLE pairs (source, query_row, photo_row, n_matches, n_inliers, score)",
    "DROP TABLE pairs; CREATE TABLE pairs (source, query_row, photo_row, n_matches AS (1), n_inliers AS (2), score)",
    "CREATE TABLE more (a CHECK (length(randomblob(100000000)) > 0), b DEFAULT (randomblob(100000000)))",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = {value}",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET name = {value} WHERE name = '{table}'",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage = {number} WHERE name = '{table}'",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = sql || ' '",
    "PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES ('table', 'more', 'more', {number}, {value})",
    "PRAGMA user_version={number}",
    "PRAGMA application_id={number}",
    "PRAGMA encoding='UTF-16'",
    "PRAGMA auto_vacuum=FULL; VACUUM",
    "PRAGMA page_size=512; VACUUM",
)


def hostile_sqlite(data: bytes) -> dict[str, bytes]:
    """Each statement run in it once, where SQLite takes it."""
    files = {}
    for statement in STATEMENTS:
        text = statement.format(table="pairs", column="query_row", value="-1", number=2**31)
        if (changed := _changed(data, text)) is not None:
            files[text] = changed
    return files


def _changed(data: bytes, statement: str) -> bytes | None:
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.deserialize(data)
            database.executescript(statement)
            return database.serialize()
        except (sqlite3.Error, OverflowError):
            return None


def mutate_sqlite(data: bytes, draws: random.Random) -> bytes:
    """A statement run in it, or the header of a page changed."""
    if draws.random() < 0.5:
        return _with_page_damaged(data, draws)
    table = draws.choice(["sources", "pairs"])
    columns = ["id", "made_of"] if table == "sources" else ["source", "query_row", "photo_row", "n_matches", "score"]
    statement = draws.choice(STATEMENTS).format(
        table=table, column=draws.choice(columns), value=draws.choice(VALUES), number=draws.choice(NUMBERS)
    )
    changed = _changed(data, statement)
    return mutate_bytes(data, draws) if changed in (None, data) else changed


def _with_page_damaged(data: bytes, draws: random.Random) -> bytes:
    """Another number in the header of the file or of a page, in a cell's pointer, or a page in another's place."""
    changed = bytearray(data)
    page_bytes = int.from_bytes(data[16:18], "big") or 4096
    if page_bytes < 512 or len(data) < page_bytes:
        return mutate_bytes(data, draws)
    pages = range(0, len(data) - page_bytes + 1, page_bytes)
    start = draws.choice(pages)
    header = start + (100 if start == 0 else 0)
    if draws.random() < 0.2:
        other = draws.choice(pages)
        changed[start : start + page_bytes] = data[other : other + page_bytes]
    elif draws.random() < 0.2:
        place = draws.randrange(16, 96)
        changed[place : place + 4] = (draws.choice(NUMBERS) % 2**32).to_bytes(4, "big")
    else:
        place = header + draws.randrange(24)
        n_bytes = draws.choice((1, 2, 4))
        changed[place : place + n_bytes] = (draws.choice(NUMBERS) % 256**n_bytes).to_bytes(n_bytes, "big")
    return bytes(changed)
