"""`ultron descriptors info`: what files of descriptors hold, whoever made them."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import DESCRIPTOR_FORMATS
from ultron_cli.commands.flags import choice

EXAMPLE = "ultron descriptors info queries.h5 theirs.pickle"


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Descriptors, of ultron or of other tools.")],
    *,
    format_name: Annotated[
        str,
        choice(
            DESCRIPTOR_FORMATS,
            "--format",
            more_names=("auto",),
            by_path=True,
            help="Of other tools: how it is written.",
        ),
    ] = "auto",
) -> None:
    """Tells what files of descriptors hold, and what made those of ultron.

    Of other tools' files it says format, number, dimensions, type, names and lengths of the first rows.
    """
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.retrieval.exchange.descriptors.overview import describe_descriptors

    facts = [describe_descriptors(file, format_name) for file in files]
    texts = []
    for of_file in facts:
        texts.append(f"{of_file['file']}: {of_file['what']}")
        for part in of_file["parts"]:
            rows = [(name.replace("_", " "), value) for name, value in part.items()]
            texts.append(table(("", ""), [*rows, *of_file["made_by"].items()], left=2))
    print_result({"files": facts}, lines(*texts))
