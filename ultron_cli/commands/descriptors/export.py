"""`ultron descriptors export`: descriptors for another tool."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import DESCRIPTOR_FORMATS
from ultron_cli.commands.flags import choice

EXAMPLE = """
ultron descriptors export database.h5 --format npy --out database.npy
ultron descriptors export queries.h5 database.h5 --format dolg --out descriptors.pickle
"""


def command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.h5", help="A descriptor file, or the queries' and the database's.")
    ],
    *,
    format_name: Annotated[str, choice(DESCRIPTOR_FORMATS, "--format", help="What reads the file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
) -> None:
    """Writes descriptors for other tools.

    npy and faiss hold no names: these go into a list beside the file, x.names.txt. revisitop, npz, pt, dolg and hloc
    take queries and database together.
    """
    from ultron_cli.console import counted, print_result
    from ultron_cli.retrieval.exchange.descriptors.exporting import export_descriptors

    exported = export_descriptors(files, out, format_name)
    names = str(exported.names) if exported.names else None
    print_result(
        {
            "file": str(out),
            "names": names,
            "format": format_name,
            "descriptors": exported.n,
            "dimensions": exported.dim,
            "type": exported.dtype,
        },
        f"{out}: {counted(exported.n, 'descriptor')} of {exported.dim} dimensions, {exported.dtype}"
        + (f"; names: {names}" if names else ""),
    )
