"""Readers of rankings that other tools wrote."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import Mutation, mutate_bytes, mutate_json
from tests.fuzz.reader import Make, Reader, text_file

TRUTH = {"imlist": ["a", "b", "c.jpg", "d e"], "qimlist": ["p", "q"], "gnd": [{"easy": [0], "hard": []}] * 2}
SCORES = {"p": {"a": 0.5, "b": 0.25, "c": 1}, "q": {"x/d e": -1e-3, "z": -2}}
RESULTS = {
    "results": [
        {"query": query, "photos": [{"rank": 1, "name": photo, "score": score} for photo, score in scores.items()]}
        for query, scores in SCORES.items()
    ]
}
ILIAS = {
    "query_ids": np.array(["p", "q"]),
    "db_ids": np.array(["a", "c.png", "z"], object),
    "sims": np.array([[0.5, 0.25], [1, 0]], np.float32),
    "ranks": np.array([[0, 1], [2, 0]]),
}
RUN = "p Q0 a 1 0.5 t\np Q0 b 2 0.25 t\n\nq\tQ0 c 1 -1e-3 t\r\n"
TABLE = 'query,photo,score\np,a,0.5\np,"d e",0.25\nq,c,-1e-3\n'
PAIRS = "# kapture format: 1.1\n# query_image, map_image, score\np, a, 0.5\np, d e, 0.25\nq, c.jpg, -1e-3\n"


def _import(file: str, format_name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        from ultron_cli.retrieval.exchange.importing import ImportRequest, import_ranking
        from ultron_cli.retrieval.rankings import fault_in

        ranking = import_ranking(ImportRequest(path=folder / file, format=format_name, gnd=folder / "gnd_x.json"))
        scores, n_photos = ranking.with_scores(), len(ranking.database_names)
        assert fault_in(ranking.rows, scores, len(ranking.query_names), n_photos) is None
        assert (scores[:, 1:] <= scores[:, :-1]).all()
        assert len(set(ranking.database_names)) == n_photos

    return read


def _reader(file: str, format_name: str, *makes: Make, mutations: tuple[Mutation, ...] = (mutate_bytes,)) -> Reader:
    truth = text_file("gnd_x.json", TRUTH)

    def with_truth(make: Make) -> Make:
        return lambda folder: (truth(folder), make(folder))

    return Reader(
        file=file,
        seeds=tuple(with_truth(make) for make in makes),
        read=_import(file, format_name),
        mutations=mutations,
    )


def _pickled(protocol: int, content: object) -> Make:
    return lambda folder: (folder / "x.pkl").write_bytes(pickle.dumps(content, protocol))


JSON = (mutate_bytes, mutate_json, mutate_json)
EXCHANGE_READERS: dict[str, Reader] = {
    "ranks-trec": _reader("x.txt", "trec", text_file("x.txt", RUN)),
    "ranks-csv": _reader(
        "x.csv",
        "csv",
        text_file("x.csv", TABLE),
        text_file("x.csv", TABLE.replace(",", ";")),
    ),
    "ranks-ranx": _reader("x.json", "ranx", text_file("x.json", SCORES), mutations=JSON),
    "ranks-json": _reader("x.json", "json", text_file("x.json", RESULTS), mutations=JSON),
    "ranks-ilias": _reader("x.json", "ilias", text_file("x.json", SCORES), mutations=JSON),
    "ranks-ilias-pickle": _reader(
        "x.pkl",
        "ilias",
        *(_pickled(protocol, ILIAS) for protocol in (0, 2, 4, 5)),
        _pickled(4, {**ILIAS, "query_ids": ["p", "q"], "db_ids": ["a", "b", "c"]}),
    ),
    "ranks-kapture": _reader("x.txt", "kapture", text_file("x.txt", PAIRS)),
}
