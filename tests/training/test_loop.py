"""The training loop: it learns, the same seed gives the same run, and a loss that is not finite stops it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks import open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.checkpoints import load_checkpoint
from ultron_cli.training.config import TrainConfig, load_config
from ultron_cli.training.loop import Training, make_optimizer

SMALL: dict[str, Any] = {
    "model": {"name": "gem", "backbone": "test_resnet"}, "loss": {"name": "arcface", "margin": 0.0, "scale": 16.0}, "side_px": 48,
    "batch_size": 12, "epochs": 2, "optimizer": "sgd", "lr": 0.05, "workers": 0,
}  # fmt: skip


def train(toy: Path, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    config = from_dict(TrainConfig, SMALL | changes)
    return Training(config, open_landmark_photos(toy), torch.device("cpu")).run(folder)


def test_it_learns_the_landmarks(toy: Path, tmp_path: Path) -> None:
    metrics = train(toy, tmp_path / "run", epochs=14)
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    assert metrics[-1]["accuracy"] > 2 / 6  # chance is 1/6


@pytest.mark.parametrize("workers", [0, 1])
def test_same_seed_same_run(toy: Path, tmp_path: Path, workers: int) -> None:
    first, again, other = (train(toy, tmp_path / name, workers=workers, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert [epoch["loss"] for epoch in first] == [epoch["loss"] for epoch in again]
    assert [epoch["loss"] for epoch in first] != [epoch["loss"] for epoch in other]
    hashes = [load_checkpoint(tmp_path / name / "checkpoint.pt").weights_sha256 for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_run_folder_holds_config_and_provenance(toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["config"]["side_px"] == 48
    assert stored["provenance"]["packages"]["torch"]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").train_side_px == 48


def test_a_loss_that_is_not_finite_stops_the_run(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultron_cli.training.losses import ArcFace

    monkeypatch.setattr(ArcFace, "logits", lambda self, cosines, labels: cosines * float("nan"))
    with pytest.raises(WorkFailed, match=r"the loss became nan at lr .*--set lr=0\.005"):
        train(toy, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_bad_training_photo_is_named(toy: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(toy)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    spoiled = dataclasses.replace(photos, paths=[tmp_path / "broken.jpg"] * len(photos.paths))
    with pytest.raises(UltronError, match=r"broken\.jpg: cannot be decoded"):
        Training(from_dict(TrainConfig, SMALL), spoiled, torch.device("cpu")).run(tmp_path / "run")


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    decayed, plain = make_optimizer(from_dict(TrainConfig, SMALL | {"weight_decay": 0.1}), network).param_groups
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(4, 3, 3, 3)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(plain["params"]) == 3


def test_settings_come_from_preset_then_file_then_flags(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 7\nlr = 0.5\n[augment]\nhue = 0.2\n")
    config = load_config("quickstart", tmp_path / "mine.toml", ["lr=0.25", "model.p=4", "augment.flip=false"])
    assert (config.epochs, config.lr, config.augment.hue, config.augment.flip) == (7, 0.25, 0.2, False)
    assert config.model == {"name": "gem", "backbone": "test_resnet", "p": 4}
    assert np.isclose(config.augment.crop_area[0], 0.5)
