"""`ultron visualize precision-recall`: precision over recall of several searches."""

from typing import Annotated

from ultron_cli.commands.choices import PROTOCOLS
from ultron_cli.commands.flags import (
    DatabaseFlag,
    FigureFlag,
    LabelFlag,
    QueriesFlag,
    SystemsFlag,
    choice,
    current_workspace,
)
from ultron_cli.commands.visualize.searches import labels_of, searches

EXAMPLE = """
ultron visualize precision-recall
ultron visualize precision-recall --ranks before.h5 --ranks after.h5 --protocol hard --out curves.pdf
"""


def command(
    *,
    ranks: SystemsFlag = None,
    label: LabelFlag = None,
    protocol: Annotated[str, choice(PROTOCOLS, help="Protocol; all: one axes each.", more_names=("all",))] = "all",
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    out: FigureFlag = None,
) -> None:
    """Draws precision over recall of searches.

    The precision is the mean of the interpolated precisions, in one axes per protocol, with junk left out as in the
    evaluation.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.curves.precision_recall import RECALLS, measure, precision_recall_figure
    from ultron_cli.visualization.drawing import check_suffix

    workspace = current_workspace()
    protocols = PROTOCOLS if protocol == "all" else (one_of("protocol", protocol, PROTOCOLS),)
    if out:
        check_suffix(out)
    rankings = searches(ranks, queries, database)
    names = labels_of([ranking.origin.model_label for ranking in rankings], label, ranks)
    curves = [measure(ranking, name, protocols) for ranking, name in zip(rankings, names, strict=True)]
    dataset = curves[0].dataset
    made_by = {"rankings": [ranking.origin.to_json() for ranking in rankings]}
    path = out or workspace.result_folder("visualize", f"precision-recall-{dataset}", made_by) / "precision-recall.png"
    models = " and ".join(dict.fromkeys(ranking.origin.model_label for ranking in rankings))
    precision_recall_figure(curves, f"Precision and recall: {models} on {dataset}", path)
    workspace.remember("visualize", path)
    results = [
        {
            "search": search.label,
            "mAP": search.mAP,
            "queries": search.n_queries,
            "precision": {key: curve.tolist() for key, curve in search.curves.items()},
        }
        for search in curves
    ]
    print_result({"figure": str(path), "dataset": dataset, "recall": RECALLS.tolist(), "searches": results}, str(path))
