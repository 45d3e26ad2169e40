"""Runs of CFCD's second stage: they learn, go on from a first stage, resume, and what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Run, free_port
from tests.training.runs_for_tests import PHOTOS_AS_THEY_ARE, SMALL, start_train, step_losses, train
from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.config import TrainConfig

MODEL = {"name": "cfcd-r50", "backbone": "test_resnet", "descriptor_dim": 16}
STAGE_2: dict[str, Any] = {
    "model": MODEL,
    "loss": {"name": "cfcd-stage2", "tuple_size": 4, "local_weight": 0.5, "ratio": 0.99},
    "lr": 0.02,
    "warmup_epochs": 0.0,
    "epochs": 4,
    "side_px": 96,
}


@pytest.fixture(scope="module")
def stage_1(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage-1") / "run"
    train(toy, folder, model=MODEL, loss={"name": "madacos"}, epochs=3, side_px=64)
    return folder / "checkpoint.pt"


@pytest.fixture(scope="module")
def stage_2(toy: Path, stage_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage-2") / "run"
    train(toy, folder, weights=str(stage_1), checkpoint_minutes=0.0, keep_checkpoints=100, **STAGE_2)
    return folder


def test_stage_2_learns_the_landmarks(toy: Path, stage_1: Path, tmp_path: Path) -> None:
    """By the photos recognised: the scale of MadaCos moves with the batch's median, so that the losses of two epochs
    do not compare."""
    settings = STAGE_2 | {"epochs": 14, "lr": 0.05, "side_px": 64, "augment": PHOTOS_AS_THEY_ARE}
    epochs = train(toy, tmp_path / "run", weights=str(stage_1), **settings)
    assert (
        np.mean([epoch["accuracy"] for epoch in epochs[-3:]]) > 0.5
    )  # chance is 1/6; 0.78 to 0.99 with 6 seeds in 8 roundings each


def test_stage_2_starts_from_stage_1(toy: Path, stage_1: Path, stage_2: Path, tmp_path: Path) -> None:
    train(
        toy,
        tmp_path / "run",
        weights=str(stage_1),
        **(STAGE_2 | {"epochs": 1, "loss": STAGE_2["loss"] | {"local_weight": 0.0}}),
    )
    assert step_losses(tmp_path / "run")[0] < step_losses(stage_2)[0] - 0.01  # the same photos without the local part
    known = np.load(stage_2 / "hard_examples.npy")
    assert known.shape == (36,) and known.min() >= 0 and known.max() <= 5
    model = load_checkpoint(stage_2 / "checkpoint.pt").model
    assert model.name == "cfcd-r50" and model(torch.randn(1, 3, 64, 96)).shape == (1, 16)
    assert set(model.state_dict()) == set(
        load_checkpoint(stage_1).model.state_dict()
    )  # the local part is in training only


def test_the_first_step_is_that_of_the_stage_1_weights(toy: Path, stage_1: Path) -> None:
    from ultron_cli.training.learner import Learner
    from ultron_cli.training.starting_weights import start_from

    learner = Learner(from_dict(TrainConfig, SMALL | STAGE_2 | {"weights": str(stage_1)}), 6, 3, torch.device("cpu"))
    names = open_landmark_photos(toy).landmark_names
    content = torch.load(stage_1, weights_only=True)
    weight = start_from(learner, stage_1, ["another landmark", *names[1:]])
    assert weight is not None and torch.equal(learner.loss.weight, weight)
    assert torch.equal(weight[1:], content["loss_state"]["weight"][1:]) and not torch.equal(
        weight[0], content["loss_state"]["weight"][0]
    )
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])
    assert start_from(learner, stage_1, ["none", "of", "them", "is", "known", "here"]) is None


def test_stage_2_stopped_and_resumed_ends_as_if_undisturbed(
    toy: Path, stage_1: Path, stage_2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultron_cli.training.loop import Training

    take_step, folder = Training.take_step, tmp_path / "run"

    def step(self: Training, *arguments: Any) -> None:
        take_step(self, *arguments)
        if self.step == 5:
            raise WorkFailed("stopped by the test")

    settings = STAGE_2 | {"checkpoint_minutes": 0.0, "keep_checkpoints": 100}
    moved = tmp_path / "first.pt"
    moved.write_bytes(stage_1.read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr(Training, "take_step", step)
        with pytest.raises(WorkFailed, match="stopped by the test"):
            train(toy, folder, weights=str(moved), **settings)
    moved.unlink()  # a resumed run needs it no more
    train(toy, folder, resume=True, weights=str(moved), **settings)
    assert step_losses(folder) == step_losses(stage_2)
    assert (
        load_checkpoint(folder / "checkpoint.pt").weights_sha256
        == load_checkpoint(stage_2 / "checkpoint.pt").weights_sha256
    )


def test_two_processes_have_the_loss_curve_of_one(toy: Path, tmp_path: Path) -> None:
    """With a network without batch statistics, which on CPUs are of each process's own photos."""
    network: dict[str, Any] = {
        "model": {"name": "gem", "backbone": "test_convnext"},
        "optimizer": "adamw",
        "lr": 1e-3,
        "side_px": 96,
    }
    train(toy, tmp_path / "first", loss={"name": "madacos"}, epochs=1, **network)
    settings = STAGE_2 | network | {"weights": str(tmp_path / "first/checkpoint.pt"), "batch_size": 8, "epochs": 1}
    port = free_port()
    processes = [start_train(toy, tmp_path / "two", rank, 2, port, **settings) for rank in range(2)]
    train(toy, tmp_path / "one", **settings)
    for process in processes:
        process.join(90)
        assert process.exitcode == 0
    assert np.array_equal(np.load(tmp_path / "one/hard_examples.npy"), np.load(tmp_path / "two/hard_examples.npy"))
    losses_of_one, losses_of_two = step_losses(tmp_path / "one"), step_losses(tmp_path / "two")
    assert len(losses_of_one) == len(losses_of_two) == 4
    assert max(abs(a - b) for a, b in zip(losses_of_one, losses_of_two, strict=True)) < 1e-4


def test_what_stage_2_refuses(toy: Path, stage_1: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UltronError,
        match=r"goes on from a trained network, found none; give that of the first with `weights=CHECKPOINT`",
    ):
        train(toy, tmp_path / "a", **STAGE_2)
    with pytest.raises(UltronError, match=r"holds another model than the one to train: .*descriptor_dim.*"):
        train(toy, tmp_path / "b", weights=str(stage_1), **(STAGE_2 | {"model": MODEL | {"descriptor_dim": 8}}))
    with pytest.raises(UltronError, match=r"multiple of processes x accumulate x loss\.tuple_size = 4; found 6"):
        train(toy, tmp_path / "c", weights=str(stage_1), **(STAGE_2 | {"batch_size": 6}))
    with pytest.raises(UltronError, match="takes batches of one shape; found group_sizes=true"):
        train(toy, tmp_path / "d", weights=str(stage_1), group_sizes=True, **STAGE_2)
    with pytest.raises(UltronError, match="weights and pretrained exclude each other"):
        train(toy, tmp_path / "e", weights=str(stage_1), pretrained=True, **STAGE_2)


SMALL_FLAGS = [
    flag
    for value in (
        "model.backbone=test_resnet",
        "model.descriptor_dim=16",
        "side_px=64",
        "batch_size=8",
        "workers=0",
        "epochs=1",
        "warmup_epochs=0",
        "precision=float32",
        "threads=1",
    )
    for flag in ("--set", value)
]


def test_both_stages_by_their_presets(ultron: Run, toy: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    code, _, err = ultron(
        "train", "--preset", "cfcd-r50", "--dataset", toy, *SMALL_FLAGS, "--set", "pretrained=false", "--out", first
    )
    assert code == 0, err
    weights = first / "checkpoint.pt"
    code, out, err = ultron(
        "train",
        "--preset",
        "cfcd-r50-stage2",
        "--dataset",
        toy,
        *SMALL_FLAGS,
        "--set",
        f"weights={weights}",
        "--out",
        second,
    )
    assert code == 0, err
    assert f"starting from {weights}" in err and "hard negatives: " in err
    assert out.startswith("trained cfcd-r50-test_resnet on ") and (second / "hard_examples.npy").is_file()


def test_what_is_missing_is_said_before_the_photos_are_opened(ultron: Run, tmp_path: Path) -> None:
    stage_2 = ("train", "--preset", "cfcd-r50-stage2", "--dataset", tmp_path / "no-photos")
    code, _, err = ultron(*stage_2)
    assert (code, err.count("\n")) == (
        2,
        1,
    ) and "goes on from a trained network, found none; give that of the first with --set weights=CHECKPOINT" in err
    code, _, err = ultron(*stage_2, "--set", f"weights={tmp_path / 'none.pt'}")
    assert (code, err.count("\n")) == (
        2,
        1,
    ) and f"there is no file {tmp_path / 'none.pt'}; give another with --set weights=CHECKPOINT" in err
    code, _, err = ultron(
        *stage_2, "--set", "model.name=gem", "--set", "model.backbone=test_vit", "--set", "model.pooling=cls"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "pooled from; found model.pooling=cls, which takes the class token instead; add --set model.pooling=gem" in err
    )
