"""`ultron ranks import`: a ranking of another tool as a rank file."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import IMPORT_ORDERS, READABLE_RANKS
from ultron_cli.commands.flags import choice, require_unused

EXAMPLE = """
ultron ranks import run.trec --gnd gnd_roxford5k.pkl --out run.h5
ultron ranks import reranked.csv --onto ranks.h5 --out reranked.h5
"""


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rankings or scores of another tool.")],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the ranking (HDF5).")],
    format_name: Annotated[
        str | None,
        choice(
            READABLE_RANKS, "--format", help="How the file is written (by its suffix), or my.py:read.", by_path=True
        ),
    ] = None,
    gnd: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ground truth: the names of photos and queries.")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Descriptors or ranks: the names of photos, instead.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Descriptors or ranks: the names of queries, instead.")
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(metavar="RANKS.h5", help="A ranking whose first photos the file orders anew; the rest follows."),
    ] = None,
    order: Annotated[
        str, choice(IMPORT_ORDERS, help="Order photos by score, as other tools do, or as the file has them.")
    ] = "score",
) -> None:
    """Makes a rank file of rankings or scores of another tool.

    Names may differ in suffix, folders and case; what is missing and what is surplus is said. `ultron evaluate
    --ranks`, `compare` and `visualize` work on the result.
    """
    from dataclasses import replace

    from ultron_cli.configs import one_of
    from ultron_cli.console import counted, print_result
    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.exchange.importing import ImportRequest, import_ranking
    from ultron_cli.retrieval.exchange.overview import describe_ranks
    from ultron_cli.retrieval.rankings import write_ranks

    if onto:
        require_unused("--onto knows photos and queries", gnd=gnd, database=database, queries=queries)
    request = ImportRequest(
        path=file,
        format=format_name,
        gnd=gnd,
        database=database,
        queries=queries,
        onto=onto,
        order=one_of("order", order, IMPORT_ORDERS),
    )
    ranking = import_ranking(request)
    write_ranks(out, replace(ranking, origin=replace(ranking.origin, searched_by=provenance())))
    print_result(
        {"ranks": str(out), **describe_ranks(ranking)},
        f"{out}: {counted(len(ranking.query_names), 'query', 'queries')}, up to {ranking.rows.shape[1]:,} of "
        f"{counted(len(ranking.database_names), 'photo')} each; next: ultron evaluate --ranks {out}",
    )
