"""Photos of equal score: the best and the worst order bound what any order gives."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.ties import with_ties
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def gnd(tmp_path: Path) -> Path:
    path = tmp_path / "gnd_x.json"
    labels = [{"bbx": [0, 0, 9, 9], "easy": [1], "hard": [3], "junk": [4]}]
    path.write_text(json.dumps({"imlist": NAMES, "qimlist": ["q"], "gnd": labels}))
    return path


def ranking_of(rows: list[int], scores: list[float]) -> Ranking:
    return Ranking(
        query_names=["q"],
        database_names=NAMES,
        rows=np.array([rows]),
        scores=np.array([scores], np.float32),
        origin=Origin(),
    )


def test_positives_stand_first_or_last_among_equal_scores(gnd: Path) -> None:
    ranking = ranking_of([0, 1, 2, 3, 4], [0.9, 0.5, 0.5, 0.5, 0.1])
    assert with_ties(ranking, gnd, "best").rows.tolist() == [[0, 1, 3, 2, 4]]
    worst = with_ties(ranking, gnd, "worst")
    assert worst.rows.tolist() == [[0, 2, 1, 3, 4]] and worst.scores is not None
    assert worst.scores.tolist() == ranking.scores.tolist() and ranking.rows.tolist() == [[0, 1, 2, 3, 4]]
    assert worst.origin.ties == "worst" and Origin.from_json(worst.origin.to_json()).ties == "worst"
    assert with_ties(ranking, gnd, "row") is ranking
    with pytest.raises(ValueError, match="needs scores"):
        with_ties(replace(ranking, scores=None), gnd, "best")


def test_every_order_of_equal_scores_lies_between(gnd: Path) -> None:
    scores = [0.9, 0.5, 0.5, 0.5, 0.5]
    values = []
    for order in itertools.permutations([1, 2, 3, 4]):
        ranking = ranking_of([0, *order], scores)
        values.append([evaluate_ranking(ranking, gnd).protocols[name].mAP for name in ("easy", "medium", "hard")])
    bounds = [
        [
            evaluate_ranking(with_ties(ranking, gnd, ties), gnd).protocols[name].mAP
            for name in ("easy", "medium", "hard")
        ]
        for ties in ("worst", "best")
    ]
    assert np.allclose(bounds[0], np.min(values, axis=0)) and np.allclose(bounds[1], np.max(values, axis=0))
