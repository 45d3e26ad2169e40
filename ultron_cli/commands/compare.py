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
    from ultron_cli.evaluation.significance import compare_evaluations, p_values_in_words

    a = read_evaluation(before)
    b = read_evaluation(after)
    shared = [protocol for protocol in a.protocols if protocol in b.protocols]
    if not shared:
        raise UltronError(f"{before} and {after} have no protocol in common; evaluate both with --protocol all")
    results = {protocol: compare_evaluations(a, b, protocol) for protocol in shared}
    rows = []
    verdicts = []
    for protocol, part in results.items():
        low, high = (f"{100 * side:+.2f}" for side in part.interval)
        n_equal = part.n_queries - part.n_better - part.n_worse
        scores = (f"{100 * part.mAP_a:.2f}", f"{100 * part.mAP_b:.2f}", f"{100 * part.difference:+.2f}")
        counts = f"{part.n_better} / {part.n_worse} / {n_equal}"
        rows.append((protocol, *scores, f"{low} to {high}", part.p_text, counts))
        verdicts.append(f"{protocol}: {part.verdict} (p {part.p_text})")
    differing = a.origin.differences(b.origin)
    print_result(
        {
            "before": str(before),
            "after": str(after),
            "protocols": {
                name: dataclasses.asdict(part) | {"test": part.test_text, "verdict": part.verdict}
                for name, part in results.items()
            },
            "settings_that_differ": differing,
        },
        lines(
            f"A {before}",
            f"B {after}",
            table(("protocol", "A", "B", "B - A", "95 % interval", "p", "better / worse / equal"), rows),
            *verdicts,
            f"p: {'; '.join(p_values_in_words(results.values()))}. Interval: bootstrap over queries",
            "differing: nothing that is recorded" if not differing else "differing:",
            *(f"  {phrase}" for phrase in differing),
        ),
    )
