"""`ultron compare`: is one result better than another?"""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.errors import UltronError

EXAMPLE = "ultron compare before.json after.json"


def command(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="An evaluation that `ultron evaluate --out` wrote.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Another, of the same queries.")],
) -> None:
    """Tells whether one result is better than another.

    Two evaluations are compared query by query: the difference of mAP, its 95 % interval, and whether chance explains
    it.
    """
    import dataclasses

    from ultron_cli.console import lines, print_result, table
    from ultron_cli.evaluation.result import read_evaluation
    from ultron_cli.evaluation.significance import compare_evaluations

    a = read_evaluation(before)
    b = read_evaluation(after)
    shared = [protocol for protocol in a.protocols if protocol in b.protocols]
    if not shared:
        raise UltronError(f"{before} and {after} have no protocol in common; evaluate both with --protocol all")
    results = {protocol: compare_evaluations(a, b, protocol) for protocol in shared}
    rows = []
    for protocol, part in results.items():
        low, high = (f"{100 * side:+.2f}" for side in part.interval)
        n_equal = part.n_queries - part.n_better - part.n_worse
        scores = (f"{100 * part.mAP_a:.2f}", f"{100 * part.mAP_b:.2f}", f"{100 * part.difference:+.2f}")
        rows.append(
            (protocol, *scores, f"{low} to {high}", f"{part.p_value:.3f}", f"{part.n_better}/{part.n_worse}/{n_equal}")
        )
    settings = a.origin.extraction.differences(b.origin.extraction)
    print_result(
        {
            "before": str(before),
            "after": str(after),
            "protocols": {name: dataclasses.asdict(part) for name, part in results.items()},
            "settings_that_differ": settings,
        },
        lines(
            table(("protocol", "A", "B", "B - A", "95 % interval", "p", "better/worse/equal"), rows),
            "settings that differ: " + ("; ".join(settings) or "none recorded"),
        ),
    )
