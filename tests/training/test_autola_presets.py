"""AutoLA by presets: the search as a run of `ultron train`, training with what it found, CIFAR's published files, top-1
of held-out photos."""

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs_for_tests import SMALL as SMALL_RUN

from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.cifar import LAYOUTS, cifar_photos, find_cifar
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.attentions.genotype import OPERATIONS, load_genotype
from ultron_cli.training.batches.photos import Augmentation, seeded_randomness
from ultron_cli.training.config import AugmentConfig, TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.losses import create_loss
from ultron_cli.training.losses.base import LossResult
from ultron_cli.training.presets import load_config
from ultron_cli.training.validation_classes import ClassificationValidation, MiddleReader, photos_to_score

Run = Callable[..., tuple[int, str, str]]
SEARCH = [
    f"--set={text}"
    for text in (
        "backbone=cifar_resnet8",
        "width=8",
        "batch_size=8",
        "epochs=2",
        "architecture_lr=0.05",
        "workers=0",
        "threads=1",
    )
]
NAMES = ["airplane", "cat", "ship"]


def write_cifar10(folder: Path, n: int = 8, part: str = "python") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIFAR-10 in the published layout, with few photos: pixels (n, 3072) uint8 and labels of each file. Class c is
    bright in channel c."""
    draws, written = np.random.default_rng(5), {}
    place = folder / ("cifar-10-batches-py" if part == "python" else "cifar-10-batches-bin")
    place.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = np.arange(n) % len(NAMES)
        data = draws.integers(0, 60, (n, 3, 1024), dtype=np.uint8)
        data[np.arange(n), labels] += 150
        data = data.reshape(n, 3072)
        written[name] = data, labels
        if part == "python":
            table = {b"batch_label": b"few", b"labels": labels.tolist(), b"data": data, b"filenames": [b"x.png"] * n}
            (place / name).write_bytes(pickle.dumps(table, protocol=2))
        else:
            (place / f"{name}.bin").write_bytes(
                np.concatenate([labels[:, None].astype(np.uint8), data], axis=1).tobytes()
            )
    if part == "python":
        (place / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES, "num_vis": 3072}, protocol=2))
    else:
        (place / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return written


@pytest.mark.parametrize("part", ["python", "binary"])
def test_published_files_become_photos_bit_by_bit(tmp_path: Path, part: str) -> None:
    written = write_cifar10(tmp_path, part=part)
    photos = open_landmark_photos(tmp_path)  # the folder that holds the published one, as torchvision's root
    assert photos.landmark_names == NAMES and len(photos.paths) == 40 and photos.folder.name == "train"
    data, labels = written["data_batch_2"]
    pixels = np.asarray(
        Image.open(photos.folder / NAMES[labels[1]] / "00010.png")
    )  # the second photo of the second file
    assert pixels.shape == (32, 32, 3)
    assert pixels[3, 7].tolist() == [data[1, channel * 1024 + 3 * 32 + 7] for channel in range(3)]
    scored = photos_to_score(photos)
    assert scored is not None and len(scored.paths) == 8 and scored.landmark_names == NAMES
    before = sorted(path.stat().st_mtime_ns for path in photos.folder.rglob("*.png"))
    open_landmark_photos(tmp_path)
    assert sorted(path.stat().st_mtime_ns for path in photos.folder.rglob("*.png")) == before  # written once


def test_cifar100_takes_the_fine_label_of_both_versions(tmp_path: Path) -> None:
    data = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    for name in ("train", "test"):
        table = {"data": data, "fine_labels": [1, 0], "coarse_labels": [0, 0]}
        for place in ("cifar-100-python", "cifar-100-binary"):
            (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(table, protocol=2))
        records = np.concatenate([np.array([[0, 1], [0, 0]], np.uint8), data], axis=1)
        (tmp_path / "cifar-100-binary" / f"{name}.bin").write_bytes(records.tobytes())
    (tmp_path / "cifar-100-python" / "meta").write_bytes(
        pickle.dumps({"fine_label_names": ["apple", "bee"], "coarse_label_names": ["all"]}, protocol=2)
    )
    (tmp_path / "cifar-100-binary" / "fine_label_names.txt").write_text("apple\nbee\n")
    for layout in (LAYOUTS[1], LAYOUTS[3]):
        place = cifar_photos(tmp_path / layout.folder)
        assert place is not None and find_cifar(tmp_path / layout.folder) == (tmp_path / layout.folder, layout)
        assert sorted(path.relative_to(place).as_posix() for path in place.rglob("*.png")) == [
            "test/apple/00002.png",
            "test/bee/00001.png",
            "train/apple/00002.png",
            "train/bee/00001.png",
        ]
        np.testing.assert_array_equal(
            np.asarray(Image.open(place / "train/bee/00001.png")), data[0].reshape(3, 32, 32).transpose(1, 2, 0)
        )


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    witness = tmp_path / "witness"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (witness,)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": Runs(), "labels": [0]}))
    with pytest.raises(
        UltronError,
        match=r"data_batch_3 was refused, and nothing in it was run: a batch of CIFAR may hold only .* or take the "
        r"binary version",
    ):
        open_landmark_photos(tmp_path)
    assert not witness.exists() and not list(
        (tmp_path / "cifar-10-batches-py").glob("*photos*")
    )  # nothing half written stays


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "data_batch_1",
            {"data": np.zeros((2, 10), np.uint8), "labels": [0, 1]},
            r"must hold \(N, 3072\) bytes and N labels",
        ),
        ("data_batch_1", {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 3]}, "has labels that are not 0 to 2"),
        ("data_batch_1", [1, 2], "must hold a dictionary of CIFAR, found list"),
        ("batches.meta", {"label_names": ["../up", "cat"]}, "must name the classes"),
        ("data_batch_4", None, "data_batch_4 is not there, the other files of cifar-10-batches-py are"),
    ],
)
def test_other_contents_are_told(tmp_path: Path, file: str, content: Any, words: str) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / file
    path.unlink() if content is None else path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UltronError, match=words):
        cifar_photos(tmp_path)
    assert not (tmp_path / "cifar-10-batches-py" / "photos").exists()


def test_search_writes_everything_and_its_genotype_trains(ultron: Run, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    code, out, err = ultron("train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--out", folder)
    assert code == 0, err
    genotype = load_genotype(folder / "genotype.txt")
    assert "seed 0" in (folder / "genotype.txt").read_text() and genotype.text in out
    assert Image.open(folder / "genotype.png").size[0] > 500 and (folder / "curves.png").stat().st_size > 4000
    lines = list(csv.DictReader((folder / "edge_weights.csv").open(newline="")))
    assert len(lines) == 90 and {line["operation"] for line in lines} == set(OPERATIONS)
    for line in lines[:9]:
        assert f"{float(line['weight']):.3f}" in out  # the printed table
    stored = json.loads((folder / "config.json").read_text())["config"]
    assert (
        stored["task"] == "search" and stored["seed"] == 0 and stored["epochs"] == 2 and stored["dataset"] == str(toy)
    )
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    code, _, err = ultron("train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--out", folder)
    assert code == 2 and "holds a finished run; replace it with --overwrite" in err
    code, _, err = ultron("train", "--resume", "--out", folder)
    assert code == 2 and "is finished, there is nothing to resume" in err
    network = (
        f"model.genotype={genotype.text}",
        "model.attention=hoga",
        "model.name=gem",
        "model.backbone=cifar_resnet8",
    )
    trained = [f"--set={text}" for text in (*network, "side_px=32", "epochs=1", "workers=0", "validation.share=0")]
    code, out, err = ultron("train", "--dataset", toy, *trained, "--out", tmp_path / "trained")
    assert code == 0, err
    assert "gem-cifar_resnet8-hoga" in out
    blocks = torch.load(tmp_path / "trained" / "checkpoint.pt", weights_only=True)
    assert blocks["model"]["settings"]["genotype"] == genotype.text and any(
        ".se.operations." in name for name in blocks["state_dict"]
    )


def test_runs_are_listed_and_a_search_is_not_taken_for_a_model(ultron: Run, toy: Path) -> None:
    code, out, err = ultron(
        "--json", "train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--set", "epochs=1"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert len(summary["edges"]) == 10 and sum(summary["edges"][0]["weights"]) == pytest.approx(1.0, abs=1e-4)
    (listed,) = json.loads(ultron("--json", "train", "--list")[1])["runs"]
    assert listed["state"] == "finished" and listed["model"] == "search-cifar_resnet8" and listed["epochs_done"] == 1
    code, _, err = ultron("extract", "--dataset", toy)
    assert code == 2 and "no result of `ultron train` in the workspace" in err


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


@pytest.mark.parametrize(
    "preset", ["autola-cifar10", "autola-cifar100", "autola-imagenet", "ggem-vit-b", "autola-search"]
)
def test_presets_are_whole(preset: str) -> None:
    config = load_config(preset, None, [])
    if preset == "autola-search":
        assert (config.epochs, config.lr, config.architecture_lr, config.augment.pad_px) == (50, 0.025, 3e-3, 4)
        return
    assert isinstance(config, TrainConfig)
    if preset == "ggem-vit-b":
        assert config.model["pooling"] == "ggem" and config.model["backbone"] == "vit_base_patch16_224"
        return
    assert (
        config.loss["name"] == "linear"
        and config.validation.kind == "classification"
        and config.model["attention"] == "hoga"
    )
    expected = {"autola-cifar10": (500, 256), "autola-cifar100": (500, 128), "autola-imagenet": (100, 256)}[preset]
    assert (config.epochs, config.batch_size) == expected
    if preset == "autola-imagenet":
        assert config.schedule == "steps" and config.step_epochs == (30, 60, 90) and config.step_factor == 0.1
    else:
        model = create_model("gem", **{key: value for key, value in config.model.items() if key != "name"})
        assert (
            model.backbone.network.layer1[0].conv1.out_channels == {"autola-cifar10": 16, "autola-cifar100": 64}[preset]
        )


def lengths_in_a_step(change: dict[str, Any]) -> torch.Tensor:
    """Norms of the descriptors that the loss is given in a step of a small run."""
    learner = Learner(from_dict(TrainConfig, {**SMALL_RUN, **change}), 4, 1, torch.device("cpu"))
    lengths: list[torch.Tensor] = []
    loss_result = learner.loss.result

    def watched_result(descriptors: torch.Tensor, *others: Any) -> LossResult:
        lengths.append(descriptors.detach().norm(dim=1))
        return loss_result(descriptors, *others)

    learner.loss.result = watched_result
    learner.train()
    n_photos = 2 * learner.config.accumulate
    photos = torch.randint(0, 256, (n_photos, 3, 64, 64), dtype=torch.uint8)
    learner.step(photos, torch.arange(n_photos) % 4, 0)
    return torch.cat(lengths)


def test_linear_loss_is_a_linear_layer_on_descriptors_of_any_length() -> None:
    torch.manual_seed(0)
    loss, descriptors, labels = (
        create_loss("linear", n_classes=4, dim=6),
        3 * torch.randn(5, 6),
        torch.tensor([0, 1, 2, 3, 0]),
    )
    loss.bias.data.normal_()
    expected = torch.nn.functional.cross_entropy(descriptors @ loss.weight.T + loss.bias, labels)
    torch.testing.assert_close(loss(descriptors, labels), expected)
    linear, others = (lengths_in_a_step(change) for change in ({"loss": {"name": "linear"}}, {}))
    assert (linear - 1).abs().max() > 1e-3
    torch.testing.assert_close(others, torch.ones_like(others))


def test_padded_crops_move_the_photo_over_black(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    plain = AugmentConfig(pad_px=4, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, flip=False)
    augment, seen = Augmentation(plain, [(32, 32)]), set()
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0))).transpose(2, 0, 1)
    for seed in range(12):
        with seeded_randomness(seed):
            found = augment(tmp_path / "x.png", 0).numpy()
        places = [
            (y, x) for y in range(9) for x in range(9) if np.array_equal(padded[:, y : y + 32, x : x + 32], found)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 6


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
    import re

    code, _, err = ultron("train", "--dataset", toy, "--set=workers=0", *(f"--set={change}" for change in changes))
    assert code == 2 and re.search(words, err), err
    assert "Traceback" not in err


def test_other_classes_in_val_are_told(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "val/c"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    with pytest.raises(UltronError, match=r"val has 1 class that .*train has not \(c\); name the folders alike"):
        photos_to_score(open_landmark_photos(tmp_path))
