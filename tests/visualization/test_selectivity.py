"""Class selectivity: against a loop over units, over hooks, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Run
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.weights.checkpoints import save_checkpoint
from ultron_cli.visualization.selectivity import ClassMeans, chosen_photos, measure, selectivity_index


def test_index_equals_a_loop_over_units() -> None:
    means = np.random.default_rng(0).random((7, 20))
    means[:, 3] = 0  # a unit that never fires
    means[1:, 4] = 0  # fires for one class only
    right = []
    for unit in means.T:
        largest = max(unit)
        others = [value for i, value in enumerate(unit) if i != int(np.argmax(unit))]
        rest = sum(others) / len(others)
        right.append((largest - rest) / (largest + rest) if largest + rest else 0.0)
    np.testing.assert_allclose(selectivity_index(means), right, rtol=1e-12)
    assert selectivity_index(means)[3] == 0 and selectivity_index(means)[4] == 1
    with pytest.raises(ValueError, match="K at least 2"):
        selectivity_index(means[:1])


def test_means_by_class() -> None:
    maps, labels = torch.randn(6, 3, 4, 5), np.array([0, 1, 0, 1, 1, 3])
    gathered = ClassMeans(5)
    gathered.add(maps[:4], labels[:4])
    gathered.add(maps[4:], labels[4:])
    units = maps.clamp(min=0).mean((2, 3)).double().numpy()
    np.testing.assert_allclose(gathered.means(), [units[labels == c].mean(0) for c in (0, 1, 3)], rtol=1e-6)


def test_layers_of_a_network_on_photos(toy: Path) -> None:
    torch.manual_seed(0)
    model, photos = create_model("gem", backbone="test_resnet"), open_landmark_photos(toy)
    rows = chosen_photos(photos, 3, 2)
    assert len(rows) == 6
    result = measure(model, "m", photos, rows, [], 64, torch.device("cpu"))
    widths = [entry["num_chs"] for entry in model.backbone.network.feature_info if entry["module"].startswith("layer")]
    assert [len(values) for values in result.layers.values()] == widths[-len(result.layers) :]
    assert all((values >= 0).all() and (values <= 1).all() for values in result.layers.values())
    assert not model.backbone.network.layer1._forward_hooks  # nothing stays behind
    with pytest.raises(UltronError, match=r"no layer 'layr1'.*layer1"):
        measure(model, "m", photos, rows, ["layr1"], 64, torch.device("cpu"))
    ultron = measure(create_model("ultron-t"), "u", photos, rows[:4], [], 64, torch.device("cpu"))
    assert {name: len(values) for name, values in ultron.layers.items()} == {
        "stage1": 16,
        "stage2": 32,
        "stage3": 64,
        "stage4": 128,
    }
    vit = create_model("gem", backbone="test_vit")
    assert measure(vit, "v", photos, rows[:4], ["blocks.0"], 64, torch.device("cpu")).layers["blocks.0"].shape == (
        vit.backbone.n_channels,
    )


def test_command(toy: Path, ultron: Run, tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / f"m{seed}.pt", create_model("gem", backbone="test_resnet"), {})
    out = tmp_path / "s.svg"
    files = ["--weights", tmp_path / "m0.pt", "--weights", tmp_path / "m1.pt"]
    code, text, error = ultron(
        "visualize", "selectivity", *files, "--dataset", toy, "--classes", 3, "--photos", 2, "--side", 64, "--out", out
    )
    assert code == 0, error
    assert text.split() == [str(out), str(out.with_suffix(".csv"))]
    with open(out.with_suffix(".csv"), newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert {line["model"] for line in lines} == {"m0 (gem-test_resnet)", "m1 (gem-test_resnet)"}
    assert "<svg" in out.read_text(encoding="utf-8")
