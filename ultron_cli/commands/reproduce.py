"""`ultron reproduce`: published scores, run again."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import ModelFlags, RunFlag, WeightsFlag, current_workspace
from ultron_cli.errors import UltronError, WorkFailed

EXAMPLE = """
ultron reproduce
ultron reproduce dolg-r101 --out dolg.json
ultron reproduce superglobal-r101-reranked/roxford5k --weights cvnet.pt
"""


def command(
    rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROW", help="Rows by name (dolg-r101/roxford5k), system (dolg-r101) or pattern (all)."),
    ] = None,
    *,
    descriptors: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder of queries.h5 and database.h5, beside those of the workspace; may be given again.",
        ),
    ] = None,
    gnd: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Ground truth, gnd_NAME.pkl (those of the data root); may be given again."),
    ] = None,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Descriptors of the million distractors, of one network; may be given again."
        ),
    ] = None,
    weights: WeightsFlag = None,
    run: RunFlag = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File for the result (JSON), a .md beside it.")
    ] = None,
) -> None:
    """Runs published scores again, with what is there.

    Lists the rows of the field's tables: ours, published, reproduced by others, what differs, and what a row lacks
    with the command that gets it. Nothing is downloaded. With --weights or --run, photos are described first.
    """
    from ultron_cli import console
    from ultron_cli.console import counted, dump_json, lines, print_result
    from ultron_cli.evaluation.reproduce import Sources, attempt, chosen_rows, descriptors_at_hand
    from ultron_cli.evaluation.reproduced_tables import markdown, shown
    from ultron_cli.files import write_text
    from ultron_cli.provenance import provenance

    workspace = current_workspace()
    row_list = chosen_rows(rows or [])
    folders = list(descriptors or [])
    if distractors and len({row.model for row in row_list if row.distractors}) != 1:
        raise UltronError("--distractors are of one network; name the rows of one system (dolg-r101)")
    if out and out.suffix == ".md":
        raise UltronError(f"--out names the JSON file, the Markdown table stands beside it; found {out}; name a .json")
    if weights or run:
        if len({(row.system, row.crop, row.scales) for row in row_list}) != 1:
            raise UltronError("--weights and --run are of one network; name the rows of one system (dolg-r101)")
        from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset

        model = ModelFlags(run=run, weights=weights).choice()
        for dataset in dict.fromkeys(row.dataset for row in row_list):
            request = ExtractRequest(
                dataset=dataset,
                crop="none" if row_list[0].crop == "none" else "bbx",
                scales=row_list[0].scales or None,
            )
            summary = extract_dataset(request, model, console.settings.device, workspace)
            folders.insert(0, Path(summary["files"]["database"]["path"]).parent)
    sources = Sources(workspace=workspace, folders=folders, ground_truths=gnd or [], distractors=distractors or [])
    at_hand = descriptors_at_hand(sources)
    attempts = [
        attempt(row, sources, at_hand, console.settings.device, lambda name: workspace.result_folder("reproduce", name))
        for row in row_list
    ]
    path = out or workspace.result_folder("reproduce", "+".join(rows or ["all"])) / "reproduce.json"
    table_path = path.with_suffix(".md")
    content: dict[str, object] = {"rows": [part.to_json() for part in attempts], "provenance": provenance()}
    write_text(path, dump_json(content))
    write_text(table_path, markdown(attempts))
    print_result(content, lines(shown(attempts), str(path), str(table_path)))
    if rows and not any(part.evaluation for part in attempts):
        raise WorkFailed(
            f"none of {counted(len(attempts), 'row')} could run; what is missing, and what gets it, is above"
        )
