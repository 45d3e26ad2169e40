"""The lines of a run's journal, and the curves drawn of them."""

import json
from pathlib import Path

import torch
from PIL import Image

from ultron_cli.training.run.journal import Journal, read_lines
from ultron_cli.visualization.curves.run_pictures import draw_run


def test_journal_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    lines = [{"step": 2, "epoch": 0.5, "loss": 3.0}, {"step": 4, "epoch": 1.0, "loss": 2.0}]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "lo')
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    journal = Journal(tmp_path, 3, 1, 2, torch.device("cpu"))
    assert journal.metrics == [{"epoch": 1}]
    journal.meter.add(4.0, 8, 2, seconds=2.0, wait_s=0.5)
    journal.meter.add(2.0, 8, 6, seconds=2.0, wait_s=0.5)
    journal.step(4, 1.0, 0.1, 0.2, 30.0)
    journal.step(5, 1.25, 0.1, 0.2, 30.0)  # none is due
    journal.close()
    first, second = read_lines(tmp_path / "steps.jsonl")
    assert first == lines[0]
    assert {
        key: second[key] for key in ("step", "loss", "accuracy", "photos_per_s", "wait_share", "margin", "scale")
    } == {
        "step": 4,
        "loss": 3.0,
        "accuracy": 0.5,
        "photos_per_s": 4.0,
        "wait_share": 0.25,
        "margin": 0.2,
        "scale": 30.0,
    }


def test_curves(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text(
        '{"step": 1, "epoch": 0.5, "loss": 3.0, "lr": 0.1}\n{"step": 2, "epoch": 1.0, "loss": null, "lr": 0.1}\n'
    )
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "loss": 3.0, "lr": 0.1, "accuracy": 0.1, "validation_mAP": 0.3}\n'
    )
    draw_run(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000
