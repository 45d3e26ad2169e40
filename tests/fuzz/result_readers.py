"""Readers of results: descriptors, whitenings, indexes, rankings, evaluations and reports."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.fuzz.hdf5_mutations import mutate_h5
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.reader import Make, Reader, json_part, json_reader, lazily, text_file
from tests.fuzz.sqlite_mutations import mutate_sqlite
from tests.fuzz.structures import mutate_faiss

if TYPE_CHECKING:
    from ultron_cli.retrieval.local_features.verified import Pair

SCORES = {"mAP": 0.5, "mP": {"1": 0.5, "10": None}, "queries_used": 2, "ap": {"a": 0.25, "b": 0.75, "c": None}}
ORIGIN = {
    "dataset": "t",
    "model": "gem-resnet50",
    "config": {
        "model": {"name": "gem", "settings": {"p": 3.0}},
        "scales": [0.7071, 1, 1.4142],
        "crop": "bbx",
        "max_side_px": 1024,
        "whitening": {"method": "lw", "dim": 8, "sha256": "0" * 64},
    },
    "weights": {"kind": "checkpoint", "path": "w.pt"},
    "search": {"method": "index", "kind": "ivf", "index": "i", "rerank": [{"name": "aqe", "n": 10, "ms_per_query": 1}]},
    "distractors": [{"path": "d.h5", "n": 1000, "dataset": "d"}],
    "skipped": [{"name": "x", "reason": "y"}],
    "k": 10,
}
EVALUATION = {
    "dataset": "t",
    "n_queries": 3,
    "n_database": 9,
    "protocols": {"easy": SCORES, "hard": SCORES},
    "provenance": ORIGIN,
}


def _compare(folder: Path) -> None:
    from ultron_cli.evaluation.result import Evaluation, read_evaluation
    from ultron_cli.evaluation.significance import compare_evaluations

    a, b = read_evaluation(folder / "a.json"), Evaluation.from_json(EVALUATION)
    for protocol in a.protocols:
        if protocol in b.protocols:
            compare_evaluations(a, b, protocol)
    a.origin.extraction.differences(b.origin.extraction)
    json.dumps(a.to_json())
    a.origin.search_text() + a.origin.extraction.protocol_text()


INDEX = {
    "format": "ultron-index",
    "version": 1,
    "kind": "flat",
    "factory": "Flat",
    "n": 3,
    "dim": 4,
    "search": {"nprobe": 0, "ef_search": 0, "rescore": 0},
    "whitening": None,
    "config": {"crop": "bbx"},
    "descriptors": {"path": "gone.h5", "size": 1, "mtime_ns": 2, "sha256": "0" * 64},
}
REPORT = {
    "kind": "ivf",
    "n": 10,
    "dim": 4,
    "n_queries": 2,
    "k": 10,
    "bytes_per_photo": 16.5,
    "exact_queries_per_s": 100.0,
    "model": "gem",
    "dataset": "toy",
    "rows": [{"nprobe": 1, "ef_search": 0, "rescore": 2, "recall": {"1": 0.5, "10": 1}, "queries_per_s": 10.5}],
}


def _index(folder: Path) -> None:
    import faiss

    index = faiss.index_factory(4, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(np.eye(3, 4, dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))
    text_file("index.json", INDEX)(folder)
    text_file("names.json", ["a", "b", "c"])(folder)


def _open_index(folder: Path) -> None:
    from ultron_cli.retrieval.index.opening import open_index

    open_index(folder).record()


OWN_INDEX = """
class Kind:
    def __init__(self, dim: int, bits: int = 8): ...
    def add(self, rows): ...
    def search(self, queries, k): ...
    def write(self, folder): ...
    def read(self, folder): ...
"""


def _index_of_user(folder: Path) -> None:
    (folder / "own.py").write_text(OWN_INDEX)
    code = {"sha256": hashlib.sha256(OWN_INDEX.encode()).hexdigest(), "file": "own.py"}
    shared = {key: value for key, value in INDEX.items() if key != "factory"}
    of_user = {"format": "ultron-index-of-user", "kind": "own.py:Kind", "settings": {"bits": 4}, "code": code}
    text_file("index.json", shared | of_user)(folder)
    text_file("names.json", ["a", "b", "c"])(folder)


def _open_index_of_user(folder: Path) -> None:
    from ultron_cli import user_code

    user_code.permit(str(folder / "own.py"))
    _open_index(folder)


def _recall_speed(folder: Path) -> None:
    from ultron_cli.visualization.curves.recall_speed import common_cut, lines_of, read_report

    report = read_report(folder / "report.json")
    lines_of(report, common_cut([report], None), "x")


def _latest(folder: Path) -> None:
    from ultron_cli.workspace import KINDS, Workspace

    for kind in KINDS:
        Workspace(root=folder).latest(kind)


MEASUREMENTS = "group,setting,seed,metric,value\ng,a,0,mAP,0.5\ng,a,1,mAP,0.25\n,b,0,mAP,0.5\n"


N, DIM = 40, 8


def _unit_rows() -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((N, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _write_descriptors(folder: Path) -> None:
    from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors

    info = DescriptorInfo(
        model="m", weights_sha256="", dataset="toy", role="database", crop="none", scales=[1.0], skipped=()
    )
    write_descriptors(folder / "x.h5", [f"Dom {i}" for i in range(N)], [_unit_rows()], DIM, info)


def _read_descriptors(folder: Path) -> None:
    from ultron_cli.retrieval.descriptors import DescriptorFile

    with DescriptorFile(folder / "x.h5") as file:
        assert len(file.names) == file.n
        file.take(np.arange(file.n))
        file.read()


def _write_ranks(folder: Path) -> None:
    from ultron_cli.retrieval.origin import Origin
    from ultron_cli.retrieval.rankings import Ranking, write_ranks

    rows = np.tile(np.arange(5), (3, 1))
    scores = -rows.astype(np.float32)
    ranking = Ranking(
        query_names=list("abc"), database_names=list("defgh"), rows=rows, scores=scores, origin=Origin(dataset="toy")
    )
    write_ranks(folder / "x.h5", ranking)


def _read_ranks(folder: Path) -> None:
    from ultron_cli.retrieval.rankings import read_ranks

    read_ranks(folder / "x.h5").names_of(0)


def _pairs() -> list["Pair"]:
    from ultron_cli.retrieval.local_features.verified import Pair

    return [Pair(f"q{row % 2}", row, "p", other) for row in range(6) for other in range(40)]


def _write_pairs(folder: Path) -> None:
    from ultron_cli.local.verification import VerifySettings
    from ultron_cli.retrieval.local_features.verified import PairResult, VerifiedPairs

    with VerifiedPairs(folder / "x.db", VerifySettings()) as store:
        store.add({pair: PairResult(40, 20, pair.photo_row % 20) for pair in _pairs()})


def _read_pairs(folder: Path) -> None:
    """What is there of it is right, and what is not is put there."""
    from ultron_cli.local.verification import VerifySettings
    from ultron_cli.retrieval.local_features.verified import PairResult, VerifiedPairs

    with VerifiedPairs(folder / "x.db", VerifySettings()) as store:
        known = store.known(_pairs())
        assert all(0 <= result.score <= result.n_inliers <= result.n_matches for result in known.values())
        store.add({pair: PairResult(1, 1, 1) for pair in _pairs() if pair not in known})


def _write_local(folder: Path) -> None:
    from tests.retrieval.local_features.rows_for_tests import write_drawn
    from ultron_cli.local.projection import Projection

    write_drawn(
        folder / "x.h5", projection=Projection(mean=np.zeros(3, np.float32), matrix=np.ones((8, 3), np.float32))
    )


def _read_local(folder: Path) -> None:
    from ultron_cli.retrieval.local_features.files import open_local_features

    with open_local_features(folder / "x.h5") as file:
        assert len(file.names) == file.n
        assert sum(len(features) for _, block in file.blocks(3) for features in block) == file.n_features
        file.projection  # noqa: B018
        file.marks  # noqa: B018


def _write_words(folder: Path) -> None:
    from ultron_cli.local.asmk import PhotoVectors
    from ultron_cli.retrieval.local_features.words import StoredWords, write_words

    content = PhotoVectors(np.ones((5, 1), np.uint32), np.array([0, 2, 1, 2, 0]), np.array([0, 0, 1, 1, 2]))
    write_words(folder / "x.h5", StoredWords(np.ones((3, 8), np.float32), content), "0" * 64)


def _read_words(folder: Path) -> None:
    from ultron_cli.retrieval.local_features.words import read_words

    read_words(folder / "x.h5", "0" * 64, 3)


def _write_whitening(folder: Path) -> None:
    from ultron_cli.retrieval.whitening import Whitening, write_whitening

    whitening = Whitening(method="pca-whitening", mean=np.zeros(4), projection=np.eye(4), eigenvalues=np.ones(4))
    write_whitening(folder / "x.h5", whitening)


def _read_whitening(folder: Path) -> None:
    from ultron_cli.retrieval.whitening import read_whitening

    read_whitening(folder / "x.h5")


def _write_index(kind: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from ultron_cli.retrieval.index.building import build_index

        _write_descriptors(folder)
        build_index(folder / "x.h5", folder / "x.index", kind=kind)
        for path in (folder / "x.index").iterdir():
            path.rename(folder / path.name)
        (folder / "x.index").rmdir()
        (folder / "x.h5").unlink()

    return write


def _search_index(folder: Path) -> None:
    from ultron_cli.retrieval.index.opening import open_index

    open_index(folder).search(_unit_rows()[:3], 5)


def _h5_reader(make: Make, read: Callable[[Path], object]) -> Reader:
    return Reader(
        file="x.h5", seeds=(make,), read=read, mutations=(mutate_bytes, mutate_h5, mutate_h5), is_guarded=True
    )


RESULT_READERS: dict[str, Reader] = {
    "evaluation": json_reader("a.json", EVALUATION, read=_compare),
    "latest": json_reader("latest.json", {"train": "train/x", "extract": "/x/y", "index": "z"}, read=_latest),
    "index-json": json_part("index.json", _index, read=_open_index),
    "index-json-of-user": json_part("index.json", _index_of_user, read=_open_index_of_user),
    "index-names": json_part("names.json", _index, read=_open_index),
    "index-report": json_reader("report.json", REPORT, read=_recall_speed),
    "measurements": Reader(
        file="m.csv",
        seeds=(text_file("m.csv", MEASUREMENTS),),
        read=lazily("visualization.curves.ablation_bars", "read_measurements", "m.csv"),
    ),
    "descriptors": _h5_reader(_write_descriptors, _read_descriptors),
    "ranks": _h5_reader(_write_ranks, _read_ranks),
    "verified-pairs": Reader(
        file="x.db", seeds=(_write_pairs,), read=_read_pairs, mutations=(mutate_bytes, mutate_sqlite, mutate_sqlite)
    ),
    "local-features": _h5_reader(_write_local, _read_local),
    "asmk-words": _h5_reader(_write_words, _read_words),
    "whitening": _h5_reader(_write_whitening, _read_whitening),
    "index-faiss": Reader(
        file="index.faiss",
        seeds=tuple(_write_index(kind) for kind in ("flat", "sq8", "IVF4,PQ4x3np", "HNSW8,SQ8", "IDMap,Flat")),
        read=_search_index,
        mutations=(mutate_bytes, mutate_faiss, mutate_faiss),
    ),
}
