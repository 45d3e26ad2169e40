"""What every entry of a registry keeps to, whichever it is: a new one is tested by being entered.

Models have theirs in models/test_every_model.py, re-ranking steps in retrieval/rerank/test_rerank.py, finishing steps
of datasets in datasets/download/test_catalog.py.
"""

import importlib
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.retrieval.rows_for_tests import INFO
from ultron_cli.configs import from_dict
from ultron_cli.models import create_model
from ultron_cli.models.attentions import ATTENTIONS
from ultron_cli.models.backbones.preprocessing import IMAGENET, Preprocessing
from ultron_cli.models.heads import HEADS
from ultron_cli.models.parts import POOLINGS
from ultron_cli.models.weights import IMPORTERS
from ultron_cli.retrieval.descriptors import MemoryDescriptors
from ultron_cli.retrieval.extraction.scales import SCALINGS, at_scale
from ultron_cli.retrieval.whitening_learning import METHODS as WHITENINGS
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.optimiser_table import OPTIMIZERS
from ultron_cli.training.optimisers import lr_at, make_optimizer
from ultron_cli.training.schedules import SCHEDULES
from ultron_cli.user_code import is_import_path
from ultron_cli.visualization.cam.method_table import METHODS
from ultron_cli.visualization.cam.similarity import similarity_cam

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", list(POOLINGS))
def test_a_pooling(name: str) -> None:
    """One vector per photo, whatever its shape and whatever photos are beside it, with finite gradients."""
    model = create_model("gem", backbone="test_vit", pooling=name)
    for shape in ((64, 64), (32, 96)):
        photos = torch.randn(3, 3, *shape)
        together = model(photos)
        assert together.shape == (3, model.descriptor_dim)
        torch.testing.assert_close(model(photos[1:2]), together[1:2], atol=1e-5, rtol=1e-4)
    model.describe(torch.randn(2, 3, 32, 32)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", list(ATTENTIONS))
def test_an_attention(name: str) -> None:
    """A map of the same shape, of finite numbers."""
    attention = ATTENTIONS[name]
    layer = attention.make(16).eval()
    for shape in ((1, 1), (5, 3)):
        maps = torch.randn(2, 16, *shape)
        output = layer(maps)
        assert output.shape == maps.shape and torch.isfinite(output).all()
    assert attention.stages and set(attention.stages) <= {1, 2, 3, 4}


@pytest.mark.parametrize("name", list(METHODS))
def test_a_map_method(name: str) -> None:
    """Heat of the photo's size from 0 to 1, and the photo's own descriptor."""
    model = create_model("gem", backbone="test_resnet", pooling="simpool")
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    other = F.normalize(torch.randn(model.descriptor_dim), dim=0)
    cam = similarity_cam(model, photo, other, method=name)
    assert cam.heat.shape == (48, 64) and cam.heat.dtype == np.float32
    assert 0 <= cam.heat.min() <= cam.heat.max() <= 1
    assert METHODS[name].note.format(method="m", layer="", rank=1)


@pytest.mark.parametrize("name", list(SCALINGS))
def test_a_way_of_scaling(name: str) -> None:
    pixels = torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    preprocessing = Preprocessing(mean=IMAGENET.mean, sd=IMAGENET.sd, scaling=name)  # type: ignore[arg-type]
    for scale, sides in ((0.5, (20, 28)), (2.0, (80, 112)), (0.1, (8, 8))):
        assert at_scale(pixels, scale, preprocessing, 8).shape == (2, 3, *sides)


def test_every_way_of_scaling_is_one_that_files_may_name() -> None:
    assert set(get_args(get_type_hints(Preprocessing)["scaling"])) == set(SCALINGS)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_head(name: str) -> None:
    head = HEADS[name](12, 5)
    assert head(torch.randn(3, 12)).shape == (3, 5)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_schedule(name: str) -> None:
    """The full rate right after the warm-up, and never more."""
    more = {"step_epochs": [2]} if name == "steps" else {}
    config = from_dict(TrainConfig, {"schedule": name, "epochs": 4, "warmup_epochs": 1, "lr": 0.5, **more})
    rates = [lr_at(config, step, 10) for step in range(40)]
    assert rates[:11] == pytest.approx([0.05 * step for step in (*range(1, 11), 10)])
    assert all(0 <= rate <= 0.5 for rate in rates)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_optimizer(name: str) -> None:
    """A step against the gradient, of the rate that the groups have; weights that decay, and biases that do not."""
    layer = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(from_dict(TrainConfig, {"optimizer": name, "lr": 0.01}), layer)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    assert optimizer.param_groups[0]["weight_decay"] > optimizer.param_groups[-1]["weight_decay"] == 0
    inputs = torch.randn(8, 3)
    before = layer(inputs).square().mean()
    before.backward()
    optimizer.step()
    assert layer(inputs).square().mean() < before


@pytest.mark.parametrize("name", list(WHITENINGS))
def test_a_whitening(name: str) -> None:
    """A mean and rows that fit the descriptors, most important first."""
    rows = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = np.arange(48).reshape(-1, 2) if WHITENINGS[name].needs_pairs else None
    mean, projection, eigenvalues = WHITENINGS[name].learn(
        MemoryDescriptors(rows, [str(i) for i in range(50)], INFO), pairs
    )
    assert mean.shape == (6,) and projection.shape == (len(eigenvalues), 6)
    assert np.isfinite(projection).all() and (np.diff(eigenvalues) <= 0).all()


@pytest.mark.parametrize("name", list(IMPORTERS))
def test_an_importer(name: str) -> None:
    assert callable(IMPORTERS[name].function())


def test_the_page_names_registries_that_are_there() -> None:
    """The table "Where to add what" of docs/architecture.md: each registry stands where it says."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Where to add what")[1]
    rows = re.findall(r"`([A-Z_]+)`, `([\w/]+)\.py`", page)
    assert len(rows) > 10
    for registry, module in rows:
        if not (ROOT / "ultron_cli" / f"{module}.py").exists():
            assert (ROOT / f"{module}.py").exists(), module
            continue
        path = "ultron_cli." + module.replace("/", ".").removesuffix(".__init__")
        names = list(getattr(importlib.import_module(path), registry))
        assert names and not any(is_import_path(name) for name in names)
