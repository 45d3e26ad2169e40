"""`ultron search`: the nearest photos of queries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.flags import (
    DatabaseWeightsFlag,
    DimFlag,
    EfSearchFlag,
    IndexFlag,
    LeaveOutQueriesFlag,
    LocalFeaturesFlag,
    NprobeFlag,
    RerankFlag,
    RerankSetFlag,
    RescoreFlag,
    WhitenFlag,
    box_of,
    current_workspace,
    index_settings,
    number,
    require_unused,
)
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    from ultron_cli.retrieval.rankings import RankedPhoto, Ranking

SHOWN_QUERIES = 5

EXAMPLE = """
ultron search holiday.jpg -k 20
ultron search --rerank aqe,superglobal --rerank-set superglobal.beta=0.2
"""


def command(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="QUERY.jpg", help="Photos to search for.")] = None,
    *,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Descriptors to search for, instead of photos.")
    ] = None,
    database: Annotated[Path | None, typer.Option(metavar="FILE", help="Descriptors to search in.")] = None,
    index: IndexFlag = None,
    k: Annotated[int, number("-k", help="Photos per query.", low=1)] = 10,
    nprobe: NprobeFlag = None,
    ef_search: EfSearchFlag = None,
    rescore: RescoreFlag = None,
    bbx: Annotated[
        str | None, typer.Option(metavar="BOX", help="Part of the photo to search for: X1,Y1,X2,Y2 in pixels.")
    ] = None,
    rerank: RerankFlag = None,
    rerank_set: RerankSetFlag = None,
    local_features: LocalFeaturesFlag = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    leave_out_queries: LeaveOutQueriesFlag = False,
    weights: DatabaseWeightsFlag = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File for the ranking (HDF5).")] = None,
) -> None:
    """Finds the photos that are most similar to a query.

    The queries are photos by path, or else those of the latest extraction. The search is exact unless --index names
    an index.
    """
    from dataclasses import replace

    from ultron_cli import console
    from ultron_cli.console import print_result
    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.rankings import write_ranks
    from ultron_cli.retrieval.rerank import parse_rerank
    from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_files
    from ultron_cli.retrieval.whitening import chosen_whitening

    workspace = current_workspace()
    if photos and queries:
        raise UltronError("photos and --queries exclude each other; leave one")
    options = SearchOptions(
        steps=parse_rerank(rerank, rerank_set or []),
        local_features=tuple(local_features or ()),
        whitening=chosen_whitening(whiten, dim),
        index=index,
        leave_out_queries=leave_out_queries,
        index_settings=index_settings(nprobe, ef_search, rescore, index),
    )
    if bbx and len(photos or []) != 1:
        raise UltronError("--bbx belongs to one photo; name exactly one")
    box = box_of(bbx, "--bbx") if bbx else None
    if photos:
        from ultron_cli.datasets.photos import require_photo

        base = database or workspace.take_latest("extract", "name --database") / "database.h5"
        for path in photos:
            require_photo(path)  # before the seconds in which torch is loaded
        from ultron_cli.retrieval.photo_queries import search_photos

        ranking = search_photos(photos, base, k, console.settings.device, bbx=box, weights=weights, options=options)
    else:
        require_unused("the model is needed to search by photo alone, and no photo is named", weights=weights)
        files = latest_descriptors(queries, database, workspace)
        ranking = search_files(*files, k, console.settings.device, options=options)
    origin = ranking.origin
    path = out
    if path is None:
        made_by = {**origin.to_json(), "k": k, "queries": ranking.query_names}
        path = workspace.result_folder("search", f"{origin.dataset}-{origin.model}", made_by) / "ranks.h5"
    stored = replace(ranking, origin=replace(origin, searched_by=provenance()))
    if photos:  # by their whole paths, so that pictures find them from any folder
        stored = replace(stored, query_names=[str(photo.absolute()) for photo in photos])
    write_ranks(path, stored)
    workspace.remember("search", path)
    if console.settings.json:
        results = [
            {"query": name, "photos": ranking.ranked_photos(query)} for query, name in enumerate(ranking.query_names)
        ]
        print_result({"results": results, "ranks": str(path), "origin": origin.to_json()}, "")
    else:  # who names a file reads the file
        print_result({}, "\n".join([*([] if out else _tables(ranking)), str(path)]))


def _inliers(photo: "RankedPhoto") -> str:
    """What verification says of a photo, in a cell of a table."""
    n_inliers = photo.get("inliers")
    if n_inliers is None:
        return "-"
    return f"{n_inliers}, promoted" if photo.get("promoted") else str(n_inliers)


def _tables(ranking: "Ranking") -> list[str]:
    """The best photos of the first queries, for people."""
    from ultron_cli.console import cut, table

    texts = []
    names, rest = cut(ranking.query_names, "queries", most=SHOWN_QUERIES, all_in="the rank file")
    for query, name in enumerate(names):
        photos = ranking.ranked_photos(query)
        columns = ("rank", "photo", "score", *(["inliers"] if ranking.inliers is not None else []))
        rows = [
            (photo["rank"], photo["name"], f"{photo['score']:.4f}", *([_inliers(photo)] if len(columns) > 3 else []))
            for photo in photos
        ]
        texts += ["", name] if texts else [name]  # whole, to be copied, however narrow the terminal
        texts.append(table(columns, rows, left=2, what="photos", all_in="the rank file"))
    return [*texts, rest] if rest else texts
