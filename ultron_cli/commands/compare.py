"""`ultron compare`: is one result better than another?"""

from typing import Annotated

import typer

from ultron_cli.commands.flags import FormatFlag
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron compare before.json after.json
ultron compare a1.json,a2.json,a3.json b1.json,b2.json,b3.json
ultron compare results/ --format latex
ultron compare published.h5 mine.h5 --as-reproduction
"""


def command(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="A.json [B.json]",
            help="Evaluations that `ultron evaluate --out` wrote, rank files, or folders of evaluations, of the same "
            "queries; with commas between them, training seeds of one system.",
        ),
    ],
    *,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Compare by a metric that both were evaluated with (mAP of the revisited protocols)."
        ),
    ] = None,
    style: FormatFlag = "text",
    as_reproduction: Annotated[
        bool,
        typer.Option(
            "--as-reproduction",
            help="Hold the second result against the first: AP by AP, photo by photo (of rank files), descriptor by "
            "descriptor.",
            rich_help_panel="A reproduction",
        ),
    ] = False,
) -> None:
    """Tells whether one result is better than another.

    Evaluations are compared query by query: the difference of mAP, its 95 % interval, whether chance explains it, and
    the smallest difference that so many queries show. Of several systems each pair is compared, corrected by Holm.
    """
    from ultron_cli.commands.choices import FORMATS
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.evaluation.summaries import compare_all, reproduced
    from ultron_cli.evaluation.systems import open_systems

    style = one_of("format", style, FORMATS)
    if as_reproduction and style not in ("text", "json"):
        raise UltronError("--as-reproduction prints text or JSON; leave out --format, or name json")
    systems = open_systems(results, metric)
    if as_reproduction:
        if len(systems) != 2:
            raise UltronError(f"--as-reproduction holds one result against another; found {len(systems)}; name two")
        print_result(*reproduced(systems[0], systems[1], style))
    else:
        comparison = compare_all(systems)
        print_result(comparison.to_json(), comparison.text(style))
