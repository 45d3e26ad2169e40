"""The training loop: it learns, the same seed gives the same run, and what can go wrong is said."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.runs_for_tests import PHOTOS_AS_THEY_ARE, SMALL, step_losses, train
from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.loop import Training, judged_epoch

pytestmark = pytest.mark.slow


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Log lines of ultron."""
    caplog.set_level(logging.INFO, "ultron")
    return caplog


def test_it_learns_the_landmarks(toy: Path, tmp_path: Path) -> None:
    epochs = train(toy, tmp_path / "run", epochs=14, augment=PHOTOS_AS_THEY_ARE)
    assert (
        np.mean([epoch["accuracy"] for epoch in epochs[-3:]]) > 0.6
    )  # chance is 1/6; 0.94 to 1 with 5 seeds in 4 roundings each


def test_same_seed_same_run(toy: Path, tmp_path: Path) -> None:
    settings = {"a": (3, 0), "b": (3, 1), "c": (4, 0)}  # seed, decoding processes: their number changes nothing
    for name, (seed, workers) in settings.items():
        train(toy, tmp_path / name, workers=workers, seed=seed)
    assert step_losses(tmp_path / "a") == step_losses(tmp_path / "b") != step_losses(tmp_path / "c")
    hashes = [load_checkpoint(tmp_path / name / "checkpoint.pt").weights_sha256 for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_run_folder_holds_all_that_made_it(toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path / "run", checkpoint_minutes=0.0, validation={"share": 0.4})
    folder = tmp_path / "run"
    names = {
        "config.json",
        "environment.json",
        "split.json",
        "metrics.jsonl",
        "steps.jsonl",
        "events",
        "checkpoints",
        "checkpoint.pt",
    }
    assert {path.name for path in folder.iterdir()} == names
    stored = json.loads((folder / "config.json").read_text())
    assert stored["config"]["side_px"] == 48
    assert stored["provenance"]["packages"]["torch"]
    assert json.loads((folder / "environment.json").read_text())["processes"] == 1
    assert len(json.loads((folder / "split.json").read_text())["held_out_landmarks"]) == 2
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(0 < epoch["validation_mAP"] <= 1 and epoch["validation_queries"] == 12 for epoch in epochs)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000003.pt",
        "step-00000004.pt",
    ]  # the last two
    line = json.loads((folder / "steps.jsonl").read_text().splitlines()[0])
    assert {
        "step",
        "epoch",
        "loss",
        "accuracy",
        "lr",
        "margin",
        "scale",
        "photos_per_s",
        "wait_share",
        "memory_mib",
    } == set(line)
    assert load_checkpoint(folder / "checkpoint.pt").train_side_px == 48


def test_a_loss_that_is_not_finite_stops_the_run(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultron_cli.training.losses.base import Margin
    from ultron_cli.training.losses.margins import ArcFace

    monkeypatch.setattr(ArcFace, "logits", lambda self, cosines, labels: (cosines * float("nan"), Margin()))
    with pytest.raises(
        WorkFailed,
        match=r"the loss became nan at lr 0\.0\d+, step 1, photos .*\.jpg.* and "
        r"4 more; try .*`lr=0\.005`.*clip_norm",
    ):
        train(toy, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_loss_that_is_not_finite_changes_no_weight(toy: Path) -> None:
    learner = Learner(from_dict(TrainConfig, SMALL), 6, 3, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in learner.model.parameters()]
    learner.loss.weight.data[0, 0] = float("inf")
    result = learner.step(torch.randint(0, 255, (4, 3, 48, 48), dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), 0)
    assert not torch.isfinite(torch.tensor(result.loss))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))


def spoil(toy: Path, tmp_path: Path, rows: list[int]) -> Any:
    photos = open_landmark_photos(toy)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    paths = [tmp_path / "broken.jpg" if i in rows else path for i, path in enumerate(photos.paths)]
    return dataclasses.replace(photos, paths=paths)


def test_an_unreadable_photo_is_said_once_counted_and_replaced(
    toy: Path, tmp_path: Path, log_lines: pytest.LogCaptureFixture
) -> None:
    training = Training(from_dict(TrainConfig, SMALL), spoil(toy, tmp_path, [4]), torch.device("cpu"))
    metrics = training.run(tmp_path / "run")
    assert (
        log_lines.text.count("broken.jpg: not a photo that Pillow can read")
        + log_lines.text.count("broken.jpg: cannot be decoded")
        == 1
    )
    assert [epoch["bad_photos"] for epoch in metrics] == [1, 1]
    assert "1 photo could not be read" in log_lines.text


def test_photos_that_are_all_unreadable_stop_the_run(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UltronError, match=r"broken\.jpg: .*nor can those that were tried in its place"):
        Training(from_dict(TrainConfig, SMALL), spoil(toy, tmp_path, list(range(36))), torch.device("cpu")).run(
            tmp_path / "run"
        )


@pytest.mark.parametrize(("n_right", "warns"), [(0, True), (110, True), (300, False)])
def test_chance_level_is_said(toy: Path, log_lines: pytest.LogCaptureFixture, n_right: int, warns: bool) -> None:
    training = Training(from_dict(TrainConfig, SMALL), open_landmark_photos(toy), torch.device("cpu"))
    training._epoch_meter.add(1.0, 600, n_right, 1.0, 0.0, is_late=True)
    training._warn_of_chance(1)
    assert ("chance level after epoch 1" in log_lines.text) == warns
    assert ("if the next epochs are no better, try `lr=0.005`" in log_lines.text) == warns
    training._warn_of_chance(training.config.epochs)  # no next epoch to wait for
    assert ("chance level after epoch 2" in log_lines.text) == warns
    assert ("train longer, or try `lr=0.005`" in log_lines.text) == warns


@pytest.mark.parametrize(
    ("steps_per_epoch", "n_epochs", "judged"), [(57, 14, 3), (150, 14, 1), (12000, 50, 1), (4, 2, 2)]
)
def test_chance_level_is_judged_after_enough_steps(steps_per_epoch: int, n_epochs: int, judged: int) -> None:
    assert judged_epoch(steps_per_epoch, n_epochs) == judged


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 3, "clip_norm": 1.0, "ema": 0.9, "loss": {"name": "madacos"}},
        {
            "precision": "bfloat16",
            "group_sizes": True,
            "batch_size": 6,
            "channels_last": False,
            "loss": {"name": "subcentre-arcface", "sample_rate": 0.5},
        },
        {
            "optimizer": "adamw",
            "lr": 1e-3,
            "switch": {"epoch": 1, "lr": 0.01},
            "loss": {"name": "arcface", "curricular": True},
        },
    ],
)
def test_settings_run_together(toy: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    metrics = train(toy, tmp_path / "run", **changes)
    assert len(metrics) == 2
    assert all(0 < epoch["loss"] < 60 for epoch in metrics)


def test_accumulation_takes_the_same_step() -> None:
    """A network without batch statistics: the weights after a step do not depend on the number of parts."""
    pixels, labels = torch.randint(0, 255, (12, 3, 48, 48), dtype=torch.uint8), torch.arange(12) % 6
    weights = []
    for accumulate in (1, 4):
        config = from_dict(
            TrainConfig, SMALL | {"accumulate": accumulate, "model": {"name": "gem", "backbone": "test_convnext"}}
        )
        learner = Learner(config, 6, 3, torch.device("cpu"))
        learner.train()
        learner.step(pixels, labels, 0)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()]))
    assert torch.allclose(*weights, rtol=0, atol=1e-5)


def test_the_running_mean_is_what_is_validated_and_kept(toy: Path, tmp_path: Path) -> None:
    training = Training(from_dict(TrainConfig, SMALL | {"ema": 0.5}), open_landmark_photos(toy), torch.device("cpu"))
    training.run(tmp_path / "run")
    stored_weights = load_checkpoint(tmp_path / "run" / "checkpoint.pt").model.state_dict()
    assert all(
        torch.equal(stored_weights[name], value)
        for name, value in training.learner.running_mean.module.state_dict().items()
        if name in stored_weights
    )
