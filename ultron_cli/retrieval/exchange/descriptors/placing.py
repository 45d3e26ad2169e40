"""Where the rows of other tools' files go: to the queries or the database, in the order of the ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.datasets.name_matching import match_names
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import NewDescriptors, Role
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows
from ultron_cli.retrieval.exchange.known import KnownPhotos, tell_of_match
from ultron_cli.schema.values import shown

SCATTERED = 8  # rows that follow each other, on average, below which each is written alone
ROLES: tuple[Role, ...] = ("query", "database")


@dataclass
class Places:
    """Where rows go: per role, names of the file, and per part the row of each of its rows, -1 for none."""

    names: dict[Role, list[str]]
    rows: dict[Role, list[np.ndarray]]
    missing: dict[Role, list[str]] = field(default_factory=dict)
    n_surplus: int = 0


def _refuse_repeated(parts: Sequence[NamedRows]) -> None:
    """Raises UltronError where a photo stands twice in one role."""
    for role in (*ROLES, None):
        group = [part for part in parts if part.role == role]
        if len({name for part in group for name in part.names or ()}) == sum(part.n for part in group):
            continue
        part_of: dict[str, NamedRows] = {}
        for part in group:
            for name in part.names or ():
                other = part_of.get(name)
                if other is part:
                    raise UltronError(f"{part.label} names {shown(name)} twice; name each photo once")
                if other is not None:
                    raise UltronError(f"{shown(name)} stands in {other.label} and in {part.label}; leave one file out")
                part_of[name] = part


def placed_by_file(parts: Sequence[NamedRows]) -> Places:
    """All rows, in the order of the files; of the database, where a file does not tell."""
    parts = [replace(part, role=part.role or "database") for part in parts]
    _refuse_repeated(parts)
    places = Places(names={"query": [], "database": []}, rows={"query": [], "database": []})
    for part in parts:
        for role in ROLES:
            if role == part.role:
                first = len(places.names[role])
                places.names[role] += part.names or ()
                places.rows[role].append(np.arange(first, first + part.n))
            else:
                places.rows[role].append(np.full(part.n, -1))
    return places


def placed(parts: Sequence[NamedRows], known: KnownPhotos) -> Places:
    """Rows of the photos and queries of a ground truth, in its order."""
    _refuse_repeated(parts)
    of_role: dict[Role, list[str]] = {"query": known.queries or [], "database": known.photos}
    rows: dict[Role, list[np.ndarray]] = {role: [np.full(part.n, -1) for part in parts] for role in of_role}
    n_surplus = 0
    for told_role in ("query", "database", None):
        group = [i for i, part in enumerate(parts) if part.role == told_role]
        if not group:
            continue
        roles: list[Role] = [role for role in of_role if told_role in (role, None)]
        candidates = list(dict.fromkeys(name for role in roles for name in of_role[role]))
        names = [name for i in group for name in parts[i].names or ()]
        match = match_names(names, candidates)
        label = named(list(dict.fromkeys(parts[i].label for i in group)), 2)
        what, several = ("query", "queries") if told_role == "query" else ("photo", "photos")
        tell_of_match(match, names, candidates, label, what, several)
        if match.surplus:
            log.warning(
                "%s of %s left out, as the ground truth has none of that name: %s%s; import them without `gnd` to "
                "search them as distractors",
                counted(len(match.surplus), what, several),
                label,
                named(match.surplus),
                match.ambiguous_text(),
            )
            n_surplus += len(match.surplus)
        for role in roles:
            row_of = {name: row for row, name in enumerate(of_role[role])}
            target = np.array([row_of.get(name, -1) for name in candidates], np.int64)
            matched = np.where(match.rows < 0, -1, target[match.rows])
            first = 0
            for i in group:
                rows[role][i] = matched[first : first + parts[i].n]
                first += parts[i].n
    for role, of_parts in rows.items():
        _refuse_shared(parts, of_parts, of_role[role])
    return _without_missing(of_role, rows, n_surplus)


def _refuse_shared(parts: Sequence[NamedRows], rows: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Raises UltronError where two parts, of which one may be of queries and one of both, have a row for one photo."""
    part_of_row = np.full(len(names), -1)
    for i, of_part in enumerate(rows):
        placed_rows = of_part[of_part >= 0]
        taken = placed_rows[part_of_row[placed_rows] >= 0]
        if len(taken):
            other = parts[int(part_of_row[taken[0]])].label
            raise UltronError(f"{shown(names[taken[0]])} stands in {other} and in {parts[i].label}; leave one file out")
        part_of_row[placed_rows] = i


def _without_missing(of_role: dict[Role, list[str]], rows: dict[Role, list[np.ndarray]], n_surplus: int) -> Places:
    """Places among the photos that are there, without gaps."""
    places = Places(names={}, rows={}, n_surplus=n_surplus)
    for role, names in of_role.items():
        is_there = np.zeros(len(names) + 1, bool)
        for of_part in rows[role]:
            is_there[of_part] = True
        is_there[-1] = False  # -1, of rows that go nowhere
        place = np.where(is_there, np.cumsum(is_there) - 1, -1)
        places.names[role] = [name for name, is_placed in zip(names, is_there, strict=False) if is_placed]
        places.rows[role] = [place[of_part] for of_part in rows[role]]
        if missing := [name for name, is_placed in zip(names, is_there, strict=False) if not is_placed]:
            places.missing[role] = missing
    return places


def put_rows(file: NewDescriptors, block: np.ndarray, rows: np.ndarray) -> None:
    """Writes rows of a block to their places, -1 for none; those that follow each other on both sides, together."""
    placed = np.flatnonzero(rows >= 0)
    if len(placed) < len(rows):
        block, rows = block[placed], rows[placed]
    if not len(rows):
        return
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1).tolist()
    if len(starts) * SCATTERED > len(rows) > SCATTERED:
        file.scatter(rows, block)
        return
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        file.put(int(rows[start]), block[start:stop])
