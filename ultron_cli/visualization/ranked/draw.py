"""Ranked lists of stored searches as pictures: of one search, or of several one below the other."""

from collections.abc import Sequence
from pathlib import Path

from ultron_cli.datasets.protocols import Protocol
from ultron_cli.visualization.ranked.lists import RankedRow, ranks_figure
from ultron_cli.visualization.ranked.systems import QueryBlock, SystemRow, systems_figure
from ultron_cli.visualization.scene import Scene, require_same_queries


def draw_ranks(scene: Scene, rows: list[int], k: int, protocol: Protocol, out: Path) -> Path:
    """One picture of the k best photos of several queries. rows: of the queries."""
    ranked_rows = [
        RankedRow(scene.query_photo(row), scene.ranked(row, k, protocol), scene.subtitle(row, protocol)) for row in rows
    ]
    return ranks_figure(ranked_rows, scene.title(rows[0], protocol), out)


def _block(
    scenes: Sequence[Scene], labels: Sequence[str], query: str, k: int, protocol: Protocol, moves: bool
) -> QueryBlock:
    """One query's k best photos in each search; moves: with their ranks in the searches above and below."""
    rows = [scene.query_row(query) for scene in scenes]
    lists = [scene.ranked(row, k, protocol) for scene, row in zip(scenes, rows, strict=True)]
    systems = []
    for i, (label, scene, row, photos) in enumerate(zip(labels, scenes, rows, lists, strict=True)):
        names = [photo.name for photo in photos]
        ranks_above: Sequence[int | None] = ()
        ranks_below: Sequence[int | None] = ()
        if moves and i:
            ranks_above = scenes[i - 1].ranks_of(rows[i - 1], names)
        if moves and i + 1 < len(scenes):
            ranks_below = scenes[i + 1].ranks_of(rows[i + 1], names)
        systems.append(SystemRow(label, photos, scene.subtitle(row, protocol), ranks_above, ranks_below))
    return QueryBlock(scenes[0].query_photo(rows[0]), systems)


def draw_systems(
    scenes: Sequence[Scene],
    labels: Sequence[str],
    queries: Sequence[str],
    k: int,
    protocol: Protocol,
    moves: bool,
    out: Path,
) -> None:
    """One picture of the k best photos of several searches, per query a row for each; moves: with arrows from row to
    row.

    Raises UltronError if the searches are not of one dataset or lack a query.
    """
    blocks = []
    for query in queries:
        require_same_queries(scenes, query)
        blocks.append(_block(scenes, labels, query, k, protocol, moves))
    models = " and ".join(dict.fromkeys(scene.model for scene in scenes))
    systems_figure(blocks, scenes[0].title(scenes[0].query_row(queries[0]), protocol, models), out)
