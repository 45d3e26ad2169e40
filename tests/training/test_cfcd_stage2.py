"""CFCD's second stage against a literal form of its loss, its batches of tuples, and short runs that go on from a
first stage."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import Run
from tests.training.runs_for_tests import PHOTOS_AS_THEY_ARE, SMALL, free_port, start_train, step_losses, train
from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.batches.tuples import TupleBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.losses import create_loss
from ultron_cli.training.losses.cfcd import local_loss, match
from ultron_cli.training.presets import load_config

MODEL = {"name": "cfcd-r50", "backbone": "test_resnet", "descriptor_dim": 16}
STAGE_2: dict[str, Any] = {
    "model": MODEL,
    "loss": {"name": "cfcd-stage2", "tuple_size": 4, "local_weight": 0.5, "ratio": 0.99},
    "lr": 0.02,
    "warmup_epochs": 0.0,
    "epochs": 4,
    "side_px": 96,
}


def distance(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def literal_tuple_loss(maps: Tensor, margin: float, ratio: float, attended: float) -> tuple[Tensor, int]:
    """One tuple of maps (T, C, h, w), place by place. Returns the sum and the number of matches."""
    photos = [[photo[:, y, x] for y in range(photo.shape[1]) for x in range(photo.shape[2])] for photo in maps]
    attention = [float(place.detach().abs().sum()) for place in photos[1]]
    units = [[place / place.norm() for place in places] for places in photos]
    kept_places = sorted(range(len(attention)), key=lambda i: -attention[i])[: int(attended * len(attention))]
    total, n_matches = torch.zeros((), dtype=maps.dtype), 0
    for i, p in enumerate(units[1]):
        to_anchor = sorted((distance(a, p), j) for j, a in enumerate(units[0]))
        (nearest_distance, j), (second_distance, _) = to_anchor[:2]
        back = min(range(len(units[1])), key=lambda k: distance(units[0][j], units[1][k]))
        if back != i or not nearest_distance < ratio * second_distance or i not in kept_places:
            continue
        n_matches += 1
        a = units[0][j]
        for places in units[2:]:
            n = min(places, key=lambda place: distance(a, place))
            total = total + torch.clamp(((a - p) ** 2).sum() - ((a - n) ** 2).sum() + margin, min=0)
    return total, n_matches


@pytest.fixture
def maps() -> Tensor:
    """Two tuples of 4 maps of 3 x 4 places; positives are their anchors, moved and a little changed."""
    made = torch.rand(8, 6, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for first in (0, 4):
        made[first + 1] = made[first].roll(1, 1) + 0.1 * made[first + 1]
    return made


def test_local_loss_equals_its_literal_form_and_its_gradient(maps: Tensor) -> None:
    labels = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    loss = local_loss(ours, labels, 4, margin=0.3, ratio=0.9, attended=0.5)
    parts = [literal_tuple_loss(part, 0.3, 0.9, 0.5) for part in theirs.split(4)]
    assert sum(n for _, n in parts) >= 4
    right = 2 * torch.stack([total for total, _ in parts]).mean()  # twice the mean: the sum of the authors' two tuples
    assert right > 0
    torch.testing.assert_close(loss, right)
    loss.backward()
    right.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_matches_are_mutual_distinct_and_attended() -> None:
    anchor = torch.eye(4)
    positive = torch.stack([anchor[2], anchor[0], (anchor[1] + anchor[3]) / 2**0.5, anchor[1]])
    anchors, positives = match(anchor, positive, torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.9, 1.0)
    assert list(zip(anchors.tolist(), positives.tolist(), strict=True)) == [
        (2, 0),
        (0, 1),
        (1, 3),
    ]  # place 2 lies between two of the anchor's
    assert match(anchor, positive, torch.tensor([1.0, 3.0, 2.0, 4.0]), 0.9, 0.5)[1].tolist() == [1, 3]
    assert match(anchor[:1], positive, torch.ones(4), 0.9, 1.0)[0].tolist() == []


def test_stand_ins_of_wrong_landmarks_do_not_count(maps: Tensor) -> None:
    settings = {"margin": 0.3, "ratio": 0.9, "attended": 0.5}
    assert local_loss(maps[:4], torch.tensor([0, 1, 2, 3]), 4, **settings) == 0  # the positive is of another landmark
    right, _ = literal_tuple_loss(maps[[0, 1, 3]], 0.3, 0.9, 0.5)
    torch.testing.assert_close(local_loss(maps[:4], torch.tensor([0, 0, 0, 3]), 4, **settings), 2 * right)


def test_the_loss_adds_the_local_part_to_madacos(maps: Tensor) -> None:
    torch.manual_seed(0)
    labels, descriptors = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5]), torch.randn(8, 16)
    loss = create_loss("cfcd-stage2", n_classes=6, dim=16, tuple_size=4, local_weight=0.7, local_margin=0.3)
    plain = create_loss("madacos", n_classes=6, dim=16)
    plain.load_state_dict(loss.state_dict())
    right = plain(descriptors, labels) + 0.7 * local_loss(maps.float(), labels, 4, margin=0.3, ratio=0.9, attended=0.5)
    torch.testing.assert_close(loss(descriptors, labels, maps.float()), right)


def test_tuples_hold_a_pair_and_photos_of_others() -> None:
    labels = np.repeat(np.arange(30), 1 + np.arange(30) % 6)
    batches = TupleBatches(labels, 16, seed=3, n_epochs=2, tuple_size=8)
    rows, seeds = batches.epoch_rows(0)
    assert rows.shape == seeds.shape == (105 // 16, 16)
    for drawn in rows.reshape(-1, 8):
        anchor, positive, *negatives = drawn
        assert anchor != positive and labels[anchor] == labels[positive]
        assert len(set(labels[negatives])) == 6 and labels[anchor] not in labels[negatives]
    assert np.unique(rows).size == rows.size  # no photo twice while there are others
    assert np.array_equal(rows, TupleBatches(labels, 16, seed=3, n_epochs=2, tuple_size=8).epoch_rows(0)[0])
    assert not np.array_equal(rows, batches.epoch_rows(1)[0])
    parts = [
        [draw.row for draw in next(iter(TupleBatches(labels, 16, 3, 2, 8, process=rank, n_processes=2)))]
        for rank in range(2)
    ]
    assert parts[0] + parts[1] == rows[0].tolist()


def test_photos_taken_for_a_landmark_become_its_hard_negatives() -> None:
    """Landmarks 0 and 1 are taken for each other in half of their photos; the others are always recognised."""
    labels = np.repeat(np.arange(40), 20)
    nearest = labels.copy()
    nearest[0:10], nearest[20:30] = 1, 0
    batches = TupleBatches(labels, 8, seed=0, n_epochs=1, tuple_size=8)
    hard, of_mistaken = {True: [0, 0], False: [0, 0]}, 0
    for is_known in (False, True):
        batches.set_nearest_landmarks(nearest if is_known else None)
        for epoch in range(30):
            for anchor, positive, *negatives in batches.epoch_rows(epoch)[0]:
                if labels[anchor] < 2:
                    count = hard[is_known]
                    count[0] += sum(labels[row] == 1 - labels[anchor] for row in negatives)
                    count[1] += 6
                    if is_known and nearest[anchor] != labels[anchor]:
                        of_mistaken += nearest[positive] == labels[positive]
                assert labels[anchor] == labels[positive] and labels[anchor] not in labels[negatives]
    assert hard[False][0] / hard[False][1] < 0.05 < 0.25 < hard[True][0] / hard[True][1]
    assert of_mistaken > 10


def test_too_few_photos_for_tuples() -> None:
    with pytest.raises(
        UltronError,
        match="tuples of 8 need a landmark with two photos and 6 photos of others, found 8 photos of 2 landmarks",
    ):
        TupleBatches(np.repeat([0, 1], 4), 8, 0, 1, 8)


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
    one, two = step_losses(tmp_path / "one"), step_losses(tmp_path / "two")
    assert len(one) == len(two) == 4
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4


def test_what_stage_2_refuses(toy: Path, stage_1: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UltronError,
        match=r"goes on from a trained network, found none; give that of the first with --set weights=CHECKPOINT",
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


@pytest.mark.parametrize("name", ["cfcd-r50", "cfcd-r101"])
def test_presets_go_on_from_the_first_stage(name: str) -> None:
    first, second = load_config(name, None, []), load_config(f"{name}-stage2", None, ["weights=run/checkpoint.pt"])
    assert second.model == first.model and second.loss == {
        "name": "cfcd-stage2",
        "rho": 0.02,
        "tuple_size": 8,
        "local_weight": 0.05,
        "local_margin": 0.1,
    }
    changed = {"pretrained", "weights", "loss", "warmup_epochs"}
    before, after = copy.deepcopy(first.to_plain()), second.to_plain()
    assert {key for key in before if before[key] != after[key]} == changed
