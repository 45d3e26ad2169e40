"""Whom the rows of arrays without names are of: what a list says, or the order of the ground truth."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Role
from ultron_cli.retrieval.exchange.descriptors.names import names_beside, read_names
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows
from ultron_cli.retrieval.exchange.known import KnownPhotos


def with_names(
    parts: Sequence[NamedRows], paths: Sequence[Path], name_lists: Sequence[Path], known: KnownPhotos | None
) -> list[NamedRows]:
    """The parts, of which all name their photos: by themselves, by a list, by the order of the ground truth, or by
    number.

    paths: the files. name_lists: that somebody named; else those beside the files count. Raises UltronError where it is
    not clear what a row is of.
    """
    nameless = [i for i, part in enumerate(parts) if part.names is None]
    lists = [(path, read_names(path)) for path in name_lists]
    if lists and not nameless:
        raise UltronError(f"{parts[0].label} names its photos; leave `names` out")
    if not lists and len(paths) == len(parts) == len(nameless):
        beside = [names_beside(path) for path in paths]
        if all(map(os.path.isfile, beside)):
            lists = [(path, read_names(path)) for path in beside]
            log.info("names of the photos: %s", named([str(path) for path in beside]))
    parts = list(parts)
    if lists:
        for i, names in zip(nameless, _shared_out(lists, [parts[i] for i in nameless]), strict=True):
            parts[i] = replace(parts[i], names=names)
        return parts
    for i in nameless:
        parts[i] = _in_order_of(parts[i], known) if known else _numbered(parts[i])
    return parts


def _shared_out(lists: list[tuple[Path, list[str]]], parts: list[NamedRows]) -> list[list[str]]:
    """The names of each part: of its list, or its share of the only one. Raises UltronError if numbers differ."""
    if len(lists) == 1 and len(parts) > 1:
        path, names = lists[0]
        if len(names) == sum(part.n for part in parts):
            ends = np.cumsum([part.n for part in parts]).tolist()
            return [names[end - part.n : end] for end, part in zip(ends, parts, strict=True)]
    if len(lists) != len(parts):
        raise UltronError(
            f"`names` must be one list for all rows of {named([part.label for part in parts])}, or one for each; found "
            f"{counted(len(lists), 'list')} for {counted(len(parts), 'array')}"
        )
    for (path, names), part in zip(lists, parts, strict=True):
        if len(names) != part.n:
            raise UltronError(f"{path} has {len(names):,} names, {part.label} {part.n:,} rows; write a name per row")
    return [names for _, names in lists]


def _in_order_of(part: NamedRows, known: KnownPhotos) -> NamedRows:
    """Rows without names, in the order of the ground truth's photos or queries. Raises UltronError where their number
    is that of neither, or of both."""
    of_role: dict[Role, list[str]] = {"query": known.queries or [], "database": known.photos}
    fitting: list[Role] = [role for role in of_role if part.role in (role, None) and len(of_role[role]) == part.n]
    if len(fitting) != 1:
        numbers = f"{len(of_role['database']):,} photos and {len(of_role['query']):,} queries"
        if fitting:
            raise UltronError(
                f"{part.label} has {part.n:,} rows, and the ground truth {numbers}; say which with `role`"
            )
        transposed = part.dim in map(len, of_role.values())
        raise UltronError(
            f"{part.label} has {part.n:,} rows without names, and the ground truth {numbers}"
            + (f"; it may have its axes the wrong way round ({part.n} x {part.dim})" if transposed else "")
            + "; name the rows with `names`, or import distractors without `gnd`"
        )
    (role,) = fitting
    log.info("%s: rows in the order of the ground truth's %s", part.label, "queries" if role == "query" else "photos")
    return replace(part, role=role, names=of_role[role])


def _numbered(part: NamedRows) -> NamedRows:
    stem = Path(part.label.split(",")[0]).stem
    log.info("%s names no photos: they are called %s/0, %s/1 ...", part.label, stem, stem)
    return replace(part, names=[f"{stem}/{row}" for row in range(part.n)])
