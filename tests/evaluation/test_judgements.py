"""Other tools on our runs and judgements: P@k is ours where the last positive stands at k or behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import random_truth, stable_ranks
from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.evaluation.judgements import positives_of, without_ignored
from ultron_cli.evaluation.metrics import PRECISION_AT, revisited_map
from ultron_cli.retrieval.exchange.exporting import ExportRequest, export_ranking, write_judgements
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

PROTOCOLS: tuple[Protocol, ...] = ("easy", "medium", "hard")
MEASURE = """
import json, sys
from ranx import Qrels, Run, evaluate
names = [f"precision@{k}" for k in (1, 5, 10)]
for protocol in ("easy", "medium", "hard"):
    judgements = Qrels.from_file(f"{protocol}.qrels", kind="trec")
    for kind in ("trec", "json"):
        run = Run.from_file(f"{protocol}.{kind}", kind=kind).make_comparable(judgements)
        evaluate(judgements, run, names)
        print(json.dumps([protocol, {name: dict(run.scores[name]) for name in names}]))
"""


def searched(n_photos: int = 60) -> tuple[GroundTruth, Ranking]:
    """Full rankings with many ties, also between positives and others; some queries have no labels at all."""
    rng = np.random.default_rng(5)
    truth = random_truth(rng, 30, n_photos, 40)
    scores = rng.normal(size=(30, n_photos)).round(1).astype(np.float32)
    rows = stable_ranks(scores)
    ranking = Ranking(
        query_names=truth.query_names,
        database_names=truth.database_names,
        rows=rows,
        scores=np.take_along_axis(scores, rows, axis=1),
        origin=Origin(dataset="set"),
    )
    return truth, ranking


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, list[float]]]]:
    """A folder with run and judgements of each protocol, and our P@k of the queries whose last positive is at 10 or
    behind."""
    folder = tmp_path_factory.mktemp("runs")
    truth, ranking = searched()
    precision = {}
    for protocol in PROTOCOLS:
        judged = without_ignored(ranking, truth, protocol)
        for format_name, suffix in (("trec", "trec"), ("ranx", "json")):
            export_ranking(judged, folder / f"{protocol}.{suffix}", ExportRequest(format=format_name))
        write_judgements(positives_of(ranking, truth, protocol), folder / f"{protocol}.qrels")
        result = revisited_map(ranking.rows, truth, protocol)
        precision[protocol] = {}
        for query, name in enumerate(truth.query_names):
            places = np.flatnonzero(np.isin(judged.rows[query], truth.split(query, protocol)[0]))
            if len(places) and places[-1] >= max(PRECISION_AT) - 1:
                precision[protocol][name] = result.precision[query].tolist()
        assert len(precision[protocol]) > 15
    return folder, precision


def test_ir_measures_agrees_on_precision(written: tuple[Path, dict[str, dict[str, list[float]]]]) -> None:
    ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    folder, precision = written
    measures = {ir_measures.P @ k: i for i, k in enumerate(PRECISION_AT)}
    for protocol, of_queries in precision.items():
        judgements = list(ir_measures.read_trec_qrels(str(folder / f"{protocol}.qrels")))
        run = list(ir_measures.read_trec_run(str(folder / f"{protocol}.trec")))
        n_equal = 0
        for value in ir_measures.iter_calc(list(measures), judgements, run):
            if value.query_id in of_queries:
                assert value.value == pytest.approx(of_queries[value.query_id][measures[value.measure]], abs=1e-12)
                n_equal += 1
        assert n_equal == 3 * len(of_queries)


@pytest.mark.slow
def test_ranx_agrees_on_precision(written: tuple[Path, dict[str, dict[str, list[float]]]]) -> None:
    """In a process of its own, uncompiled: compiling takes minutes."""
    pytest.importorskip("numba", reason="ranx is not installed")
    folder, precision = written
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "IR_DATASETS_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 6
    for protocol, values in lines:
        for i, k in enumerate(PRECISION_AT):
            for query, of_query in precision[protocol].items():
                assert values[f"precision@{k}"][query] == pytest.approx(of_query[i], abs=1e-12)


def test_ignored_photos_leave_and_distractors_stay() -> None:
    truth, ranking = searched()
    names = [*truth.database_names, "distractor:x"]
    rows = np.concatenate([np.full((30, 1), 60), ranking.rows], axis=1)
    scores = np.concatenate([np.full((30, 1), 99, np.float32), ranking.with_scores()], axis=1)
    wider = Ranking(
        query_names=truth.query_names[::-1],
        database_names=names,
        rows=rows[::-1],
        scores=scores[::-1],
        origin=Origin(dataset="set"),
    )
    judged = without_ignored(wider, truth, "hard")
    for query, name in enumerate(judged.query_names):
        ignored = truth.split(truth.query_names.index(name), "hard")[1]
        expected = [row for row in wider.rows[query].tolist() if row not in ignored.tolist()]
        assert judged.rows[query, : len(expected)].tolist() == expected
        assert (judged.rows[query, len(expected) :] == -1).all()
    with_some = [name for name, query in zip(truth.query_names, truth.queries, strict=True) if len(query.hard)]
    assert [name for name, _ in positives_of(wider, truth, "hard")] == with_some
