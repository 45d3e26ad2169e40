"""Trainings with losses without class weights: they learn, resume exactly with their memory and their negatives, and
say what does not fit them."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Run
from tests.training.runs_for_tests import PHOTOS_AS_THEY_ARE, SMALL, step_losses, train
from ultron_cli import distributed
from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.batches.hard import mine_negatives
from ultron_cli.training.batches.mined import MinedBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.loop import Training
from ultron_cli.training.run.checkpoints import saved_steps
from ultron_cli.training.validation import RetrievalValidation

pytestmark = pytest.mark.slow

MINED = {"name": "contrastive", "batches": "mined", "negatives": 4, "memory": 9}
MEMORY = {"name": "multi-similarity", "memory": 30}
SETTINGS: dict[str, dict[str, Any]] = {
    "memory": {"loss": MEMORY, "batch_size": 12},
    "mined": {"loss": MINED, "batch_size": 12},
}


FLAGS = {
    "model.name": "gem",
    "model.backbone": "test_resnet",
    "side_px": 48,
    "batch_size": 12,
    "epochs": 1,
    "workers": 0,
    "threads": 1,
    "validation.share": 0,
}


def finished(folder: Path) -> tuple[list[float], str]:
    return step_losses(folder), load_checkpoint(folder / "checkpoint.pt").weights_sha256


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stopped_run_ends_as_if_undisturbed(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = SETTINGS[name] | {"epochs": 3, "checkpoint_minutes": 0.0, "ema": 0.9, "optimizer": "adamw", "lr": 1e-3}
    train(toy, tmp_path / "undisturbed", **settings)
    n_batches = len(step_losses(tmp_path / "undisturbed")) // 3
    assert n_batches > 2
    learner_step = Learner.step
    for stop in (n_batches, n_batches + 2):  # at the end of an epoch, before its negatives are searched; and within one

        def step(self: Learner, pixels: torch.Tensor, labels: torch.Tensor, step: int, stop: int = stop) -> Any:
            if step == stop:
                raise WorkFailed("stopped by the test")
            return learner_step(self, pixels, labels, step)

        folder = tmp_path / str(stop)
        with monkeypatch.context() as patched:
            patched.setattr(Learner, "step", step)
            with pytest.raises(WorkFailed, match="stopped by the test"):
                train(toy, folder, **settings)
        assert saved_steps(folder)[-1] == stop
        train(toy, folder, resume=True, workers=1, **{key: settings[key] for key in settings if key != "workers"})
        assert finished(folder) == finished(tmp_path / "undisturbed")


@pytest.mark.parametrize("loss", [{"name": "triplet", "mining": "batch-hard"}, {"name": "smooth-ap"}])
def test_it_learns_the_landmarks(toy: Path, tmp_path: Path, loss: dict[str, Any]) -> None:
    epochs = train(toy, tmp_path / "run", loss=loss, epochs=14, augment=PHOTOS_AS_THEY_ARE)
    assert np.mean([epoch["accuracy"] for epoch in epochs[-3:]]) > 0.6  # chance is 3/11
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


def described(photos: LandmarkPhotos, model: RetrievalModel) -> torch.Tensor:
    """(N, D) descriptors by a network in evaluation mode."""
    rows = torch.empty(len(photos.labels), model.descriptor_dim)
    for part, descriptors in RetrievalValidation(photos, 48, 0).described(model.eval(), torch.device("cpu")):
        rows[part] = descriptors
    return rows


def test_the_negatives_are_the_nearest_by_the_weights_of_the_epoch(toy: Path) -> None:
    config = from_dict(TrainConfig, SMALL | SETTINGS["mined"])
    training = Training(config, open_landmark_photos(toy), torch.device("cpu"))
    batches = training.batches
    assert isinstance(batches, MinedBatches)
    negatives = mine_negatives(batches, 1, training.photos, training.learner, config)
    labels = training.photos.labels
    descriptors = described(training.photos, training.model)
    for anchor, rows in zip(batches.pairs(1)[:, 0], negatives, strict=True):
        scores = descriptors @ descriptors[anchor]
        best_of_landmark = {int(label): scores[labels == label].max().item() for label in set(labels)}
        best_of_landmark.pop(int(labels[anchor]))
        expected = sorted(best_of_landmark.values(), reverse=True)[:4]
        assert scores[rows].tolist() == pytest.approx(expected, abs=1e-5)
        assert len(set(labels[rows])) == 4 and labels[anchor] not in labels[rows]


def test_a_pool_without_enough_landmarks_is_said(toy: Path) -> None:
    config = from_dict(TrainConfig, SMALL | {"loss": MINED | {"pool": 3}})
    training = Training(config, open_landmark_photos(toy), torch.device("cpu"))
    assert isinstance(training.batches, MinedBatches)
    with pytest.raises(UltronError, match=r"too few photos of other landmarks can be read for 4 negatives"):
        mine_negatives(training.batches, 0, training.photos, training.learner, config)


def test_a_run_starts_from_the_network_of_a_classification(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(toy, tmp_path / "first", epochs=1)
    caplog.set_level(logging.INFO, "ultron")
    train(toy, tmp_path / "run", loss=MEMORY, epochs=1, weights=str(tmp_path / "first/checkpoint.pt"))
    assert f"starting from {tmp_path / 'first/checkpoint.pt'}" in caplog.messages
    train(toy, tmp_path / "third", epochs=1, weights=str(tmp_path / "run/checkpoint.pt"))
    assert any("has no class weights of these landmarks" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"batch_size": 10},
            r"multiple of processes x accumulate x loss\.per_landmark = 4; found 10; use `batch_size=8`",
        ),
        ({"loss": MINED, "batch_size": 8}, r"x \(2 \+ loss\.negatives\) = 6; found 8; use `batch_size=6`"),
        ({"batch_size": 4}, r"two landmarks at least, 4 of each; found 6 landmarks, and 4 photos"),
        ({"group_sizes": True}, r"triplet takes batches of one shape; found group_sizes=true"),
        (
            {"validation": {"kind": "classification", "by": "photos"}},
            r"needs the class weights of a loss, which triplet does not have; add `validation\.kind=retrieval`",
        ),
    ],
)
def test_what_does_not_fit_is_refused(toy: Path, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        train(toy, tmp_path / "run", **({"loss": {"name": "triplet"}} | settings))


def test_a_batch_is_shared_by_whole_groups(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "n_processes", lambda: 2)
    with pytest.raises(UltronError, match=r"loss\.per_landmark = 8; found 12; use `batch_size=8`"):
        train(toy, tmp_path / "run", loss={"name": "triplet"})


def test_the_run_folder_says_its_settings(toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path / "run", loss=MEMORY, epochs=1)
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["loss"] == MEMORY
    line = json.loads((tmp_path / "run/steps.jsonl").read_text().splitlines()[0])
    assert (line["margin"], line["scale"]) == (0.0, 1.0)


LOSS_OF_A_USER = """
import torch
from ultron_cli.training.losses.batch import BatchLoss


class Spread(BatchLoss):
    def of_batch(self, descriptors, labels, references, reference_labels):
        is_same = labels[:, None] == reference_labels
        cosines = descriptors @ references.T
        return cosines[~is_same].relu().mean() - cosines[is_same].mean()
"""


def test_a_loss_of_the_user_needs_one_class(ultron: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(LOSS_OF_A_USER)
    flags = [f"--set={key}={value}" for key, value in FLAGS.items()]
    of_loss = [f"--set=loss.name={tmp_path / 'my.py'}:Spread", "--set=loss.memory=8", "--set=loss.per_landmark=2"]
    code, out, err = ultron("train", "--dataset", toy, *flags, *of_loss, "--out", tmp_path / "run")
    assert code == 0, err
    assert "trained gem-test_resnet" in out
    code, _, err = ultron("train", "--dataset", toy, *flags, of_loss[0], "--set=loss.memry=8", "--out", tmp_path / "b")
    assert (code, err.count("\n")) == (2, 1) and "unknown setting loss.memry; did you mean memory" in err
    (tmp_path / "my.py").write_text("class Spread: ...")
    code, _, err = ultron("train", "--dataset", toy, *flags, of_loss[0], "--out", tmp_path / "c")
    assert (code, err.count("\n")) == (
        2,
        1,
    ) and "my.py, line 1: Spread must be a MarginLoss of training/losses/base.py or a BatchLoss" in err
