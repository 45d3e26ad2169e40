"""`ultron index`: descriptors to a Faiss index."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.whiten import DimFlag, WhitenFlag


def index(
    descriptors: Annotated[Path | None, typer.Argument(help="Descriptors of a database (those of the latest extraction).")] = None,
    *,
    type_: Annotated[
        str, typer.Option("--type", metavar="flat|fp16|sq8|ivf|ivfpq|opq-ivfpq|hnsw|FACTORY", help="Kind of index, or a Faiss factory string.")
    ] = "flat",
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    report: Annotated[bool, typer.Option("--report", help="Measure it against exact search, over nprobe or efSearch: table and plot.")] = False,
    queries: Annotated[Path | None, typer.Option(help="Descriptors to measure with (those beside DESCRIPTORS, else some of them).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the index (NAME.index).")] = None,
) -> None:
    """Builds a Faiss index that `ultron search --index` uses, in bounded memory, which is stated before it starts."""
    import time

    from ultron_cli import workspace
    from ultron_cli.console import counted, lines, print_result
    from ultron_cli.retrieval.index_building import build_index, bytes_per_photo
    from ultron_cli.retrieval.whitening import chosen_whitening

    source = descriptors or workspace.take_latest("extract", "name a descriptor file") / "database.h5"
    path = out or workspace.result_folder("index", source.resolve().parent.name) / f"{type_.replace(',', '_')}.index"
    started_s = time.perf_counter()
    built = build_index(source, path, kind=type_, overwrite=overwrite or out is None, whitening=chosen_whitening(whiten, dim))
    workspace.remember("index", path)
    seconds = time.perf_counter() - started_s
    summary = {
        "index": str(path), "descriptors": str(source), "type": type_, "factory": built.factory, "n": built.n, "dim": built.dim, "seconds": seconds,
        "bytes_per_photo": bytes_per_photo(built.faiss_index, built.dim),
    }  # fmt: skip
    text = f"{type_} index of {counted(built.n, 'descriptor')}, {built.dim}-d, {summary['bytes_per_photo']:.0f} bytes each, in {seconds:.1f} s\n{path}"
    if report:
        from ultron_cli.retrieval.index_report import index_report, report_text

        summary["report"] = index_report(built, source, queries)
        text = lines(text, report_text(summary["report"]))
    print_result(summary, text)
