"""Pairs of photos to be matched, as programs that reconstruct scenes read them: hloc and COLMAP `photo photo`, kapture
`photo, photo, score`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.run import NamedRanking, NamedRun, RankFormat, RunBuilder, score_of
from ultron_cli.schema.tables import csv_lines

KAPTURE_HEADER = "# kapture format: 1.1\n# query_image, map_image, score\n"


def write(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """Pairs, a line each."""
    for ranking in rankings:
        yield "".join(f"{ranking.query} {photo}\n" for photo in ranking.photos)


def write_kapture(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """A pairs file of kapture."""
    yield KAPTURE_HEADER
    for ranking in rankings:
        pairs = zip(ranking.photos, ranking.scores, strict=True)
        yield "".join(f"{ranking.query}, {photo}, {score}\n" for photo, score in pairs)


def read_kapture(path: Path) -> NamedRun:
    """A pairs file of kapture; the order of its lines stays. Raises UltronError, naming the line."""
    run = RunBuilder(path)
    for number, fields in csv_lines(path, "pairs file", if_absent="check the path", if_unreadable="save it in UTF-8"):
        where = f", line {number}"
        if fields[0].startswith("#") or not any(field.strip() for field in fields):
            continue
        if len(fields) != 3:
            raise UltronError(
                f"{path}{where} must have three fields (query, photo, score), found {len(fields)}; correct the line, "
                "or name another `format`"
            )
        query, photo, score = (field.strip() for field in fields)
        run.add(query, photo, score_of(score, path, where), where)
    return run.run()


HLOC = RankFormat(
    write=write,
    unfit=re.compile(r"[\s\ud800-\udfff]"),
    unfit_rule="a name without blanks, in UTF-8",
    is_pairs=True,
    has_scores=False,
)
COLMAP = RankFormat(
    write=write,
    unfit=re.compile(r"^#|[\s\ud800-\udfff]"),
    unfit_rule="a name without blanks, in UTF-8, that does not begin with #",
    is_pairs=True,
    has_scores=False,
)
KAPTURE = RankFormat(
    write=write_kapture,
    read=read_kapture,
    unfit=re.compile(r'^[#\s"]|\s$|[,\r\n\ud800-\udfff]'),
    unfit_rule="a name in UTF-8 on one line, without commas, that neither begins nor ends with a blank nor begins "
    'with # or "',
    is_pairs=True,
)
