"""`ultron evaluate`: a search to mAP."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.errors import UltronError


def evaluate(
    *,
    protocol: Annotated[str, typer.Option(metavar="easy|medium|hard|all", help="Protocol of Revisited Oxford and Paris.")] = "all",
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    ranks: Annotated[Path | None, typer.Option(help="A rank file instead of descriptors.")] = None,
    gnd: Annotated[Path | None, typer.Option(help="Ground truth (that of the extraction).")] = None,
    duplicates: Annotated[
        str, typer.Option(metavar="count|first", help="Photos that a ranking repeats: each counts, as in revisitop, or only the first.")
    ] = "count",
    out: Annotated[Path | None, typer.Option(help="File for the result (JSON).")] = None,
) -> None:
    """mAP and mP@1,5,10 of the latest extraction, equal to revisitop's, with the settings that the score belongs to."""
    from ultron_cli import console, workspace
    from ultron_cli.configs import one_of
    from ultron_cli.console import dump_json, lines, print_result, table
    from ultron_cli.datasets.protocols import PROTOCOLS
    from ultron_cli.evaluation.evaluate import NamedRanking, evaluate_ranking, find_gnd, report_rows
    from ultron_cli.files import write_text
    from ultron_cli.retrieval.extract_dataset import protocol_text

    one_of("--protocol", protocol, (*PROTOCOLS, "all"))
    one_of("--duplicates", duplicates, ("count", "first"))
    if ranks and (queries or database):
        raise UltronError("--ranks holds the search already; leave out --queries and --database")
    if ranks:
        from ultron_cli.retrieval.ranks import read_ranks

        stored = read_ranks(ranks)
        named = NamedRanking(rows=stored.ranking.rows, query_names=stored.query_names, database_names=stored.database_names, origin=stored.provenance)
    else:
        from ultron_cli.retrieval.searching import latest_descriptors, search_files

        found = search_files(*latest_descriptors(queries, database), None, console.settings.device)
        named = NamedRanking(rows=found.ranking.rows, query_names=found.query_names, database_names=found.database_names, origin=found.origin)
    report = evaluate_ranking(named, find_gnd(gnd, named.origin), tuple(PROTOCOLS) if protocol == "all" else (protocol,), duplicates)
    name = f"{report['dataset']}-{named.origin.get('model', 'ranks')}".replace("/", "_")
    path = out or workspace.result_folder("evaluate", name) / "evaluation.json"
    write_text(path, dump_json(report))
    workspace.remember("evaluate", path)
    config = named.origin.get("config")
    shown = table(("protocol", "mAP", "mP@1", "mP@5", "mP@10", "queries"), report_rows(report))
    how = f"{named.origin.get('model', 'model not recorded')} on {report['dataset']}, {report['n_database']:,} photos: "
    how += protocol_text(config) if config else "protocol not recorded"
    print_result(report, lines(shown, how, str(path)))
