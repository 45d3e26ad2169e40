"""`ultron index`: descriptors to a Faiss index or into Milvus."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import metavar
from ultron_cli.commands.flags import DimFlag, WhitenFlag, choice, current_workspace, require_unused
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.index.kinds import INDEX_KINDS

if TYPE_CHECKING:
    from ultron_cli.retrieval.index.faiss_index import FaissIndex
    from ultron_cli.retrieval.milvus.building import MilvusRequest
    from ultron_cli.retrieval.whitening import Whitening

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
    str | None,
    typer.Option(metavar="NAME", help="Collection in Milvus (one named after its contents).", rich_help_panel="Milvus"),
]
TokenFlag = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable that holds the server's token.", rich_help_panel="Milvus"),
]


EXAMPLE = """
ultron index
ultron index --type ivfpq --report
"""


def command(
    descriptors: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Descriptors of a database (those of the latest extraction)."),
    ] = None,
    *,
    type_: Annotated[
        str,
        typer.Option(
            "--type",
            metavar=metavar(list(INDEX_KINDS), "FACTORY"),
            help="Kind of index, a Faiss factory string, or my.py:Index.",
        ),
    ] = "flat",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of an index of your own.")
    ] = None,
    engine: Annotated[str, choice(ENGINES, help="What keeps and searches the descriptors.")] = "faiss",
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    report: Annotated[
        bool, typer.Option("--report", help="Measure it against exact search, over nprobe or efSearch: table and plot.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Descriptors to measure with (those beside FILE, else some of them)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    uri: UriFlag = None,
    collection: CollectionFlag = None,
    token_env: TokenFlag = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the index (NAME.index).")] = None,
) -> None:
    """Builds an index to search with, by Faiss or in Milvus.

    An index is a Faiss file or a collection in Milvus, built in bounded memory; `ultron search --index` uses it.
    """
    from ultron_cli.configs import apply_set
    from ultron_cli.console import print_result
    from ultron_cli.locks import only_writer
    from ultron_cli.retrieval.whitening import chosen_whitening
    from ultron_cli.user_code import is_import_path

    milvus_flags = {"--uri": uri, "--collection": collection, "--token-env": token_env}
    for flag, value in milvus_flags.items():
        if engine == "faiss" and value is not None:
            raise UltronError(f"{flag} belongs to Milvus; add --engine milvus")
    if engine == "milvus" and (report or queries):
        raise UltronError(
            f"{'--report' if report else '--queries'} measures Faiss indexes; leave it out with --engine milvus"
        )
    is_of_user = is_import_path(type_)
    if is_of_user and engine == "milvus":
        raise UltronError("an index of your own keeps its descriptors itself; leave out --engine milvus")
    if is_of_user and (report or queries):
        raise UltronError(f"{'--report' if report else '--queries'} measures Faiss indexes; leave it out with {type_}")
    if not is_of_user:
        require_unused(f"settings are of an index by import path, found {type_}", set_=set_ or None)
    if not report:
        require_unused("without --report nothing is measured", queries=queries)
    workspace = current_workspace()
    source = descriptors or workspace.take_latest("extract", "name a descriptor file") / "database.h5"
    settings = apply_set({}, set_ or [], example="bits=128")
    stem = type_.rpartition(":")[2].replace(",", "_") if engine == "faiss" else f"milvus-{type_}"
    whitening = chosen_whitening(whiten, dim)
    made_by = {
        "descriptors": str(source.resolve()),
        "whitening": whitening.record().to_json() if whitening else None,
        "uri": uri,
        "collection": collection,
        **({"settings": settings} if settings else {}),
    }
    path = out or workspace.result_folder("index", source.resolve().parent.name, made_by) / f"{stem}.index"
    is_replaced = overwrite or out is None
    with only_writer(path, f"another `ultron index` is writing {path}", beside=True):  # with its report
        if engine == "milvus":
            from ultron_cli.retrieval.milvus.building import MilvusRequest

            request = MilvusRequest(uri=uri, collection=collection, token_env=token_env, replace=overwrite)
            summary, text = _build_in_milvus(source, path, type_, request, is_replaced, whitening)
            workspace.remember("index", path)
        elif is_of_user:
            summary, text = _build_of_user(source, path, type_, settings, is_replaced, whitening)
            workspace.remember("index", path)
        else:
            built, summary, text = _build_with_faiss(source, path, type_, is_replaced, whitening)
            workspace.remember("index", path)
            if report:
                from ultron_cli.retrieval.index.report import index_report, report_text
                from ultron_cli.visualization.curves.recall_speed import draw_index_report

                measured = index_report(built, source, queries)
                draw_index_report(measured, Path(measured["figure"]))
                summary["report"] = measured
                text = f"{text}\n{report_text(measured)}"
    print_result(summary, text)


def _build_with_faiss(
    source: Path, path: Path, kind: str, is_replaced: bool, whitening: "Whitening | None"
) -> tuple["FaissIndex", dict[str, object], str]:
    """(the index, the result, a text for people)."""
    from ultron_cli.console import counted
    from ultron_cli.retrieval.index.building import build_index, bytes_per_photo

    started_s = time.perf_counter()
    index = build_index(source, path, kind=kind, overwrite=is_replaced, whitening=whitening)
    seconds = time.perf_counter() - started_s
    n_bytes = bytes_per_photo(index.faiss_index, index.dim)
    summary: dict[str, object] = {
        "index": str(path),
        "descriptors": str(source),
        "type": kind,
        "engine": "faiss",
        "factory": index.factory,
        "n": index.n,
        "dim": index.dim,
        "seconds": seconds,
        "bytes_per_photo": n_bytes,
    }
    text = (
        f"{kind} index of {counted(index.n, 'descriptor')}, {index.dim}-d, {n_bytes:.0f} bytes each, in {seconds:.1f} s"
    )
    return index, summary, f"{text}\n{path}"


def _build_of_user(
    source: Path,
    path: Path,
    kind: str,
    settings: dict[str, object],
    is_replaced: bool,
    whitening: "Whitening | None",
) -> tuple[dict[str, object], str]:
    """(the result, a text for people)."""
    from ultron_cli.console import counted
    from ultron_cli.retrieval.index.building import build_user_index

    started_s = time.perf_counter()
    index = build_user_index(source, path, kind, overwrite=is_replaced, whitening=whitening, settings=settings)
    seconds = time.perf_counter() - started_s
    summary: dict[str, object] = {
        "index": str(path),
        "descriptors": str(source),
        "type": kind,
        "n": index.n,
        "dim": index.dim,
        "seconds": seconds,
    }
    text = f"{kind} index of {counted(index.n, 'descriptor')}, {index.dim}-d, in {seconds:.1f} s"
    return summary, f"{text}\n{path}"


def _build_in_milvus(
    source: Path, path: Path, kind: str, request: "MilvusRequest", is_replaced: bool, whitening: "Whitening | None"
) -> tuple[dict[str, object], str]:
    """(the result, a text for people)."""
    from ultron_cli.console import counted
    from ultron_cli.retrieval.milvus.building import build_milvus_index

    started_s = time.perf_counter()
    index = build_milvus_index(source, path, kind, request, overwrite=is_replaced, whitening=whitening)
    seconds = time.perf_counter() - started_s
    summary: dict[str, object] = {
        "index": str(path),
        "descriptors": str(source),
        "type": kind,
        "engine": "milvus",
        "index_type": index.index_type,
        "uri": index.place.uri,
        "collection": index.place.collection,
        "n": index.n,
        "dim": index.dim,
        "n_written": index.n_written,
        "seconds": seconds,
    }
    text = (
        f"{kind} index of {counted(index.n, 'descriptor')}, {index.dim}-d, in Milvus at {index.place.uri}, "
        f"collection {index.place.collection}; {index.n_written:,} written in {seconds:.1f} s"
    )
    return summary, f"{text}\n{path}"
