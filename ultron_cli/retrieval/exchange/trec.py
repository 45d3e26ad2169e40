"""Runs and relevance judgements of TREC: `query Q0 photo rank score tag`, and `query 0 photo 1`.

trec_eval, ir-measures and ranx read the scores, not the ranks; equal scores they order each in its own way.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.run import NamedRanking, NamedRun, RankFormat, RunBuilder, score_of
from ultron_cli.schema.tables import spaced_lines

FIELDS = "query, Q0, photo, rank, score, tag"


def read(path: Path) -> NamedRun:
    """A run. The order of its lines stays; ranks are not read. Raises UltronError, naming the line."""
    run = RunBuilder(path)
    for number, fields in spaced_lines(path, "run", if_unreadable="save it as a run of TREC in UTF-8"):
        where = f", line {number}"
        if len(fields) != 6:
            raise UltronError(
                f"{path}{where} must have the six fields of a TREC run ({FIELDS}), found {len(fields)}; correct the "
                "line, or name another `format`"
            )
        query, _, photo, _, score, _ = fields
        run.add(query, photo, score_of(score, path, where), where)
    return run.run()


def write(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """A run."""
    word = re.sub(r"\s", "_", tag) or "ultron"
    for ranking in rankings:
        yield "".join(
            f"{ranking.query} Q0 {photo} {rank} {score} {word}\n"
            for rank, (photo, score) in enumerate(zip(ranking.photos, ranking.scores, strict=True), start=1)
        )


def judgements_text(positives: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Relevance judgements (qrels) of (query, its positives)."""
    for query, photos in positives:
        yield "".join(f"{query} 0 {photo} 1\n" for photo in photos)


# The tools are programs of C and of Python, which take other characters for blanks.
FORMAT = RankFormat(
    write=write, read=read, unfit=re.compile(r"[\s\ud800-\udfff]"), unfit_rule="a name without blanks, in UTF-8"
)
