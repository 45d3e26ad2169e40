"""Training curves: what is read of a run folder, the running mean, and the command."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.conftest import Run
from ultron_cli.errors import UltronError
from ultron_cli.visualization.curves.run_curves import (
    PANELS,
    RunCurves,
    curves_figure,
    read_lines,
    read_run,
    running_mean,
)
from ultron_cli.visualization.plots import look


def write_run(folder: Path, metrics: str, steps: str = "") -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(metrics)
    (folder / "steps.jsonl").write_text(steps)
    (folder / "config.json").write_text(
        json.dumps({"config": {"model": {"name": "gem", "backbone": "resnet18"}, "dataset": "data/toy"}})
    )
    return folder


def test_curves_read_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = (
        '{"epoch": 1, "loss": 2.5, "accuracy": 0.5, "new": 1}\n{"epoch": 2, "loss": null, "validation_mAP": '
        '0.25}\n{"epoch": 3, "loss": NaN}\n{"epo'
    )
    run = read_run(write_run(tmp_path / "a", metrics, '{"step": 1, "epoch": 0.5, "loss": 3}\n'))
    assert (run.label, run.model, run.dataset) == ("a", "gem-resnet18", "toy")
    assert run.points("loss") == ([1.0], [2.5]) and run.points("validation_mAP", 100.0) == ([2.0], [25.0])
    assert run.points("loss", by_step=True) == ([0.5], [3.0]) and run.points("lr") == ([], [])
    (tmp_path / "broken.jsonl").write_text('{"epoch": 1}\nnonsense\n[1]\n{"epoch": 2}\n')
    assert read_lines(tmp_path / "broken.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UltronError, match=r"empty holds no metrics\.jsonl of a training run"):
        read_run(tmp_path / "empty")
    (tmp_path / "a" / "config.json").write_text("[]")
    assert read_run(tmp_path / "a").model == ""


def test_running_mean_by_hand() -> None:
    assert running_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]
    assert running_mean([1.0, 2.0], 1) == [1.0, 2.0] and running_mean([], 3) == []


def test_learning_rate_is_drawn_by_step_where_steps_are_recorded() -> None:
    epochs: list[dict[str, object]] = [{"epoch": 1, "lr": 0.5}, {"epoch": 2, "lr": 0.25}]
    steps: list[dict[str, object]] = [
        {"epoch": x, "loss": 1.0, "lr": y} for x, y in ((0.5, 0.1), (1.0, 0.5), (2.0, 0.25))
    ]
    for run, points in (
        (RunCurves(label="with steps", epochs=epochs, steps=steps), [(0.5, 0.1), (1.0, 0.5), (2.0, 0.25)]),
        (RunCurves(label="of epochs alone", epochs=epochs, steps=[]), [(1.0, 0.5), (2.0, 0.25)]),
    ):
        axes = Figure().add_subplot()
        PANELS["lr"][1](axes, run, look(0), 1)
        assert [tuple(map(float, point)) for point in axes.lines[0].get_xydata()] == points


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match="1 to 14 runs, found 0"):
        curves_figure([], "curves", tmp_path / "none.png")
    with pytest.raises(UltronError, match=r"no run has a value of loss, validation_mAP, .*accuracy, lr to draw"):
        curves_figure([RunCurves(label="a", epochs=[{"epoch": 1}], steps=[])], "curves", tmp_path / "none.png")


def test_curves_command(ultron: Run, tmp_path: Path) -> None:
    (tmp_path / "runs" / "train").mkdir(parents=True)
    write_run(
        tmp_path / "runs" / "train" / "named",
        '{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0, "validation_mAP": 0.5}\n',
    )
    other = write_run(tmp_path / "other", '{"epoch": 1, "loss": 2.0}\n')
    code, out, error = ultron("visualize", "curves", "--run", "named", "--run", other, "--json")
    assert code == 0, error
    result = json.loads(out)
    assert Path(result["figure"]).is_file()
    assert result["runs"] == [
        {"run": "named", "epochs": 2, "loss": 1.0, "validation_mAP": 0.5},
        {"run": "other", "epochs": 1, "loss": 2.0, "validation_mAP": None},
    ]
    code, _, error = ultron("visualize", "curves", "--run", "named", "--label", "a", "--label", "b")
    assert code == 2 and "--label must be given once per --run, found 2 for 1" in error
