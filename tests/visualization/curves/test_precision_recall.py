"""Interpolated precision over recall, worked by hand, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth
from ultron_cli.errors import UltronError
from ultron_cli.visualization.curves.precision_recall import RECALLS, interpolated_precision, mean_curve


def test_interpolated_precision_by_hand() -> None:
    """Positives at ranks 1 and 4 of 3: precision 1 up to recall 1/3, 1/2 up to 2/3, then nothing was found."""
    recalls = np.array([0.0, 0.33, 1 / 3, 0.34, 0.66, 2 / 3, 0.67, 1.0])
    assert interpolated_precision(np.array([0, 3]), 3, recalls).tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0, 0]
    # A later positive with higher precision counts for lower recalls: ranks 3, 4 and 5, precisions 1/3, 2/4, 3/5.
    assert interpolated_precision(np.array([2, 3, 4]), 3, recalls).tolist() == [0.6] * 8
    assert not interpolated_precision(np.array([], np.int64), 2).any()
    tenths = interpolated_precision(np.arange(10), 10)
    assert tenths.tolist() == [1.0] * 101 and len(RECALLS) == 101


def test_mean_curve_leaves_junk_out() -> None:
    """Junk 2 stands first and 0 twice: without it the positives are 1st of 2 and, for the other query, 2nd of 1."""

    def query(easy: list[int], hard: list[int], junk: list[int]) -> QueryTruth:
        return QueryTruth(
            bbx=None,
            **{key: np.array(rows, np.int64) for key, rows in (("easy", easy), ("hard", hard), ("junk", junk))},
        )

    truth = GroundTruth(
        database_names=list("abcd"),
        query_names=["p", "q", "r"],
        queries=[query([0, 3], [], [2]), query([1], [], []), query([], [], [])],
    )
    rows = np.array([[2, 0, 0, 1], [0, 1, 9, -1], [0, 1, 2, 3]])
    curve = mean_curve(rows, truth, "easy")
    np.testing.assert_allclose(curve[[0, 50, 51, 100]], [(1 + 0.5) / 2, (1 + 0.5) / 2, 0.25, 0.25])
    with pytest.raises(UltronError, match="no query has positives under protocol hard"):
        mean_curve(rows, truth, "hard")


def test_precision_recall_command(ultron: Run, toy: Path, tmp_path: Path) -> None:
    assert (
        ultron(
            "extract",
            "--dataset",
            toy,
            "--backbone",
            "test_resnet",
            "--untrained",
            "--scales",
            1,
            "--workers",
            0,
            "--max-side",
            64,
        )[0]
        == 0
    )
    code, out, error = ultron("evaluate", "--protocol", "all", "--json")
    assert code == 0, error
    scores = {protocol: part["mAP"] for protocol, part in json.loads(out)["protocols"].items()}
    code, out, error = ultron("visualize", "precision-recall", "--label", "one", "--out", tmp_path / "pr.svg", "--json")
    assert code == 0, error
    result = json.loads(out)
    (search,) = result["searches"]
    assert search["search"] == "one" and search["mAP"] == pytest.approx(scores) and (tmp_path / "pr.svg").is_file()
    curve = search["precision"]["medium"]
    assert len(curve) == len(result["recall"]) == 101 and (np.diff(curve) <= 0).all()
    assert np.mean(curve) >= scores["medium"] - 0.02  # interpolated precision lies above the trapezoid's
    code, out, error = ultron("visualize", "precision-recall", "--protocol", "hard", "--json")
    assert code == 0 and list(json.loads(out)["searches"][0]["precision"]) == ["hard"], error
    code, _, error = ultron("visualize", "precision-recall", "--protocol", "harder")
    assert code == 2 and "--protocol must be one of easy, medium, hard, all; found 'harder'; did you mean hard" in error
