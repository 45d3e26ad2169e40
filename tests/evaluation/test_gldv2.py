"""The published CSVs of GLDv2: solutions as ground truths, predictions as rankings; and classic ground truths."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.predictions import read_predictions
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

RETRIEVAL = "id,images,Usage\n01,a b,Private\n02,a,Private\n03,c d e,Public\n04,c,Public\n05,None,Ignored\n"
RECOGNITION = (
    "id,landmarks,Usage\n01,0 12,Private\n02,100 200 300,Private\n03,1,Private\n04,,Private\n05,,Private\n06,,Ignored\n"
)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_worked_example_of_retrieval_from_its_files(ultron: Run, tmp_path: Path) -> None:
    """That of metrics_test.py, as CSVs; the parts are means over half of the queries each."""
    gnd = written(tmp_path / "retrieval_solution_v2.1.csv", RETRIEVAL)
    ranks = written(tmp_path / "mine.csv", "id,images\n02,z a\n03,d\n04,c d \n05,a\n01,\n")
    result = read_json(ultron("evaluate", "--ranks", ranks, "--gnd", gnd, "--json"))
    metrics = result["protocols"]["medium"]["metrics"]
    assert metrics["mAP@100"]["score"] == pytest.approx(0.458333, abs=1e-6)
    assert metrics["mAP@100"]["values"] == {"01": 0, "02": 0.5, "03": pytest.approx(1 / 3), "04": 1}
    assert metrics["mAP@100 Private"]["score"] == pytest.approx(0.25)
    assert metrics["mAP@100 Private"]["values"] == {"01": 0, "02": 0.5, "03": None, "04": None}
    assert metrics["mAP@100 Public"]["score"] == pytest.approx(2 / 3)
    assert result["protocols"]["hard"]["metrics"]["mAP@100"]["score"] is None
    code, out, _ = ultron("evaluate", "--ranks", ranks, "--gnd", gnd)
    assert code == 0 and "mAP@100 Private" in out and "hard       mAP@100" not in out


def test_the_worked_example_of_recognition_from_its_files(ultron: Run, tmp_path: Path) -> None:
    gnd = written(tmp_path / "recognition_solution_v2.1.csv", RECOGNITION)
    ranks = written(tmp_path / "mine.csv", "id,landmarks\n02,0 0.01\n03,1 10.0\n04,150 15.0\n05,\n06,1 99\n")
    result = read_json(
        ultron("evaluate", "--ranks", ranks, "--gnd", gnd, "--json", "--metric", "GAP", "--metric", "recall@1")
    )
    metrics = result["protocols"]["medium"]["metrics"]
    assert metrics["GAP"] == {"score": pytest.approx(0.166667, abs=1e-6)}
    assert metrics["recall@1"]["score"] == pytest.approx(1 / 3)
    with_default = read_json(ultron("evaluate", "--ranks", ranks, "--gnd", gnd, "--json"))
    assert list(with_default["protocols"]["medium"]["metrics"]) == ["GAP", "GAP Private"]


def test_photos_are_known_by_their_ids(tmp_path: Path) -> None:
    gnd = written(tmp_path / "s.csv", RETRIEVAL)
    ranking = Ranking(
        query_names=[f"test/0/{name}.jpg" for name in ("01", "02", "03", "04")],
        database_names=["index/a/b/a", "index/b.jpg", "c", "index/z.jpg"],
        rows=np.array([[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [3, 2, 1, 0]]),
        scores=None,
        origin=Origin(dataset="gldv2-test"),
    )
    scores = evaluate_ranking(ranking, gnd).protocols["medium"]
    assert scores.metrics["mAP@100"].values == {"01": 1, "02": 0.5, "03": pytest.approx(1 / 3), "04": 0.5}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,images\n01,a\n", "must name the columns id, images, usage or id, landmarks, usage"),
        ("id,images,usage\n01,a,Public\n01,b,Public\n", "line 3: '01' stands there before"),
        ("id,images,usage\n01,a,Ignored\n", "has no query"),
        ("id,images,usage,more\n01,a,Public,1\n", "unknown column 'more'"),
    ],
)
def test_solutions_that_are_none(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UltronError, match=fault):
        load_ground_truth(written(tmp_path / "s.csv", text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,images\n99,a\n", "has predictions for none of the 4 queries"),
        ("id,images\n01,a\n01,b\n", "line 3: '01' stands there before"),
        ("id,landmarks\n01,7\n", "line 2: landmarks must be a landmark and its score; found '7'"),
        ("id,landmarks\n01,7 nan\n", "line 2: a score must be finite; found nan"),
        ("name,images\n01,a\n", "must name the columns id, images or id, landmarks"),
    ],
)
def test_predictions_that_are_none(tmp_path: Path, text: str, fault: str) -> None:
    truth = load_ground_truth(written(tmp_path / "s.csv", RETRIEVAL))
    with pytest.raises(UltronError, match=fault):
        read_predictions(written(tmp_path / "p.csv", text), truth)


def test_predictions_need_a_solution(ultron: Run, tmp_path: Path) -> None:
    code, _, err = ultron("evaluate", "--ranks", written(tmp_path / "p.csv", "id,images\n01,a\n"))
    assert code == 2 and "--ranks of a CSV needs the solution that it is scored against; name it with --gnd" in err


def test_what_oxford5k_called_ok_is_scored_under_medium(tmp_path: Path) -> None:
    entry = {"bbx": [0, 0, 5, 5], "ok": [0, 2], "junk": [1]}
    content = {"imlist": list("abcd"), "qimlist": ["q"], "gnd": [entry]}
    gnd = written(tmp_path / "gnd_oxford5k.json", json.dumps(content))
    ranking = Ranking(
        query_names=["q"], database_names=list("abcd"), rows=np.array([[1, 0, 3, 2]]), scores=None, origin=Origin()
    )
    # Junk leaves the ranking: places 0 and 2, by trapezoids (1 + 1) / 2 and (1 / 2 + 2 / 3) / 2, over two.
    assert evaluate_ranking(ranking, gnd).protocols["medium"].mAP == pytest.approx((1 + 7 / 12) / 2)
    both = written(tmp_path / "gnd_b.json", json.dumps(content | {"gnd": [entry | {"easy": [0]}]}))
    with pytest.raises(UltronError, match=r"gnd\[0\] lacks hard"):
        load_ground_truth(both)
