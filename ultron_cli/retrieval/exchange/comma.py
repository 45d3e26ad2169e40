"""Rankings as CSV: the columns query, photo and score, best first; a reader lets further columns pass."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ultron_cli.retrieval.exchange.run import NamedRanking, NamedRun, RankFormat, RunBuilder, score_of
from ultron_cli.schema.tables import csv_rows

COLUMNS = ("query", "photo", "score")


def read(path: Path) -> NamedRun:
    """A table of rankings; the order of its lines stays. Raises UltronError, naming the line."""
    run = RunBuilder(path)
    for number, row in csv_rows(path, "table", required=[COLUMNS], delimiters=",;\t"):
        where = f", line {number}"
        run.add(row["query"], row["photo"], score_of(row["score"], path, where), where)
    return run.run()


def write(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """Such a table."""
    yield ",".join(COLUMNS) + "\n"
    for ranking in rankings:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        pairs = zip(ranking.photos, ranking.scores, strict=True)
        writer.writerows((ranking.query, photo, score) for photo, score in pairs)
        yield text.getvalue()


FORMAT = RankFormat(
    write=write,
    read=read,
    unfit=re.compile(r"^\s|\s$|[\0\r\n\ud800-\udfff]"),
    unfit_rule="a name in UTF-8 on one line that neither begins nor ends with a blank",
)
