"""Scoring a ranking of named photos: large ones in bounded memory."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking, ranking_against, score_ranking, score_without
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

N, N_QUERIES = 20_000, 200


def test_a_ranking_is_scored_without_a_second_table(tmp_path: Path) -> None:
    """Every photo ranked for every query: beside the names only a few rows are held at a time."""
    rng = np.random.default_rng(0)
    names = [f"{i:05d}" for i in range(N)]
    queries = [f"query{i}" for i in range(N_QUERIES)]
    truth = [{"bbx": None, "easy": [i, i + 100], "hard": [i + 200], "junk": [i + 300]} for i in range(N_QUERIES)]
    gnd = tmp_path / "gnd_set.json"
    gnd.write_text(json.dumps({"imlist": names, "qimlist": queries, "gnd": truth}))
    order = rng.permutation(N)  # the ranking's database is in another order than the ground truth's
    rows = np.stack([rng.permutation(N).astype(np.int32) for _ in queries])
    ranking = Ranking(
        query_names=queries[::-1],
        database_names=[names[i] for i in order],
        rows=rows,
        scores=None,
        origin=Origin(dataset="set"),
    )
    tracemalloc.start()
    evaluation = evaluate_ranking(ranking, gnd, ("medium",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < evaluation.protocols["medium"].mAP < 0.05
    assert peak < 0.75 * rows.nbytes  # what the names take; a second table would be as large as the first


def test_rows_are_those_of_the_ground_truth_and_padding_stays(tmp_path: Path) -> None:
    gnd = tmp_path / "gnd_set.json"
    entry = {"bbx": None, "easy": [0], "hard": [], "junk": []}
    gnd.write_text(json.dumps({"imlist": ["a", "b", "c"], "qimlist": ["p", "q"], "gnd": [entry, entry]}))
    ranking = Ranking(
        query_names=["q", "p"],
        database_names=["stranger", "c", "b"],
        rows=np.array([[1, 0, 2], [2, 1, -1]]),
        scores=None,
        origin=Origin(dataset="set"),
    )
    truth, rows = ranking_against(ranking, gnd)
    assert truth.query_names == ["p", "q"]
    assert rows.shape == (2, 3)
    assert rows[0].tolist() == [1, 2, -1]  # b and c, then no photo
    assert rows[1].tolist() == [2, 3, 1]  # c, a distractor behind the three, b
    assert rows[:].tolist() == [[1, 2, -1], [2, 3, 1]]


def test_repeats_are_told_with_what_they_do(tmp_path: Path) -> None:
    gnd = tmp_path / "gnd_set.json"
    entry = {"bbx": None, "easy": [0], "hard": [], "junk": []}
    gnd.write_text(json.dumps({"imlist": ["a", "b", "c"], "qimlist": ["p", "q"], "gnd": [entry, entry]}))
    ranking = Ranking(
        query_names=["p", "q"],
        database_names=["a", "b", "c"],
        rows=np.array([[1, 0, 0], [0, 1, 2]]),
        scores=None,
        origin=Origin(dataset="set"),
    )
    text = "1 ranking names a photo more than once, for example that of p; "
    harmless = evaluate_ranking(ranking, gnd)
    assert harmless.warnings[0] == (
        f"{text}each repeat counts, as in revisitop; name each photo once, or count only the first with `duplicates` "
        "first"
    )
    ranking.rows[0] = [0, 0, 0]
    counted = evaluate_ranking(ranking, gnd)
    assert counted.warnings[0].startswith(f"{text}each repeat counts, as in revisitop, which takes AP up to 300.00 %; ")
    assert counted.protocols["easy"].ap == {"p": 3.0, "q": 1.0}
    first = evaluate_ranking(ranking, gnd, duplicates="first")
    assert first.warnings[0] == f"{text}only the first counts"
    assert first.protocols["easy"].mAP == 1


def test_listed_queries_are_left_out_of_the_second_score(tmp_path: Path) -> None:
    gnd = tmp_path / "gnd_set.json"
    entry = {"bbx": None, "easy": [0], "hard": [], "junk": []}
    gnd.write_text(json.dumps({"imlist": ["a", "b", "c"], "qimlist": ["p/1.jpg", "q/2.jpg"], "gnd": [entry, entry]}))
    ranking = Ranking(
        query_names=["q/2.jpg", "p/1.jpg"],
        database_names=["a", "b", "c"],
        rows=np.array([[1, 0, 2], [0, 1, 2]]),
        scores=None,
        origin=Origin(dataset="set"),
    )
    scored = score_ranking(ranking, gnd, ("easy",))
    assert scored.evaluation.protocols["easy"].ap == {"p/1.jpg": 1.0, "q/2.jpg": 0.25}
    for listed, ap in (("1.jpg\nother.jpg", {"q/2.jpg": 0.25}), ("q/2.jpg", {"p/1.jpg": 1.0}), ("2", {"p/1.jpg": 1.0})):
        (tmp_path / "list.txt").write_text(listed)
        without = score_without(scored, [tmp_path / "list.txt"], ("easy",))
        assert without.protocols["easy"].ap == ap and without.n_queries == 1
    (tmp_path / "list.txt").write_text("stranger")
    with pytest.raises(UltronError, match=r"list\.txt names none of 2 queries; check `exclude`"):
        score_without(scored, [tmp_path / "list.txt"], ("easy",))
    (tmp_path / "list.txt").write_text("1.jpg\n2.jpg")
    with pytest.raises(UltronError, match="leaves none of 2 queries"):
        score_without(scored, [tmp_path / "list.txt"], ("easy",))
