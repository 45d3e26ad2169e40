"""`ultron visualize genotype`: the graph of a searched attention."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import FigureFlag, current_workspace

EXAMPLE = "ultron visualize genotype skip:0/sep_spatial:0,sep:1/cbam:0,skip:2,sep:1/sep:0,skip:1,sep:3,dil:2"


def command(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="GENOTYPE|FILE", help="A genotype's text or a file that a search wrote (the published)."
        ),
    ] = None,
    *,
    out: FigureFlag = None,
) -> None:
    """Draws the graph of a searched attention (HOGA, AutoLA).

    It shows the nodes, their operations and what each takes in.
    """
    from ultron_cli.console import print_result
    from ultron_cli.models.attentions.genotype import PUBLISHED, load_genotype, parse_genotype
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.genotype import genotype_figure

    workspace = current_workspace()
    genotype_text = PUBLISHED if text is None else text
    if out:
        check_suffix(out)
    # A genotype may be longer than a path can be, where the methods of Path raise.
    is_file = os.path.isfile(genotype_text)
    genotype_shown = load_genotype(Path(genotype_text)) if is_file else parse_genotype(genotype_text)
    made_by = {"genotype": genotype_shown.text}
    path = out or workspace.result_folder("visualize", "genotype", made_by) / "genotype.png"
    genotype_figure(
        genotype_shown, "HOGA, the published genotype" if text is None else f"HOGA: {genotype_text}"[:90], path
    )
    workspace.remember("visualize", path)
    print_result({"figure": str(path), "genotype": genotype_text}, str(path))
