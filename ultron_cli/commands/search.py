"""`ultron search`: the nearest photos of queries."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.whiten import DimFlag, WhitenFlag
from ultron_cli.errors import UltronError

SHOWN_QUERIES = 5
RerankFlag = Annotated[
    str | None,
    typer.Option(
        metavar="STEP[,STEP]", help="Re-ranking, in this order: superglobal, aqe, dba, diffusion, kreciprocal."
    ),
]
RerankSetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--rerank-set", metavar="STEP.KEY=VALUE", help="A setting of a step, for example superglobal.beta=0.15."
    ),
]
NprobeFlag = Annotated[
    int | None, typer.Option(help="Cells of an ivf index to look into; more finds more.", rich_help_panel="Index")
]
EfSearchFlag = Annotated[
    int | None,
    typer.Option(help="Candidates on the way through an hnsw index; more finds more.", rich_help_panel="Index"),
]
RescoreFlag = Annotated[
    int | None,
    typer.Option(
        help="Candidates of an index, times k, that get exact scores from its descriptors; 0 none.",
        rich_help_panel="Index",
    ),
]


def index_settings(
    nprobe: int | None, ef_search: int | None, rescore: int | None, index: Path | None
) -> dict[str, int]:
    """What the flags say of searching an index. Raises UltronError where there is none."""
    given = {
        name: value
        for name, value in (("nprobe", nprobe), ("ef_search", ef_search), ("rescore", rescore))
        if value is not None
    }
    if given and index is None:
        raise UltronError(f"--{next(iter(given)).replace('_', '-')} belongs to an index; name one with --index")
    return given


def search(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="[QUERY.jpg]...", help="Photos to search for.")] = None,
    *,
    queries: Annotated[Path | None, typer.Option(help="Descriptors to search for, instead of photos.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors to search in.")] = None,
    index: Annotated[Path | None, typer.Option(help="An index to search with, instead of exact search.")] = None,
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
    weights: Annotated[
        Path | None, typer.Option(help="The weights that made the database, if they have moved.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the ranking (HDF5).")] = None,
) -> None:
    """Finds the most similar database photos, exactly; without photos, for the queries of the latest extraction."""
    from dataclasses import replace

    from ultron_cli import console, workspace
    from ultron_cli.console import counted, lines, print_result, table
    from ultron_cli.datasets.protocols import check_box
    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.rankings import write_ranks
    from ultron_cli.retrieval.rerank import parse_rerank
    from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_files, search_photos
    from ultron_cli.retrieval.whitening import chosen_whitening

    if photos and queries:
        raise UltronError("name photos or --queries, not both")
    options = SearchOptions(
        steps=parse_rerank(rerank, rerank_set or []),
        whitening=chosen_whitening(whiten, dim),
        index=index,
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
        ranking = search_files(*latest_descriptors(queries, database), k, console.settings.device, options=options)
    origin = ranking.origin
    path = out
    if path is None and not photos:
        path = workspace.result_folder("search", f"{origin.dataset}-{origin.model}".replace("/", "_")) / "ranks.h5"
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
