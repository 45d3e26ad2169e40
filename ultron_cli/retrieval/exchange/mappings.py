"""JSON of {query: {photo: score}}, as ranx and ILIAS write it, and the pickles of ILIAS."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.run import NamedRanking, NamedRun, RankFormat, RunBuilder
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import read_json

ADVICE = "it must be an object of objects, {query: {photo: score}}; name another `format`"
PICKLES = (".pkl", ".pickle", ".pk")


def read(path: Path) -> NamedRun:
    """A mapping in JSON; the order of its keys stays. Raises UltronError, naming the place."""
    content = read_json(path, "run", dict[str, dict[str, float]], advice=ADVICE, most_bytes=MOST_LIST_BYTES)
    run = RunBuilder(path)
    for query, scores in content.items():
        run.begin(query)
        for photo, score in scores.items():
            run.add(query, photo, score, "")
    return run.run()


def write(rankings: Iterable[NamedRanking], tag: str) -> Iterator[str]:
    """A mapping, a line per query."""
    yield "{"
    between = "\n"
    for ranking in rankings:
        pairs = zip(ranking.photos, ranking.scores, strict=True)
        scores = ", ".join(f"{json.dumps(photo)}: {score}" for photo, score in pairs)
        yield f"{between}{json.dumps(ranking.query)}: {{{scores}}}"
        between = ",\n"
    yield "\n}\n"


def read_ilias(path: Path) -> NamedRun:
    """Similarities of ILIAS: a mapping in JSON, or a pickle by its suffix. Raises UltronError."""
    return _read_pickle(path) if path.suffix.lower() in PICKLES else read(path)


def _read_pickle(path: Path) -> NamedRun:
    """{"query_ids", "db_ids", "sims", "ranks"}, as knn_search writes it; `similarities` instead of `sims`, as the
    program of the evaluation calls it."""
    content = load_plain_pickle(path, "similarities of ILIAS", "write them as JSON")
    parts = content if isinstance(content, dict) else {}
    queries, photos = (_names(parts.get(key)) for key in ("query_ids", "db_ids"))
    scores, ranks = (_table(part) for part in (parts.get("sims", parts.get("similarities")), parts.get("ranks")))
    run = RunBuilder(path)
    if (
        len(scores) == len(queries) == len(set(queries))
        and scores.shape == ranks.shape
        and len(photos) == len(set(photos))
        and ranks.dtype.kind in "iu"
        and (not ranks.size or 0 <= int(ranks.min()) <= int(ranks.max()) < len(photos))
    ):
        for query, row_scores, row_ranks in zip(queries, scores.tolist(), ranks.tolist(), strict=True):
            run.begin(query)
            for photo, score in zip(row_ranks, row_scores, strict=True):
                run.add(query, photos[photo], score, "")
        return run.run()
    raise UltronError(
        f"{path} must hold query_ids (Q,), db_ids (N,), sims (Q, K) and ranks (Q, K), rows of db_ids, as ILIAS writes "
        "them; write the similarities as JSON"
    )


def _names(value: object) -> list[str]:
    """A list or a one-dimensional array of names; empty if it is none."""
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim == 1 else None
    if not isinstance(value, (list, tuple)):
        return []
    names = [name for name in value if isinstance(name, str)]
    return names if len(names) == len(value) else []


def _table(value: object) -> np.ndarray:
    """A two-dimensional array of numbers; empty if it is none."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "fiu":
        return value
    return np.empty((0, 0))


RANX = RankFormat(write=write, read=read)
ILIAS = RankFormat(write=write, read=read_ilias)
