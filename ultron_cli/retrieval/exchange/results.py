"""JSON as `ultron search --json` prints it: {"results": [{"query", "photos": [{"rank", "name", "score"}]}]}."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.retrieval.exchange.run import NamedRanking, NamedRun, RankFormat, RunBuilder
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import read_json


@dataclass(frozen=True, kw_only=True)
class _Photo:
    name: str
    score: float


@dataclass(frozen=True, kw_only=True)
class _Result:
    query: str
    photos: list[_Photo]


@dataclass(frozen=True, kw_only=True)
class _Results:
    results: list[_Result]


def read(path: Path) -> NamedRun:
    """Such results; the order of their lists stays. Raises UltronError, naming the place."""
    advice = "it must hold results as `ultron search --json` prints them; name another `format`"
    content = read_json(path, "run", _Results, advice=advice, most_bytes=MOST_LIST_BYTES)
    run = RunBuilder(path)
    for result in content.results:
        run.begin(result.query)
        for photo in result.photos:
            run.add(result.query, photo.name, photo.score, "")
    return run.run()


def write(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """Such results, a line per query."""
    yield '{"results": ['
    between = "\n"
    for ranking in rankings:
        pairs = zip(ranking.photos, ranking.scores, strict=True)
        photos = ", ".join(
            f'{{"rank": {rank}, "name": {json.dumps(photo)}, "score": {score}}}'
            for rank, (photo, score) in enumerate(pairs, start=1)
        )
        yield f'{between}{{"query": {json.dumps(ranking.query)}, "photos": [{photos}]}}'
        between = ",\n"
    yield "\n]}\n"


FORMAT = RankFormat(write=write, read=read)
