"""`ultron descriptors import`: descriptors of another tool as queries.h5 and database.h5."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import CROPS, DESCRIPTOR_FORMATS, ROLES, STORAGES
from ultron_cli.commands.flags import ScalesFlag, choice

EXAMPLE = """
ultron descriptors import dolg.pickle --gnd gnd_roxford5k.pkl --crop bbx --scales 5 --model dolg-r101 --out dolg
ultron descriptors import distractors.npy --names distractors.txt --out million
"""
MADE = "What is known of the making"


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="All files of one set, queries among them.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for queries.h5 and database.h5.")],
    format_name: Annotated[
        str,
        choice(
            DESCRIPTOR_FORMATS,
            "--format",
            more_names=("auto",),
            by_path=True,
            help="How the files are written (by their content), or my.py:read.",
        ),
    ] = "auto",
    gnd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ground truth: which photos are queries and database (all are database)."),
    ] = None,
    names: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Names of the rows, a line each; once for all files, or once for each."),
    ] = None,
    role: Annotated[str | None, choice(ROLES, help="What all the photos are (by their names).")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without photos of --gnd that the files lack.")
    ] = False,
    storage: Annotated[str | None, choice(STORAGES, help="Number type of the result (that of the files).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace descriptors that are there.")] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The network, for example dolg-r101 (imported).", rich_help_panel=MADE),
    ] = None,
    crop: Annotated[str, choice(CROPS, panel=MADE, help="Whether queries were cropped to their boxes.")] = "unknown",
    scales: ScalesFlag = None,
) -> None:
    """Makes queries.h5 and database.h5 of descriptors of another tool.

    Names may differ in suffix, folders and case; rows become unit vectors. index, search, evaluate, whiten, compare and
    diagnose --against work on the result.
    """
    from ultron_cli.configs import one_of, parse_scales
    from ultron_cli.console import counted, print_result, progress
    from ultron_cli.retrieval.exchange.descriptors.importing import DescriptorImport, import_descriptors

    request = DescriptorImport(
        paths=files,
        out=out,
        format=format_name,
        names=names or (),
        gnd=gnd,
        role=one_of("role", role, ROLES) if role else None,
        model=model,
        crop=one_of("crop", crop, CROPS),
        scales=parse_scales(scales) if scales else (),
        storage=storage,
        allow_missing=allow_missing,
        overwrite=overwrite,
    )
    with progress(total=None, what="import", unit="row") as bar:
        imported = import_descriptors(request, on_rows=bar.update)
    written = {role: str(path) for role, path in imported.files.items()}
    result = {
        "files": written,
        "format": imported.format,
        "queries": imported.n.get("query", 0),
        "photos": imported.n.get("database", 0),
        "dimensions": imported.dim,
        "storage": imported.storage,
        "made_unit": imported.n_made_unit,
        "shortest": imported.shortest,
        "longest": imported.longest,
        "missing": imported.n_missing,
        "surplus": imported.n_surplus,
    }
    both = f"--queries {written.get('query')} --database {written.get('database')}" if len(written) == 2 else ""
    following = f"; next: ultron evaluate {both}" if both else ""
    print_result(
        result,
        f"{out}: {counted(imported.n.get('query', 0), 'query', 'queries')} and "
        f"{counted(imported.n.get('database', 0), 'photo')} of {imported.dim} dimensions{following}",
    )
