"""Precision and recall, recall and speed, ablation bars: numbers by hand, files as they are written, and the
commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from tests.visualization.pictures import PICTURES, index_report
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth
from ultron_cli.errors import UltronError
from ultron_cli.visualization.curves.ablation_bars import bars_of, read_measurements
from ultron_cli.visualization.curves.precision_recall import RECALLS, interpolated_precision, mean_curve
from ultron_cli.visualization.curves.recall_speed import common_cut, lines_of, read_report, recall_speed_figure

MAGIC = ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"))


@pytest.mark.parametrize("name", ["precision-recall", "recall-speed", "ablation"])
def test_kinds_of_files(name: str, tmp_path: Path) -> None:
    for suffix, magic in MAGIC:
        files = [PICTURES[name](tmp_path / f"{i}{suffix}") for i in range(2)]
        assert files[0].read_bytes().startswith(magic) and files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UltronError, match=r"found \.gif"):
        PICTURES[name](tmp_path / "a.gif")


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


def test_lines_of_an_index_report() -> None:
    report = index_report("ivfpq", 100.0)
    plain, rescored = lines_of(report, "10", "ivfpq")
    assert plain.label == "ivfpq, as the index scores, 24 bytes per photo (nprobe written at the points)"
    assert rescored.label == "ivfpq, re-scored 2 x k, 24 bytes per photo (nprobe written at the points)"
    assert [value for _, _, value in plain.points] == ["1", "4", "16"] and plain.points[0] == (0.54, 100.0, "1")
    assert common_cut([report], None) == "10" and common_cut([report], 1) == "1"
    with pytest.raises(UltronError, match="--at must be one of 1, 10, which every report has; found 5"):
        common_cut([report], 5)


def test_recall_speed_command_on_a_real_report(ultron: Run, toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
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
    reports = []
    for kind in ("sq8", "hnsw"):
        code, out, error = ultron("index", "--type", kind, "--report", "--out", tmp_path / f"{kind}.index", "--json")
        assert code == 0, error
        reports.append(tmp_path / f"{kind}.report.json")
    code, out, error = ultron("visualize", "recall-speed", *reports, "--at", 10, "--out", tmp_path / "s.pdf", "--json")
    assert code == 0, error
    result = json.loads(out)
    assert [entry["index"] for entry in result["indexes"]] == ["sq8", "hnsw"] and (tmp_path / "s.pdf").is_file()
    assert all(
        0 <= point["recall"] <= 1 and point["queries_per_s"] > 0
        for entry in result["indexes"]
        for point in entry["points"]
    )
    content = read_report(reports[0])
    assert (content["dataset"], content["model"]) == ("toy", "gem-test_resnet")
    with pytest.raises(
        UltronError,
        match=r"must be of the same descriptors, found 48 x .* and 5,000 x 64 with 70 queries; draw them apart",
    ):
        recall_speed_figure([content, index_report("a", 9.0)], ["a", "b"], "t", tmp_path / "no.png")
    (tmp_path / "other.json").write_text('{"rows": [], "n": 3}')
    code, _, error = ultron("visualize", "recall-speed", tmp_path / "other.json")
    assert code == 2 and "other.json is not a report of an index; make one with `ultron index --report`" in error


def test_ablation_table(tmp_path: Path, ultron: Run) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "setting,seed,metric,value,group\nbase,0,hard mAP,0.5,\nbase,1,hard mAP,0.7,\nother,0,hard mAP,0.25,\n"
    )
    base, other = bars_of(read_measurements(table))
    assert (base.mean, other.mean, other.spread) == (pytest.approx(0.6), 0.25, None)
    assert base.spread == pytest.approx(0.02**0.5)
    code, out, error = ultron(
        "visualize", "ablation", table, "--title", "model on data", "--out", tmp_path / "a.svg", "--json"
    )
    assert code == 0, error
    assert json.loads(out)["bars"][1] == {
        "group": "",
        "setting": "other",
        "metric": "hard mAP",
        "mean": 0.25,
        "spread": None,
        "seeds": 1,
    }
    code, _, error = ultron("visualize", "ablation", table, "--metric", "hard map")
    assert code == 2 and "--metric must be one of hard mAP; found 'hard map'" in error
    head = "group,setting,seed,metric,value\n"
    for text, message in (
        (
            head + "g,a,0,mAP,62.3\n",
            r"t\.csv, line 2: value must be a fraction from 0 to 1 \(0\.623, not 62\.3\); found '62\.3'",
        ),
        (head + "g,a,0,mAP,nan\n", "line 2: value must be a fraction"),
        (head + "g,,0,mAP,0.1\n", "line 2: setting and metric must not be empty"),
        (head + "g,a,0,mAP,0.1\ng,a,0,mAP,0.2\n", "line 3: 'a', seed 0, mAP stands there twice; leave one"),
        (head, "holds no measurement"),
        ("setting,value\na,1\n", "lacks the column group, seed, metric"),
    ):
        table.write_text(text)
        with pytest.raises(UltronError, match=message):
            read_measurements(table)
    table.write_text(head + "g,a,0,mAP,0.1\ng,b,0,mP,0.2\n")
    code, _, error = ultron("visualize", "ablation", table)
    assert code == 2 and "setting 'a' has no mP; measure every setting by every metric" in error
