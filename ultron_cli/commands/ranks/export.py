"""`ultron ranks export`: a ranking for another tool."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import EXPORTED_SCORES, PROTOCOLS, RANK_FORMATS
from ultron_cli.commands.flags import choice, number, require_unused
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron ranks export ranks.h5 --format trec --out run.trec
ultron ranks export ranks.h5 --format qrels --protocol medium --out medium.qrels
ultron ranks export self.h5 --format hloc --self -k 20 --out pairs.txt
"""


def command(
    ranks: Annotated[Path, typer.Argument(metavar="RANKS.h5", help="A rank file (`ultron search --out`).")],
    *,
    format_name: Annotated[
        str,
        choice(
            RANK_FORMATS,
            "--format",
            help="What reads the file; qrels are the positives of the ground truth, for tools that read trec.",
            more_names=("qrels",),
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    k: Annotated[int | None, number("-k", help="Photos per query (all).", low=1)] = None,
    protocol: Annotated[
        str | None, choice(PROTOCOLS, help="Leave out the photos that this protocol ignores; needed for qrels.")
    ] = None,
    gnd: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ground truth of --protocol (that of the extraction).")
    ] = None,
    is_self: Annotated[
        bool,
        typer.Option(
            "--self",
            help="The photos were searched among themselves: none is paired with itself, and each pair stands once.",
        ),
    ] = False,
    scores: Annotated[
        str,
        choice(
            EXPORTED_SCORES,
            help="Scores that do not fall are lowered by the least, so that tools that order by score keep the "
            "ranking, or written as stored.",
        ),
    ] = "falling",
) -> None:
    """Writes a ranking, or pairs of photos, for other tools.

    trec, csv, ranx, json and ilias hold rankings. hloc, colmap and kapture hold pairs of files, with their suffixes.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import counted, print_result
    from ultron_cli.evaluation.evaluate import find_gnd
    from ultron_cli.evaluation.judgements import positives_of, without_ignored
    from ultron_cli.retrieval.exchange.exporting import ExportRequest, export_ranking, write_judgements
    from ultron_cli.retrieval.rankings import read_ranks

    if protocol is None:
        if format_name == "qrels":
            raise UltronError("which photos are positives depends on the protocol; name one with --protocol")
        require_unused("the ground truth tells which photos a protocol ignores, and none is named", gnd=gnd)
    if format_name == "qrels":
        require_unused(
            "qrels hold positives and no ranking",
            k=k,
            is_self=is_self or None,
            scores=None if scores == "falling" else scores,
        )
    request = ExportRequest(format=format_name, k=k, is_self=is_self, scores=one_of("scores", scores, EXPORTED_SCORES))
    ranking = read_ranks(ranks)
    if protocol is None:
        exported = export_ranking(ranking, out, request)
    else:
        path = find_gnd(gnd, ranking.origin)
        protocol = one_of("protocol", protocol, PROTOCOLS)
        if format_name == "qrels":
            exported = write_judgements(positives_of(ranking, path, protocol), out)
        else:
            exported = export_ranking(without_ignored(ranking, path, protocol), out, request)
    print_result(
        {"file": str(out), "format": format_name, "protocol": protocol, **exported.to_json()},
        f"{out}: {counted(exported.n_lines, 'photo')} of {counted(exported.n_queries, 'query', 'queries')}",
    )
