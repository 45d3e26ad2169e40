"""Photos that stand on both sides: queries that are in the database too, and distractors that are database photos.

Photos are the same if their bytes are, where the descriptor files record that (datasets/photo_marks.py), or if they
have one name in one folder.
"""

import os
from collections.abc import Sequence

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.rankings import OwnRows, Ranking


def own_rows(queries: Descriptors, database: Descriptors) -> OwnRows:
    """The rows of the database that are the query itself, by query row; queries without such rows are left out."""
    is_one_folder = queries.info.provenance.dataset_folder == database.info.provenance.dataset_folder
    return _own_rows(queries.names, database.names, queries.marks, database.marks, is_one_folder)


def own_rows_of(ranking: Ranking) -> OwnRows:
    """As own_rows, of a ranking: as its search found them, else by what its file says of the photos."""
    if ranking.own_rows is not None:
        return ranking.own_rows
    is_one_folder = ranking.origin.database_folder in (None, ranking.origin.dataset_folder)
    return _own_rows(
        ranking.query_names, ranking.database_names, ranking.query_marks, ranking.database_marks, is_one_folder
    )


def _own_rows(
    query_names: Sequence[str],
    names: Sequence[str],
    query_marks: PhotoMarks | None,
    marks: PhotoMarks | None,
    is_one_folder: bool,
) -> OwnRows:
    rows: dict[int, set[int]] = {}
    if is_one_folder:
        rows = {query: {row} for query, row in _of_equal_name(query_names, names).items()}
    if query_marks is not None and marks is not None:
        digests = _digests(marks)
        rows_of: dict[bytes, list[int]] = {}
        for row in np.flatnonzero(np.isin(digests, _digests(query_marks))).tolist():
            rows_of.setdefault(marks[row].digest, []).append(row)
        for query in range(len(query_marks)):
            if same := rows_of.get(query_marks[query].digest):
                rows.setdefault(query, set()).update(same)
    return {query: np.array(sorted(rows_of_self), np.int64) for query, rows_of_self in sorted(rows.items())}


def _of_equal_name(query_names: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    row_of_query = {name: query for query, name in enumerate(query_names)}
    return {row_of_query[name]: row for row, name in enumerate(names) if name in row_of_query}


def _digests(marks: PhotoMarks) -> np.ndarray:
    """(N,) digests as single values."""
    return np.ascontiguousarray(marks.digests).view(f"S{marks.digests.shape[1]}").reshape(-1)


def own_rows_problem(n_own: int, n_queries: int) -> UltronError:
    """That n_own of n_queries are ranked for themselves, and what to do."""
    return UltronError(
        f"{n_own} of {counted(n_queries, 'query is', 'queries are')} in the database too, and found first "
        "there, as right or as wrong as any other photo; extract the database without them",
        "leave each out of its own ranking with `leave_out_queries`",
    )


def warn_of_own_rows(n_own: int, n_queries: int) -> None:
    """Says that queries are ranked for themselves. n_own: so many of n_queries."""
    if n_own:
        log.warning("%s", own_rows_problem(n_own, n_queries))


def warn_of_repeats(database: Descriptors, distractors: Descriptors) -> None:
    """Says that distractors are photos of the database: as distractors they count as wrong."""
    marks, distractor_marks = database.marks, distractors.marks
    if marks is not None and distractor_marks is not None:
        n_repeats = int(np.isin(_digests(distractor_marks), _digests(marks)).sum())
    else:  # names alone: those of a few photos may be equal by chance
        stems = {_stem(name) for name in database.names}
        n_repeats = sum(_stem(name) in stems for name in distractors.names)
        n_repeats = n_repeats if 2 * n_repeats >= len(stems) > 0 else 0
    if n_repeats:
        log.warning(
            "%s of %s in %s too; as distractors they count as wrong, and scores fall; extract the distractors without "
            "them",
            counted(n_repeats, "photo"),
            f"{distractors.label} {'is' if n_repeats == 1 else 'are'}",
            database.label,
        )


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]
