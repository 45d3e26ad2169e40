"""`ultron index`: descriptors to a Faiss index or into Milvus."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.whiten import DimFlag, WhitenFlag
from ultron_cli.errors import UltronError

ENGINES = ("faiss", "milvus")
UriFlag = Annotated[
    str | None,
    typer.Option(
        metavar="http://HOST:PORT|FILE.db",
        help="Milvus server or local database (milvus.db beside the index).",
        rich_help_panel="Milvus",
    ),
]
CollectionFlag = Annotated[
    str | None, typer.Option(help="Collection in Milvus (one named after its contents).", rich_help_panel="Milvus")
]
TokenFlag = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable that holds the server's token.", rich_help_panel="Milvus"),
]


def index(
    descriptors: Annotated[
        Path | None, typer.Argument(help="Descriptors of a database (those of the latest extraction).")
    ] = None,
    *,
    type_: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="flat|fp16|sq8|ivf|ivfpq|opq-ivfpq|hnsw|FACTORY",
            help="Kind of index, or a Faiss factory string.",
        ),
    ] = "flat",
    engine: Annotated[
        str, typer.Option(metavar="faiss|milvus", help="What keeps and searches the descriptors.")
    ] = "faiss",
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    report: Annotated[
        bool, typer.Option("--report", help="Measure it against exact search, over nprobe or efSearch: table and plot.")
    ] = False,
    queries: Annotated[
        Path | None, typer.Option(help="Descriptors to measure with (those beside DESCRIPTORS, else some of them).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    uri: UriFlag = None,
    collection: CollectionFlag = None,
    token_env: TokenFlag = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the index (NAME.index).")] = None,
) -> None:
    """Builds an index that `ultron search --index` uses, in bounded memory: a Faiss file, or a collection in Milvus."""
    import time

    from ultron_cli.configs import one_of

    one_of("--engine", engine, ENGINES)
    given = [
        name
        for name, value in (("--uri", uri), ("--collection", collection), ("--token-env", token_env))
        if value is not None
    ]
    if engine == "faiss" and given:
        raise UltronError(f"{given[0]} belongs to Milvus; add --engine milvus")
    if engine == "milvus" and (report or queries):
        raise UltronError(
            f"{'--report' if report else '--queries'} measures Faiss indexes; leave it out with --engine milvus"
        )

    from ultron_cli import workspace
    from ultron_cli.console import counted, lines, print_result
    from ultron_cli.retrieval.index.building import build_index, bytes_per_photo
    from ultron_cli.retrieval.whitening import chosen_whitening

    source = descriptors or workspace.take_latest("extract", "name a descriptor file") / "database.h5"
    stem = type_.replace(",", "_") if engine == "faiss" else f"milvus-{type_}"
    path = out or workspace.result_folder("index", source.resolve().parent.name) / f"{stem}.index"
    started_s = time.perf_counter()
    if engine == "milvus":
        from ultron_cli.retrieval.milvus.building import MilvusRequest, build_milvus_index

        request = MilvusRequest(uri=uri, collection=collection, token_env=token_env, replace=overwrite)
        stored = build_milvus_index(
            source, path, type_, request, overwrite=overwrite or out is None, whitening=chosen_whitening(whiten, dim)
        )
        workspace.remember("index", path)
        summary = {
            "index": str(path),
            "descriptors": str(source),
            "type": type_,
            "engine": engine,
            "index_type": stored.index_type,
            "uri": stored.place.uri,
            "collection": stored.place.collection,
            "n": stored.n,
            "dim": stored.dim,
            "n_written": stored.n_written,
            "seconds": time.perf_counter() - started_s,
        }
        text = (
            f"{type_} index of {counted(stored.n, 'descriptor')}, {stored.dim}-d, in Milvus at {stored.place.uri}, "
            f"collection {stored.place.collection}; "
        )
        print_result(summary, f"{text}{stored.n_written:,} written in {summary['seconds']:.1f} s\n{path}")
        return
    built = build_index(
        source, path, kind=type_, overwrite=overwrite or out is None, whitening=chosen_whitening(whiten, dim)
    )
    workspace.remember("index", path)
    seconds = time.perf_counter() - started_s
    summary = {
        "index": str(path),
        "descriptors": str(source),
        "type": type_,
        "engine": engine,
        "factory": built.factory,
        "n": built.n,
        "dim": built.dim,
        "seconds": seconds,
        "bytes_per_photo": bytes_per_photo(built.faiss_index, built.dim),
    }
    text = (
        f"{type_} index of {counted(built.n, 'descriptor')}, {built.dim}-d, {summary['bytes_per_photo']:.0f} bytes "
        f"each, in {seconds:.1f} s\n{path}"
    )
    if report:
        from ultron_cli.retrieval.index.report import index_report, report_text
        from ultron_cli.visualization.curves.recall_speed import draw_index_report

        measured = index_report(built, source, queries)
        draw_index_report(measured, Path(measured["figure"]))
        summary["report"] = measured
        text = lines(text, report_text(measured))
    print_result(summary, text)
