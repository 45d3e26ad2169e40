"""`ultron search`: the nearest photos of queries."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import (
    DatabaseWeightsFlag,
    DimFlag,
    EfSearchFlag,
    IndexFlag,
    LeaveOutQueriesFlag,
    NprobeFlag,
    RerankFlag,
    RerankSetFlag,
    RescoreFlag,
    WhitenFlag,
    current_workspace,
    index_settings,
)
from ultron_cli.errors import UltronError

SHOWN_QUERIES = 5


EXAMPLE = """
ultron search holiday.jpg -k 20
ultron search --rerank aqe,superglobal --rerank-set superglobal.beta=0.2
"""


def command(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="[QUERY.jpg]...", help="Photos to search for.")] = None,
    *,
    queries: Annotated[Path | None, typer.Option(help="Descriptors to search for, instead of photos.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors to search in.")] = None,
    index: IndexFlag = None,
    k: Annotated[int, typer.Option("-k", help="Photos per query.")] = 10,
    nprobe: NprobeFlag = None,
    ef_search: EfSearchFlag = None,
    rescore: RescoreFlag = None,
    bbx: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="Part of the photo to search for, in pixels.")
    ] = None,
    rerank: RerankFlag = None,
    rerank_set: RerankSetFlag = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    leave_out_queries: LeaveOutQueriesFlag = False,
    weights: DatabaseWeightsFlag = None,
    out: Annotated[Path | None, typer.Option(help="File for the ranking (HDF5).")] = None,
) -> None:
    """Finds the most similar database photos, exactly; without photos, for the queries of the latest extraction."""
    from dataclasses import replace

    from ultron_cli import console
    from ultron_cli.console import counted, lines, print_result, table
    from ultron_cli.datasets.protocols import check_box
    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.rankings import write_ranks
    from ultron_cli.retrieval.rerank import parse_rerank
    from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_files, search_photos
    from ultron_cli.retrieval.whitening import chosen_whitening

    workspace = current_workspace()
    if photos and queries:
        raise UltronError("name photos or --queries, not both")
    options = SearchOptions(
        steps=parse_rerank(rerank, rerank_set or []),
        whitening=chosen_whitening(whiten, dim),
        index=index,
        leave_out_queries=leave_out_queries,
        index_settings=index_settings(nprobe, ef_search, rescore, index),
    )
    if bbx and len(photos or []) != 1:
        raise UltronError("--bbx belongs to one photo; name exactly one")
    if photos:
        box = None
        if bbx:
            try:
                box = check_box([float(part) for part in bbx.split(",")], "--bbx")
            except ValueError:
                raise UltronError(f"--bbx takes four numbers X1,Y1,X2,Y2; found {bbx!r}") from None
        base = database or workspace.take_latest("extract", "name --database") / "database.h5"
        ranking = search_photos(photos, base, k, console.settings.device, bbx=box, weights=weights, options=options)
    else:
        files = latest_descriptors(queries, database, workspace)
        ranking = search_files(*files, k, console.settings.device, options=options)
    origin = ranking.origin
    path = out
    if path is None and not photos:
        made_by = {**origin.to_json(), "k": k, "queries": ranking.query_names}
        path = workspace.result_folder("search", f"{origin.dataset}-{origin.model}", made_by) / "ranks.h5"
    if path is not None:
        write_ranks(path, replace(ranking, origin=replace(origin, searched_by=provenance())))
        workspace.remember("search", path)
    results = [
        {"query": name, "photos": ranking.ranked_photos(query)} for query, name in enumerate(ranking.query_names)
    ]
    tables = [
        table(
            ("rank", "photo", "score"),
            [(photo["rank"], photo["name"], f"{photo['score']:.4f}") for photo in result["photos"]],
            title=result["query"],
            left=2,
        )
        for result in results[:SHOWN_QUERIES]
    ]
    more = len(results) - SHOWN_QUERIES
    print_result(
        {"results": results, "ranks": str(path) if path else None, "origin": origin.to_json()},
        lines(
            *tables,
            f"and {counted(more, 'more query', 'more queries')} (all in the rank file)" if more > 0 else None,
            str(path) if path else None,
        ),
    )
