"""Every model of the registry does what the commands ask of one: any size, a training step, its settings and weights
written and read, a CAM.

In small form: settings that only make a network thinner, and stand-ins for large backbones.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ultron_cli.configs import from_dict, to_dict
from ultron_cli.models import create_model, list_models
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.layer_maps import map_at
from ultron_cli.models.parts import POOLINGS
from ultron_cli.models.weights import IMPORTERS, models_of
from ultron_cli.models.weights.checkpoints import load_checkpoint, save_checkpoint
from ultron_cli.models.weights.pycls import CheckpointLayout
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.visualization.cam.similarity import similarity_cam

pytestmark = pytest.mark.slow

THIN_ULTRON = {
    "depths": [1, 1, 2, 1],
    "widths": [16, 24, 32, 64],
    "heads": [2, 4],
    "expansion": 2,
    "descriptor_dim": 24,
    "drop_path": 0.0,
}
THIN_DOLG = {"backbone": "test_resnet", "atrous_dim": 6, "local_dim": 10, "descriptor_dim": 24}
SMALL_FORMS: dict[str, dict[str, Any]] = {
    "adapted": {"base": {"name": "gem", "backbone": "test_resnet"}, "descriptor_dim": 24},
    "cfcd-r101": {"backbone": "test_resnet", "descriptor_dim": 24},
    "cfcd-r50": {"backbone": "test_resnet", "descriptor_dim": 24},
    "dalg": {"dim": 24, "n_heads": 3, "descriptor_dim": 24},
    "dolg-r101": THIN_DOLG,
    "dolg-r50": THIN_DOLG,
    "gem": {"backbone": "test_resnet", "descriptor_dim": 24},
    "senet-r101": {"backbone": "test_resnet", "descriptor_dim": 24, "similarity_dim": 8},
    "senet-r50": {"backbone": "test_resnet", "descriptor_dim": 24, "similarity_dim": 8},
    "superglobal": {"backbone": "test_resnet", "descriptor_dim": 24},
    "ultron-b": THIN_ULTRON,
    "ultron-s": THIN_ULTRON,
    "ultron-t": THIN_ULTRON,
}
SWIN = "swin_small_patch4_window7_224"  # the default of dalg


@pytest.fixture(autouse=True)
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's Swin with a quarter of the channels and one pair of blocks per stage: timm has none this small by name."""
    original = timm.create_model

    def make(name: str, **options: Any) -> nn.Module:
        return original(
            name,
            **options,
            **({"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)} if name == SWIN else {}),
        )

    monkeypatch.setattr(timm, "create_model", make)


def small(name: str) -> RetrievalModel:
    torch.manual_seed(0)
    return create_model(name, **SMALL_FORMS[name])


def photos(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_no_model_is_forgotten() -> None:
    assert sorted(SMALL_FORMS) == list_models()


@pytest.mark.parametrize("name", list_models())
@torch.inference_mode()
def test_sizes(name: str) -> None:
    """Square, wide, and 1024 px: unit descriptors, a map as wide as the photo asks, and a photo's own whatever the
    batch holds."""
    model = small(name)
    for n, height, width in ((2, 224, 224), (1, 384, 512), (1, 1024, 1024)):
        images = photos(n, 3, height, width)
        descriptors = model(images)
        assert descriptors.shape == (n, model.descriptor_dim) and descriptors.dtype == torch.float32
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(n))
        if n == 2:
            torch.testing.assert_close(model(images[:1]), descriptors[:1], rtol=0, atol=1e-5)
    rows, columns = model.feature_map(photos(1, 3, 384, 512)).shape[2:]
    assert rows * 4 == columns * 3


@pytest.mark.parametrize("name", list_models())
def test_a_training_step_moves_every_weight(name: str) -> None:
    settings = {
        "model": {"name": name, **SMALL_FORMS[name]},
        "loss": {"name": "arcface", "margin": 0.1, "scale": 16.0},
        "side_px": 64,
        "batch_size": 4,
        "optimizer": "adamw",
        "lr": 0.002,
        "weight_decay": 0.0,
        "warmup_epochs": 0.0,
        "epochs": 2,
    }
    learner = Learner(from_dict(TrainConfig, settings), 4, 10, torch.device("cpu"))
    free = {
        key: value for key, value in learner.model.named_parameters() if value.requires_grad
    }  # not a frozen network
    before = {key: value.detach().clone() for key, value in free.items()}
    learner.train()
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    losses = [learner.step(pixels, torch.arange(4), step).loss for step in range(4)]
    assert np.isfinite(losses).all() and losses[3] < losses[0]
    still = [key for key, value in free.items() if torch.equal(value, before[key])]
    # A threshold has no gradient (CDConv, as published), and a backbone may have a norm that serves its classifier
    # alone.
    assert len(still) <= 0.1 * len(before), still


@pytest.mark.parametrize("name", list_models())
def test_settings_and_weights_travel(name: str, tmp_path: Path) -> None:
    model, images = small(name), photos(1, 3, 96, 128)
    with torch.inference_mode():
        expected = model(images)
    again = create_model(name, **json.loads(json.dumps(to_dict(model.settings))))
    assert again.settings == model.settings and again.label == model.label
    again.load_state_dict(model.state_dict())
    save_checkpoint(tmp_path / "checkpoint.pt", model, {})
    loaded = load_checkpoint(tmp_path / "checkpoint.pt").model
    with torch.inference_mode():
        for other in (again, loaded):
            torch.testing.assert_close(other(images), expected, rtol=0, atol=0)
            assert other.preprocessing == model.preprocessing and other.recommended_scales == model.recommended_scales


@pytest.mark.parametrize("method", ["gradcam++", "hirescam"])
@pytest.mark.parametrize("name", list_models())
def test_cam(name: str, method: str) -> None:
    model = small(name)
    photo = np.random.default_rng(3).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    with torch.inference_mode():
        other = model(photos(1, 3, 96, 96, seed=4))[0]
    cam = similarity_cam(model, photo, other, method=method)
    assert cam.heat.shape == (96, 160) and cam.heat.dtype == np.float32
    assert cam.flat or (cam.heat.min() >= 0 and cam.heat.max() == pytest.approx(1.0))
    assert not cam.flat or method == "gradcam++"  # its weights may be negative for all places


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
@torch.inference_mode()
def test_real_sizes_describe_a_photo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks as published, random weights, one photo of 512 x 384 px."""
    monkeypatch.undo()
    torch.manual_seed(0)
    model = create_model(name)
    torch.testing.assert_close(model(photos(1, 3, 384, 512)).norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("name", list_models())
def test_a_model_tells_its_stages(name: str) -> None:
    """Their names are those of layers that can be shown, and each gives a map of the photo's shape."""
    model, images = small(name), photos(1, 3, 96, 128)
    stages = model.named_stages()
    assert len(stages) >= 4 and all(isinstance(layer, nn.Module) for layer in stages.values())
    assert model.named_layers()
    for stage in list(stages)[:3]:  # the last is made after feature_map where `pool` needs the one before
        rows, columns = map_at(model, images, stage).shape[2:]
        assert rows * 4 == columns * 3


@pytest.mark.parametrize("name", list_models())
@torch.inference_mode()
def test_unit_norm_is_the_same_with_and_without_maps(name: str) -> None:
    model, images = small(name), photos(2, 3, 96, 128)
    lengths = model(images, unit_norm=False).norm(dim=1)
    assert (lengths - 1).abs().max() > 1e-3
    for unit_norm in (True, False):
        descriptors, maps = model(images, with_maps=True, unit_norm=unit_norm)
        torch.testing.assert_close(descriptors, model(images, unit_norm=unit_norm), rtol=0, atol=0)
        torch.testing.assert_close(maps, model.feature_map(images), rtol=0, atol=0)


def test_names_are_known_without_torch() -> None:
    """Help texts and choices take them from the tables of models and of importers."""
    command = (
        "import sys; from ultron_cli.models import list_models; from ultron_cli.models.weights import IMPORTERS; "
        "print(len(list_models()), len(IMPORTERS), 'torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(len(SMALL_FORMS)), str(len(IMPORTERS)), "False"]


def test_a_model_says_with_which_poolings_it_pools_by_attention() -> None:
    """The values that name a pooling of its settings: with those it has the map, with the others none."""
    for name, settings, poolings in (
        ("gem", {"backbone": "test_vit"}, list(POOLINGS)),
        ("ultron-t", THIN_ULTRON, ["attention", "gem"]),
    ):
        for pooling in poolings:
            model = create_model(name, **settings, pooling=pooling)
            has_map = model.pooling_attention(torch.zeros(1, 3, model.min_side_px, model.min_side_px)) is not None
            assert has_map == (pooling in model.attention_poolings), (name, pooling)


@pytest.mark.parametrize("source", list(IMPORTERS))
def test_every_importer_is_there_and_makes_the_models_that_name_it(source: str) -> None:
    importer = IMPORTERS[source].function()
    assert callable(importer) and models_of(source)
    if isinstance(importer, CheckpointLayout):
        assert sorted({model for model, _ in importer.models.values()}) == models_of(source)
