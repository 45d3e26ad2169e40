"""`ultron ranks info`: what a rank file holds and where it comes from."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "ultron ranks info ranks.h5"


def command(
    ranks: Annotated[Path, typer.Argument(metavar="RANKS.h5", help="A rank file.")],
) -> None:
    """Tells what a rank file holds and what made it.

    Scores that do not fall from photo to photo are counted: other tools order by score.
    """
    from ultron_cli.console import print_result, table
    from ultron_cli.retrieval.exchange.overview import describe_ranks
    from ultron_cli.retrieval.rankings import read_ranks

    ranking = read_ranks(ranks)
    facts = describe_ranks(ranking)
    rows = [(name.replace("_", " "), value) for name, value in facts.items() if name != "made_by"]
    made_by = [(name, value) for name, value in facts["made_by"].items() if value != "none"]
    print_result(dict(facts), table(("", ""), [*rows, *made_by], left=2))
