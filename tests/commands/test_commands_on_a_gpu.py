"""The commands with --device cuda, as a person uses them: what they write is what the CPU writes. `make gpu-check` runs
this."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Run
from ultron_cli.retrieval.descriptors import DescriptorFile

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
MODEL = ("--untrained", "--model", "gem", "--backbone", "test_resnet", "--workers", "0")


def rows(folder: Path) -> np.ndarray:
    """Queries, then database, (N, D)."""
    parts = []
    for name in ("queries", "database"):
        with DescriptorFile(folder / f"{name}.h5") as file:
            parts.append(file.read(0, file.n))
    return np.concatenate(parts)


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.99)])
def test_descriptors_and_scores_are_those_of_the_cpu(
    ultron: Run, toy: Path, tmp_path: Path, precision: str, least: float
) -> None:
    scores = []
    for device, number_type in (("cpu", "float32"), (DEVICE, precision)):
        out = tmp_path / device / number_type
        code, _, err = ultron(
            "extract", toy, *MODEL, "--scales", "3", "--device", device, "--precision", number_type, "--out", out
        )
        assert code == 0, err
        code, text, err = ultron(
            "evaluate", "--queries", out / "queries.h5", "--database", out / "database.h5", "--device", device, "--json"
        )
        assert code == 0, err
        scores.append([report["mAP"] for report in json.loads(text)["protocols"].values()])
    gpu_rows, cpu_rows = (rows(tmp_path / place) for place in (f"{DEVICE}/{precision}", "cpu/float32"))
    assert (gpu_rows * cpu_rows).sum(1).min() > least
    np.testing.assert_allclose(
        scores[1], scores[0], atol=0.02 if precision == "float32" else 0.05
    )  # near ranks may change places: convolutions in TF32


def test_from_training_to_pictures(ultron: Run, toy: Path, tmp_path: Path) -> None:
    settings = ("model.name=ultron-t", "epochs=1", "batch_size=8", "side_px=64", "workers=2", "precision=bfloat16")
    on_device = ("--device", DEVICE, "--json")
    code, out, err = ultron(
        "train", "--dataset", toy, *(part for setting in settings for part in ("--set", setting)), *on_device
    )
    assert code == 0, err
    stored = json.loads((Path(json.loads(out)["run"]) / "environment.json").read_text())
    assert stored["gpu"] == torch.cuda.get_device_name()
    commands = [
        ("extract", "--dataset", toy, "--scales", "3"),
        ("search", "-k", 5),
        ("search", toy / "jpg" / sorted((toy / "jpg").iterdir())[0].name, "-k", 3),
        ("evaluate", "--protocol", "all"),
    ]
    for command in commands:
        code, _, err = ultron(*command, *on_device)
        assert code == 0, (command, err)
    for command in (("match", "--at", "40,40"), ("dilation",), ("attention",)):
        draws(ultron, *command)


def draws(ultron: Run, *command: object) -> None:
    code, out, err = ultron("visualize", *command, "--device", DEVICE, "--json")
    assert code == 0, (command, err)
    with Image.open(json.loads(out)["figure"]) as figure:
        assert figure.format == "PNG"


def test_activation_maps(ultron: Run, toy: Path) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    code, _, err = ultron("extract", toy, *MODEL, "--device", DEVICE)
    assert code == 0, err
    draws(ultron, "cam", "-k", 2)


def test_bench_and_doctor_name_the_gpu(ultron: Run) -> None:
    code, out, err = ultron("doctor")
    assert code == 0, err
    assert torch.cuda.get_device_name() in out
    code, out, err = ultron("bench", "--backbone", "test_resnet", "--side", 96, "--batch-size", 2, "--device", DEVICE)
    assert code == 0, err
