"""`ultron index`: descriptors to a Faiss index."""

from pathlib import Path
from typing import Annotated

import typer


def index(
    descriptors: Annotated[Path | None, typer.Argument(help="Descriptors of a database (those of the latest extraction).")] = None,
    *,
    type_: Annotated[str, typer.Option("--type", metavar="flat|FACTORY", help="Kind of index, or a Faiss factory string.")] = "flat",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the index (NAME.index).")] = None,
) -> None:
    """Builds a Faiss index that `ultron search --index` uses."""
    import time

    from ultron_cli import workspace
    from ultron_cli.console import counted, print_result
    from ultron_cli.retrieval.index import build_index

    source = descriptors or workspace.take_latest("extract", "name a descriptor file") / "database.h5"
    path = out or workspace.result_folder("index", source.resolve().parent.name) / f"{type_.replace(',', '_')}.index"
    started_s = time.perf_counter()
    built = build_index(source, path, kind=type_, overwrite=overwrite or out is None)
    workspace.remember("index", path)
    seconds = time.perf_counter() - started_s
    summary = {"index": str(path), "descriptors": str(source), "type": type_, "n": built.n, "dim": built.dim, "seconds": seconds}
    print_result(summary, f"{type_} index of {counted(built.n, 'descriptor')}, {built.dim}-d, in {seconds:.1f} s\n{path}")
