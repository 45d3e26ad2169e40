"""`ultron visualize curves`, `precision-recall`, `recall-speed` and `ablation`: numbers of several runs, searches or
indexes in one axes."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.visualize import LabelFlag, SystemsFlag
from ultron_cli.commands.visualize_inside import FigureFlag


def curves(
    *,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="A training run: folder or name in the workspace; may be given again (the latest)."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Name of each run in the picture, in their order (the folders')."),
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Draws the training curves of runs in one axes each: loss, held-out mAP, accuracy and learning rate by epoch."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.curves.run_curves import curves_figure, read_run
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    if label and len(label) != len(run or [""]):
        raise UltronError(f"--label must be given once per --run, found {len(label)} for {len(run or [''])}")
    root = workspace.workspace_root() / "train"
    folders = [Path(name).expanduser() if Path(name).expanduser().is_dir() else root / name for name in run or []]
    folders = folders or [workspace.take_latest("train", "name a run folder with --run")]
    runs = [read_run(folder, label[i] if label else None) for i, folder in enumerate(folders)]
    datasets, models = (
        list(dict.fromkeys(r.dataset for r in runs if r.dataset)),
        list(dict.fromkeys(r.model for r in runs if r.model)),
    )
    path = out or (
        folders[0] / "training-curves.png"
        if len(runs) == 1
        else workspace.result_folder("visualize", "curves") / "curves.png"
    )
    what = f"{', '.join(models)} on {', '.join(datasets)}" if models and datasets else ", ".join(models or datasets)
    curves_figure(runs, f"Training curves: {what}" if what else "Training curves", path)
    workspace.remember("visualize", path)
    entries = [
        {
            "run": r.label,
            "epochs": len(r.epochs),
            "loss": (r.points("loss")[1] or [None])[-1],
            "validation_mAP": (r.points("validation_mAP")[1] or [None])[-1],
        }
        for r in runs
    ]
    print_result({"figure": str(path), "runs": entries}, str(path))


def precision_recall(
    *,
    ranks: SystemsFlag = None,
    label: LabelFlag = None,
    protocol: Annotated[
        str, typer.Option(metavar="easy|medium|hard|all", help="Protocol; all: one axes each.")
    ] = "all",
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: FigureFlag = None,
) -> None:
    """Draws mean interpolated precision over recall of searches in one axes per protocol, junk left out as in the
    evaluation."""
    from ultron_cli import workspace
    from ultron_cli.commands.visualize import labels_of, searches
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.datasets.protocols import PROTOCOLS
    from ultron_cli.visualization.curves.precision_recall import RECALLS, measure, precision_recall_figure
    from ultron_cli.visualization.tsne import check_suffix

    one_of("--protocol", protocol, (*PROTOCOLS, "all"))
    if out:
        check_suffix(out)
    protocols = list(PROTOCOLS) if protocol == "all" else [protocol]
    rankings = searches(ranks, queries, database)
    names = labels_of([ranking.origin.model_label for ranking in rankings], label, ranks)
    measured = [measure(ranking, name, protocols) for ranking, name in zip(rankings, names, strict=True)]
    dataset = measured[0].dataset
    path = (
        out
        or workspace.result_folder("visualize", f"precision-recall-{dataset}".replace("/", "_"))
        / "precision-recall.png"
    )
    models = " and ".join(dict.fromkeys(ranking.origin.model_label for ranking in rankings))
    precision_recall_figure(measured, f"Precision and recall: {models} on {dataset}", path)
    workspace.remember("visualize", path)
    results = [
        {
            "search": one.label,
            "mAP": one.mAP,
            "queries": one.n_queries,
            "precision": {key: curve.tolist() for key, curve in one.curves.items()},
        }
        for one in measured
    ]
    print_result({"figure": str(path), "dataset": dataset, "recall": RECALLS.tolist(), "searches": results}, str(path))


def recall_speed(
    reports: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT.json ...", help="What `ultron index --report` wrote, one for each kind of index."
        ),
    ],
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Name of each index in the picture, in their order (its kind).")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="K", help="Recall among the first K (the largest that all reports have)."),
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Draws queries per second over recall of several indexes in one axes, with exact search as a star."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.curves.recall_speed import common_cut, read_report, recall_speed_figure
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    if label and len(label) != len(reports):
        raise UltronError(f"--label must be given once per report, found {len(label)} for {len(reports)}")
    contents = [read_report(path) for path in reports]
    kinds = [str(content["kind"]) for content in contents]
    names = label or [
        f"{kind} ({path.name})" if kinds.count(kind) > 1 else kind for kind, path in zip(kinds, reports, strict=True)
    ]
    path = out or workspace.result_folder("visualize", "recall-speed") / "recall-speed.png"
    sources = list(
        dict.fromkeys(
            f"{content['model']} on {content['dataset']}"
            for content in contents
            if content.get("model") and content.get("dataset")
        )
    )
    recall_speed_figure(
        contents,
        names,
        f"Recall and speed: {' and '.join(sources)}" if sources else "Recall and speed of indexes",
        path,
        at=at,
    )
    workspace.remember("visualize", path)
    cut = common_cut(contents, at)
    entries = [
        {
            "index": name,
            "recall_at": int(cut),
            "points": [
                {"recall": row["recall"][cut], "queries_per_s": row["queries_per_s"]} for row in content["rows"]
            ],
        }
        for name, content in zip(names, contents, strict=True)
    ]
    print_result({"figure": str(path), "indexes": entries}, str(path))


def ablation(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE.csv", help="Columns group,setting,seed,metric,value; examples/ablations.py writes one."
        ),
    ],
    *,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric of the table; may be given again (all).")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What was measured, on what (the file's name).")] = None,
    out: FigureFlag = None,
) -> None:
    """Draws bars of an ablation with their spread over seeds, a panel per metric."""
    from ultron_cli import workspace
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.curves.ablation_bars import ablation_figure, bars_of, read_measurements
    from ultron_cli.visualization.tsne import check_suffix

    if out:
        check_suffix(out)
    measurements = read_measurements(table)
    known = list(dict.fromkeys(one.metric for one in measurements))
    for name in metric or []:
        one_of("--metric", name, known)
    kept = [one for name in (metric or known) for one in measurements if one.metric == name]
    path = out or workspace.result_folder("visualize", "ablation") / f"{table.stem}.png"
    ablation_figure(kept, title or f"Ablation: {table.stem}", path)
    workspace.remember("visualize", path)
    bars = [
        {
            "group": bar.group,
            "setting": bar.setting,
            "metric": bar.metric,
            "mean": bar.mean,
            "spread": bar.spread,
            "seeds": len(bar.values),
        }
        for bar in bars_of(kept)
    ]
    print_result({"figure": str(path), "bars": bars}, str(path))
