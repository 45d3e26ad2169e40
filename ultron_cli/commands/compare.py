"""`ultron compare`: is one result better than another?"""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="An evaluation of `ultron evaluate --out`.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Another, of the same queries.")],
) -> None:
    """Compares two evaluations query by query: difference of mAP, its 95 % interval, and whether chance explains it."""
    import dataclasses

    from ultron_cli.console import lines, print_result, table
    from ultron_cli.errors import UltronError
    from ultron_cli.evaluation.significance import compare_evaluations, read_evaluation

    a, b = read_evaluation(before), read_evaluation(after)
    shared = [protocol for protocol in a["protocols"] if protocol in b["protocols"]]
    if not shared:
        raise UltronError(f"{before} and {after} have no protocol in common; evaluate both with --protocol all")
    results = {protocol: compare_evaluations(a, b, protocol) for protocol in shared}
    rows = [
        (protocol, f"{100 * a['protocols'][protocol]['mAP']:.2f}", f"{100 * b['protocols'][protocol]['mAP']:.2f}", f"{100 * part.difference:+.2f}",
         f"{100 * part.interval[0]:+.2f} to {100 * part.interval[1]:+.2f}", f"{part.p_value:.3f}", f"{part.n_better}/{part.n_worse}/{part.n_equal}")
        for protocol, part in results.items()
    ]  # fmt: skip
    config_a, config_b = (report["provenance"].get("config") or {} for report in (a, b))
    from ultron_cli.configs import differences

    differing = differences(config_a, config_b)
    print_result(
        {
            "before": str(before),
            "after": str(after),
            "protocols": {name: dataclasses.asdict(part) for name, part in results.items()},
            "settings_that_differ": differing,
        },
        lines(
            table(("protocol", "A", "B", "B - A", "95 % interval", "p", "better/worse/equal"), rows),
            "settings that differ: " + ("; ".join(differing) or "none recorded"),
        ),
    )
