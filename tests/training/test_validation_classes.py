"""Top-1 and top-5 of held-out photos: training on CIFAR, the middle of each photo, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Run
from tests.datasets.landmarks.cifar_for_tests import write_cifar10
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.training.losses import create_loss
from ultron_cli.training.validation_classes import ClassificationValidation, MiddleReader, photos_to_score

pytestmark = pytest.mark.slow


def test_cifar_is_trained_on_and_scored(ultron: Run, tmp_path: Path) -> None:
    """Classes of one bright channel each: learned in a few steps from the published files, top-1 on the test file."""
    write_cifar10(tmp_path)
    changes = [
        f"--set={text}"
        for text in ("model.backbone=cifar_resnet8", "batch_size=20", "epochs=6", "workers=0", "threads=1", "lr=0.05")
    ]
    code, out, err = ultron(
        "--json", "train", "--preset", "autola-cifar10", "--dataset", tmp_path, *changes, "--out", tmp_path / "run"
    )
    assert code == 0, err
    summary = json.loads(out)
    last = summary["metrics"][-1]
    assert summary["n_held_out"] == 8 and summary["n_train_photos"] == 40
    assert last["validation_photos"] == 8 and last["validation_top5"] == 1.0 and last["validation_top1"] > 0.6, summary[
        "metrics"
    ]
    stored = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert stored["loss_state"]["weight"].shape == (3, 64) and stored["loss_state"]["bias"].shape == (3,)
    assert "held-out top-1" in err


def test_the_middle_is_scored_and_an_unreadable_photo_counts_as_wrong(tmp_path: Path) -> None:
    for name, grey in (("a", 40), ("b", 200)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((40, 80, 3), grey, np.uint8)).save(tmp_path / name / "0.png")
    photos = open_landmark_photos(tmp_path)
    reader = MiddleReader([0, 1], photos, 20, 0.5, "bilinear")
    assert reader[0].pixels.shape == (20, 20, 3)
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[10:30, 30:50] = 255  # the middle half of the shorter side
    Image.fromarray(stripes).save(tmp_path / "a" / "0.png")
    assert int(MiddleReader([0], photos, 20, 0.5, "nearest")[0].pixels.min()) == 255
    (tmp_path / "b" / "0.png").write_bytes(b"no photo")
    model = create_model("gem", backbone="test_resnet")
    loss = create_loss("arcface", n_classes=2, dim=model.descriptor_dim)
    result = ClassificationValidation(photos, 32, 1.0, 0).run(model, loss, torch.device("cpu"))
    assert result.n_photos == 2 and result.top1 <= 0.5 and result.top5 == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["validation.kind=classification"],
            "scored on classes that were trained on only; add --set validation.by=photos",
        ),
        (
            ["validation.kind=classification", "validation.by=photos", "validation.share=0"],
            "classification has no photos to score: .* is no train/ beside",
        ),
        (
            ["validation.kind=classification", "validation.by=photos", "loss.sharded=true"],
            "needs all class weights in one process",
        ),
        (["model.name=gem", "model.backbone=cifar_resnet21"], "a CIFAR ResNet is cifar_resnetN with N = 6n"),
    ],
)
def test_mistakes_are_one_line(ultron: Run, toy: Path, changes: list[str], words: str) -> None:
    code, _, err = ultron(
        "train", "--dataset", toy, "--set=workers=0", "--set=batch_size=8", *(f"--set={change}" for change in changes)
    )
    assert code == 2 and re.search(words, err), err
    assert "Traceback" not in err


def test_other_classes_in_val_are_told(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "val/c"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    with pytest.raises(UltronError, match=r"val has 1 class that .*train has not \(c\); name the folders alike"):
        photos_to_score(open_landmark_photos(tmp_path))
