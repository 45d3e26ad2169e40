"""`ultron evaluate`: a search to mAP."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import DUPLICATES, FORMATS, PROTOCOLS
from ultron_cli.commands.flags import (
    DatabaseFlag,
    DimFlag,
    EfSearchFlag,
    FormatFlag,
    IndexFlag,
    LeaveOutQueriesFlag,
    LocalFeaturesFlag,
    NprobeFlag,
    QueriesFlag,
    RerankFlag,
    RerankSetFlag,
    RescoreFlag,
    WhitenFlag,
    choice,
    current_workspace,
    index_settings,
    number,
    require_unused,
)
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron evaluate --protocol hard
ultron evaluate --rerank superglobal
ultron evaluate --distractors revisitop1m.h5
"""


def command(
    *,
    protocol: Annotated[
        str, choice(PROTOCOLS, help="Protocol of Revisited Oxford and Paris.", more_names=("all",))
    ] = "all",
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    ranks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A rank file, or GLDv2 predictions (CSV), not descriptors.")
    ] = None,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Descriptors of photos that answer no query; may be given several times."),
    ] = None,
    index: IndexFlag = None,
    nprobe: NprobeFlag = None,
    ef_search: EfSearchFlag = None,
    rescore: RescoreFlag = None,
    k: Annotated[
        int | None, number("-k", help="Photos ranked per query; positives behind them count as not found (all).", low=1)
    ] = None,
    rerank: RerankFlag = None,
    rerank_set: RerankSetFlag = None,
    local_features: LocalFeaturesFlag = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    gnd: Annotated[Path | None, typer.Option(metavar="FILE", help="Ground truth (that of the extraction).")] = None,
    duplicates: Annotated[
        str, choice(DUPLICATES, help="Photos that a ranking repeats: each counts, as in revisitop, or only the first.")
    ] = "count",
    leave_out_queries: LeaveOutQueriesFlag = False,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Score without these queries too, for example those that `ultron datasets leaks` lists; may be given "
            "several times.",
        ),
    ] = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Show the published score of this model beside ours, and what differs.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further metric: mAP@k, mAP@R, P@k, nDCG@k, recall@k or oracle@k with a number for k, GAP, or "
            "FILE.py:CLASS; may be given several times (what the dataset's authors use).",
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Score by attributes of queries and photos, worst first: all, one of box, positives, easy-share, "
            "landmark and label, or a CSV of attributes by photo; may be given several times.",
        ),
    ] = None,
    ceilings: Annotated[
        bool,
        typer.Option(
            "--ceilings", help="Show what re-ranking could at best give, landmarks taken for others, and hubs."
        ),
    ] = False,
    style: FormatFlag = "text",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File for the result (JSON).")] = None,
) -> None:
    """Scores a search: mAP and mP@1,5,10, equal to revisitop's.

    Without further flags it searches the latest extraction exactly. The 95 % interval of mAP and the settings that the
    score belongs to stand beside it.
    """
    from ultron_cli import console
    from ultron_cli.configs import one_of
    from ultron_cli.console import counted, dump_json, lines, print_result
    from ultron_cli.evaluation.evaluate import find_gnd, score_ranking, score_without
    from ultron_cli.evaluation.expected import comparison, comparison_text
    from ultron_cli.evaluation.explanation import explain
    from ultron_cli.evaluation.metrics import metrics_of
    from ultron_cli.evaluation.summaries import table_of_one
    from ultron_cli.files import write_text

    workspace = current_workspace()
    protocols = PROTOCOLS if protocol == "all" else (one_of("protocol", protocol, PROTOCOLS),)
    duplicates = one_of("duplicates", duplicates, DUPLICATES)
    style = one_of("format", style, FORMATS)
    needs_scores = any(part.needs_scores for part in metrics_of(metric or ()))
    if ranks:
        require_unused(
            "--ranks holds the search already",
            **{"queries": queries, "database": database, "distractors": distractors, "index": index, "k": k},
            **{"nprobe": nprobe, "ef_search": ef_search, "rescore": rescore, "rerank": rerank},
            **{"rerank_set": rerank_set, "local_features": local_features, "whiten": whiten, "dim": dim},
        )
    if index and distractors:
        raise UltronError(
            "an index holds the photos it was made from, --distractors cannot be added; leave out --index"
        )
    if ranks and ranks.suffix == ".csv":
        from ultron_cli.datasets.protocols import load_ground_truth
        from ultron_cli.evaluation.predictions import read_predictions

        if gnd is None:
            raise UltronError("--ranks of a CSV needs the solution that it is scored against; name it with --gnd")
        ranking = read_predictions(ranks, load_ground_truth(gnd))
    elif ranks:
        from ultron_cli.retrieval.rankings import read_ranks

        ranking = read_ranks(ranks)
    else:
        from ultron_cli.retrieval.rerank import parse_rerank
        from ultron_cli.retrieval.searching import SearchOptions, latest_descriptors, search_files
        from ultron_cli.retrieval.whitening import chosen_whitening

        options = SearchOptions(
            steps=parse_rerank(rerank, rerank_set or []),
            local_features=tuple(local_features or ()),
            whitening=chosen_whitening(whiten, dim),
            distractors=tuple(distractors or ()),
            index=index,
            leave_out_queries=leave_out_queries,
            index_settings=index_settings(nprobe, ef_search, rescore, index),
        )
        files = latest_descriptors(queries, database, workspace)
        ranking = search_files(*files, k, console.settings.device, options=options, rows_only=not needs_scores)
    scored = score_ranking(
        ranking,
        find_gnd(gnd, ranking.origin),
        protocols,
        duplicates,
        leave_out_queries=leave_out_queries,
        metrics=metric or (),
    )
    evaluation = scored.evaluation
    explained_protocol = "medium" if protocol == "all" else protocols[0]
    explanation = None
    if slices or ceilings:
        explanation = explain(scored, explained_protocol, slices or (), with_ceilings=ceilings)
    name = f"{evaluation.dataset}-{ranking.origin.model or 'ranks'}"
    made_by = {
        **evaluation.origin.to_json(),
        "protocols": protocols,
        "gnd": str(gnd) if gnd else None,
        "duplicates": duplicates,
        "leave_out_queries": leave_out_queries,
        **{name: value for name, value in {"metric": metric, "slices": slices, "ceilings": ceilings}.items() if value},
        **({"exclude": [str(path) for path in exclude]} if exclude else {}),
    }
    path = out or workspace.result_folder("evaluate", name, made_by) / "evaluation.json"
    content = evaluation.to_json() | (explanation.to_json() if explanation else {})
    without = score_without(scored, exclude, protocols, duplicates) if exclude else None
    if without:
        content["without_excluded"] = without.to_json()
    write_text(path, dump_json(content))
    workspace.remember("evaluate", path)
    if style in ("markdown", "latex", "csv"):
        print_result(content, table_of_one(evaluation, path, style))
        return
    shown = evaluation.text()
    how = evaluation.how_text()
    published = comparison(evaluation) if expected else None
    beside = comparison_text(published) if expected else ""
    if expected:
        content["expected"] = published.to_json() if published else None
    explained = explanation.text() if explanation else ""
    if without:
        n_excluded = evaluation.n_queries - without.n_queries
        shown = lines(shown, f"without {counted(n_excluded, 'excluded query', 'excluded queries')}:", without.text())
    shown = lines(shown, beside, explained, how, str(path))
    print_result(content, dump_json(content, ascii_only=True) if style == "json" else shown)
