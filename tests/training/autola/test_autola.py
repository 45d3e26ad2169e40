"""AutoLA's search: halves, choice of the genotype, the two kinds of step, a small search with its files, and going
on after a stop."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models import create_model
from ultron_cli.models.attentions.genotype import OPERATIONS, load_genotype
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.autola.network import EDGES, AutolaLogits, choose_genotype, make_network
from ultron_cli.training.autola.run import AutolaResult, AutolaRun
from ultron_cli.training.autola.search import AutolaSearch, split_halves
from ultron_cli.training.presets import make_config
from ultron_cli.visualization.curves.run_pictures import draw_run

pytestmark = pytest.mark.slow

SMALL = {
    "backbone": "test_resnet",
    "width": 8,
    "small_stem": False,
    "side_px": 32,
    "batch_size": 6,
    "epochs": 2,
    "architecture_lr": 0.05,
}
SMALL |= {"workers": 0, "threads": 1}


@pytest.fixture
def photos(toy: Path) -> LandmarkPhotos:
    return open_landmark_photos(toy)


def search_attention(photos: LandmarkPhotos, config: AutolaConfig, folder: Path, resume: bool = False) -> AutolaResult:
    """Searches on the CPU, without pictures."""
    return AutolaRun(photos, config, torch.device("cpu")).run(folder, resume)


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8), torch.arange(6)


def test_halves_share_every_class() -> None:
    labels = np.repeat([0, 1, 2, 3], [4, 5, 7, 1])
    left, right = split_halves(labels, seed=0)
    assert sorted([*left, *right]) == list(range(17))
    assert np.bincount(labels[left], minlength=4).tolist() == [2, 3, 3, 1] and np.bincount(
        labels[right], minlength=4
    ).tolist() == [2, 2, 4, 0]
    assert not np.array_equal(left, split_halves(labels, seed=1)[0]) and np.array_equal(
        left, split_halves(labels, seed=0)[0]
    )


def test_genotype_of_weights_worked_by_hand() -> None:
    weights = np.full((10, 9), 0.01)
    column = {name: i for i, name in enumerate(OPERATIONS)}
    strongest = {
        (1, 0): "sep",
        (2, 0): "skip",
        (2, 1): "cbam",
        (3, 0): "se",
        (3, 1): "dil",
        (3, 2): "skip",
        (4, 0): "sep",
        (4, 1): "se_max",
    }
    strongest |= {(4, 2): "dil_spatial", (4, 3): "sep_spatial"}
    for i, edge in enumerate(EDGES):
        weights[i, column[strongest[edge]]] = 0.3 + 0.05 * i
        weights[i, column["none"]] = 0.9  # never chosen
    genotype, strengths = choose_genotype(weights)
    assert genotype.text == "sep:0/cbam:1,skip:0/skip:2,dil:1,se:0/sep_spatial:3,dil_spatial:2,se_max:1,sep:0"
    np.testing.assert_allclose(strengths[1], [0.4, 0.35])


def test_each_step_moves_its_own_parameters_only() -> None:
    search = AutolaSearch(AutolaConfig(**SMALL), 6, torch.device("cpu"))
    network = {name: parameter.clone() for name, parameter in search.network.named_parameters()}
    assert not any("logits" in name for name in network)
    logits = search.architecture.logits.detach().clone()
    search.step_architecture(*batch(0))
    assert not torch.equal(search.architecture.logits, logits)
    assert all(torch.equal(parameter, network[name]) for name, parameter in search.network.named_parameters())
    logits = search.architecture.logits.detach().clone()
    search.step_weights(*batch(1))
    assert torch.equal(search.architecture.logits, logits)
    assert sum(
        not torch.equal(parameter, network[name]) for name, parameter in search.network.named_parameters()
    ) > 0.9 * len(network)


@pytest.mark.parametrize(
    ("settings", "mean", "sd"),
    [
        ({}, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # of the authors' utils.py, to four digits
        ({"statistics": "imagenet"}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_photos_are_normalised_by_the_statistics(settings: dict, mean: tuple, sd: tuple) -> None:
    search = AutolaSearch(AutolaConfig(**SMALL | settings), 6, torch.device("cpu"))
    inputs: list[torch.Tensor] = []
    search.network.register_forward_pre_hook(lambda _, images: inputs.append(images[0]))
    pixels, labels = batch(0)
    search.step_weights(pixels, labels)
    right = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(sd).view(3, 1, 1)
    torch.testing.assert_close(inputs[0], right, rtol=0, atol=1e-5)


def test_a_search_of_0_1_0_is_read_as_it_was() -> None:
    stored = AutolaConfig(**SMALL).to_plain()
    before = {key: value for key, value in stored.items() if key not in ("reductions", "statistics")}
    config = make_config(before, is_stored=True)
    assert isinstance(config, AutolaConfig)
    assert (config.reductions, config.statistics) == ((8, 8), "imagenet") and make_config(
        stored, is_stored=True
    ).to_plain() == stored
    frame = make_network(config, 6, AutolaLogits()).layer1[0].se.mixed.frame
    assert frame.gate.squeeze.out_features == frame.gate.squeeze.in_features // 8


def test_gradient_of_the_logits_is_that_of_the_loss() -> None:
    """By central differences in float64, in evaluation mode, so that no batch statistics move between the two."""
    torch.manual_seed(0)
    architecture = AutolaLogits().double()
    network = make_network(AutolaConfig(**SMALL), 6, architecture).double().eval()
    images, labels = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3])

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(images), labels)

    (gradient,) = torch.autograd.grad(loss(), [architecture.logits])
    for place in ((0, 2), (9, 0)):
        values = []
        for change in (1e-5, -1e-5):
            architecture.logits.data[place] += change
            values.append(float(loss().detach()))
            architecture.logits.data[place] -= change
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_search_on_rendered_landmarks(photos: LandmarkPhotos, tmp_path: Path) -> None:
    config = AutolaConfig(**SMALL | {"batch_size": 16})
    result = AutolaRun(photos, config, torch.device("cpu")).run(tmp_path)
    draw_run(tmp_path, result)
    assert result.edge_weights.shape == (10, 9)
    np.testing.assert_allclose(result.edge_weights.sum(1), 1, atol=1e-5)
    assert (
        np.abs(result.edge_weights - 1 / 9).max() > 0.005
    )  # they began within 0.001 of it; 0.012 to 0.016 with 8 seeds
    assert [entry["epoch"] for entry in result.history] == [1, 2] and all(
        np.isfinite(list(entry.values())).all() for entry in result.history
    )
    assert load_genotype(tmp_path / "genotype.txt") == result.genotype
    assert create_model("gem", backbone="test_resnet", attention="hoga", genotype=result.genotype.text)
    with open(tmp_path / "edge_weights.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 90 and sum(int(line["chosen"]) for line in lines) == 10
    assert (tmp_path / "genotype.png").stat().st_size > 4000
    record = json.loads((tmp_path / "search.json").read_text())
    assert (
        record["genotype"] == result.genotype.text
        and record["config"]["batch_size"] == 16
        and len(record["history"]) == 2
    )


def test_a_stopped_search_goes_on_as_if_it_had_not_stopped(
    photos: LandmarkPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutolaConfig(**SMALL)
    photos = photos.take(np.flatnonzero(photos.labels < 4))  # 12 photos in a half, two steps an epoch
    whole = search_attention(photos, config, tmp_path / "whole")
    own_step, step_calls = AutolaSearch.step_weights, []

    def stop_at_the_third_step(search: AutolaSearch, *batch: torch.Tensor) -> tuple[float, float]:
        step_calls.append(1)
        if len(step_calls) == 3:  # within the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return own_step(search, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(AutolaSearch, "step_weights", stop_at_the_third_step)
        with pytest.raises(
            WorkFailed, match="stopped by SIGTERM after step 3, all saved; go on with `ultron train --resume"
        ):
            search_attention(photos, config, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "genotype.txt").exists()
    with pytest.raises(UltronError, match=r"holds a search with other settings: config.lr \(stored 0.025, asked 0.1\)"):
        search_attention(photos, AutolaConfig(**SMALL | {"lr": 0.1}), tmp_path / "stopped", resume=True)
    resumed = search_attention(
        photos, AutolaConfig(**SMALL | {"checkpoint_minutes": 3.0}), tmp_path / "stopped", resume=True
    )
    assert np.array_equal(resumed.edge_weights, whole.edge_weights) and resumed.history == whole.history


def test_a_cifar_resnet_is_searched_in_three_stages() -> None:
    network = make_network(AutolaConfig(backbone="cifar_resnet20", width=8), 10, AutolaLogits())
    assert [len(getattr(network, f"layer{number}")) for number in (1, 2, 3, 4)] == [3, 3, 3, 0]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10) and network.num_features == 32


def test_default_network_is_the_authors_width() -> None:
    network = make_network(AutolaConfig(), 10, AutolaLogits())
    assert [stage["num_chs"] for stage in network.feature_info[1:]] == [16, 32, 64, 128]
    assert network.conv1.kernel_size == (3, 3) and isinstance(network.maxpool, torch.nn.Identity)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet3"}, "unknown backbone 'resnet3'; did you mean .*; the search takes a ResNet of timm"),
        ({"width": 10}, "width must be a multiple of 4"),
        ({"reductions": (4,)}, "reductions must be two numbers from 1"),
        ({"backbone": "seresnet18"}, "seresnet18 has attentions in its blocks already"),
        ({"backbone": "test_vit"}, "test_vit takes no width; choose resnet18 or resnet34"),
        ({"backbone": "test_vit", "width": None}, "the search takes a ResNet of timm"),
        ({"backbone": "test_convnext", "width": None}, "the search takes a ResNet of timm"),
        ({"epochs": 0}, "`epochs` must lie between 1 and 100000; found 0"),
    ],
)
def test_mistakes_are_told(settings: dict, message: str) -> None:
    with pytest.raises(UltronError, match=message):
        make_network(AutolaConfig(**settings), 4, AutolaLogits())


def test_too_few_photos_and_a_loss_that_is_not_finite_are_told(photos: LandmarkPhotos, tmp_path: Path) -> None:
    with pytest.raises(
        UltronError,
        match="a half of the photos, 18, is less than one batch of 32; lower batch_size or give more photos",
    ):
        search_attention(photos, AutolaConfig(**SMALL | {"batch_size": 32}), tmp_path)
    search = AutolaSearch(AutolaConfig(**SMALL), 6, torch.device("cpu"))
    search.network.conv1[0].weight.data.fill_(float("nan"))
    with pytest.raises(WorkFailed, match="the loss of the search is nan; lower lr"):
        search.step_weights(*batch(0))
