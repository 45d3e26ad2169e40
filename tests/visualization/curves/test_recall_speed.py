"""Recall and speed of indexes: lines of a report, and the command on real reports."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.conftest import Run
from tests.visualization.pictures import index_report
from ultron_cli.errors import UltronError
from ultron_cli.visualization import plots
from ultron_cli.visualization.curves.recall_speed import (
    IndexSpeed,
    common_cut,
    lines_of,
    read_report,
    recall_speed_figure,
)


def test_lines_of_an_index_report() -> None:
    report = IndexSpeed.of(index_report("ivfpq", 100.0))
    plain, rescored = lines_of(report, "10", "ivfpq")
    assert plain.label == "ivfpq, as the index scores, 24 bytes per photo (nprobe written at the points)"
    assert rescored.label == "ivfpq, re-scored 2 x k, 24 bytes per photo (nprobe written at the points)"
    assert [value for _, _, value in plain.points] == ["1", "4", "16"] and plain.points[0] == (0.54, 100.0, "1")
    assert common_cut([report], None) == "10" and common_cut([report], 1) == "1"
    with pytest.raises(UltronError, match="`at` must be one of 1, 10, which every report has; found 5"):
        common_cut([report], 5)


def test_no_recall_stands_above_100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every point is at 100 %."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, out: figures.append(figure) or out)
    report = IndexSpeed.of(index_report("flat", 100.0))
    recall = dict.fromkeys(report.points[0].recall, 1.0)
    perfect = replace(report, points=[replace(point, recall=recall) for point in report.points])
    for content, left in ((report, 100 - 1.06 * 46), (perfect, 94.7)):
        recall_speed_figure([content], ["flat"], "t", tmp_path / "s.png")
        axes = figures[-1].axes[0]
        low, high = axes.get_xlim()
        assert low == pytest.approx(left) and all(tick <= 100 for tick in axes.get_xticks() if low <= tick <= high)


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
    assert content.source == "gem-test_resnet on toy"
    with pytest.raises(
        UltronError,
        match=r"must be of the same descriptors, found 48 x .* and 5,000 x 64 with 70 queries; draw them apart",
    ):
        recall_speed_figure([content, IndexSpeed.of(index_report("a", 9.0))], ["a", "b"], "t", tmp_path / "no.png")
    (tmp_path / "other.json").write_text('{"rows": [], "n": 3}')
    code, _, error = ultron("visualize", "recall-speed", tmp_path / "other.json")
    assert (
        code == 2
        and "other.json: rows must be a list of length >= 1; make a report with `ultron index --report`" in error
    )
