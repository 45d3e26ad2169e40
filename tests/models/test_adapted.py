"""A head over a frozen network: what it computes at one scale and several, and its checkpoint without the network."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.adapted import AdaptedModel
from ultron_cli.models.heads import HEADS, AdaptedSettings, FreeHead
from ultron_cli.models.weights.checkpoints import (
    FrozenBase,
    load_checkpoint,
    save_checkpoint,
    save_head,
    sha256_of_weights,
    untrained_model,
)
from ultron_cli.retrieval.extraction.describe import describe

BASE: dict[str, object] = {"name": "gem", "backbone": "test_resnet"}
SCALES = (0.7071, 1.0)


def adapted(**settings: object) -> AdaptedModel:
    torch.manual_seed(0)
    model = create_model("adapted", **{"base": BASE, "descriptor_dim": 24, **settings})
    assert isinstance(model, AdaptedModel)
    return model


@pytest.mark.parametrize("head", HEADS)
@torch.inference_mode()
def test_the_head_takes_the_joined_descriptor(head: str) -> None:
    model = adapted(head=head)
    pixels = torch.randint(0, 256, (2, 64, 80, 3), dtype=torch.uint8)
    for scales in (SCALES[1:], SCALES):
        stored = describe(model.base, pixels, scales)
        torch.testing.assert_close(describe(model, pixels, scales), F.normalize(model.head(stored), dim=1))
    images = torch.randn(2, 3, 64, 80)
    descriptors = model(images)
    torch.testing.assert_close(descriptors, F.normalize(model.head(model.base(images)), dim=1))
    torch.testing.assert_close(F.normalize(model.pool(model.feature_map(images)), dim=1), descriptors)


def test_training_leaves_the_network_as_it_is() -> None:
    model = adapted().train()
    assert model.head.training and not model.base.training
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert model.head.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.base.parameters())


def test_a_head_over_a_head() -> None:
    inner = adapted()
    outer = AdaptedModel("adapted", from_dict(AdaptedSettings, {"base": BASE, "descriptor_dim": 8}), inner)
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = F.normalize(outer.head(describe(inner, pixels, SCALES)), dim=1)
        torch.testing.assert_close(describe(outer, pixels, SCALES), expected)


def test_what_settings_are_refused() -> None:
    for settings, words in (
        ({"head": "linaer"}, "`model.head` must be one of linear, mlp; found 'linaer'; did you mean linear"),
        ({"head_settings": {"hidden_dim": 4}}, r"unknown setting model\.head_settings\.hidden_dim"),
        (
            {"head": "mlp", "head_settings": {"hidden_dim": 0.5}},
            r"model\.head_settings\.hidden_dim must be a whole number",
        ),
        ({"head": "mlp", "start": "pca-whitening"}, r"model\.start belongs to head linear, found head mlp"),
        ({"base": {"backbone": "test_resnet"}}, r"model\.base names a network; add `model\.base\.name=gem`"),
        ({"base": {**BASE, "pretrained": True}}, "train on these `descriptors`"),
        ({"base": {**BASE, "pool": 1}}, r"unknown setting model\.pool"),
    ):
        with pytest.raises(UltronError, match=words):
            adapted(**settings)


@pytest.fixture
def base_file(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "base.pt", untrained_model("gem", {"backbone": "test_resnet"}, 0).model, {})
    return tmp_path / "base.pt"


def head_of(base_file: Path) -> Path:
    """A saved head over the network in `base_file`."""
    loaded = load_checkpoint(base_file)
    torch.manual_seed(1)
    head = FreeHead(loaded.model.descriptor_dim, AdaptedSettings(base=BASE, descriptor_dim=24), "gem-test_resnet")
    extraction = {
        "preprocessing": loaded.model.preprocessing.to_dict(),
        "scales": list(SCALES),
        "max_side_px": None,
    }
    base = FrozenBase(
        label="gem-test_resnet",
        model={"name": "gem", "settings": {"backbone": "test_resnet"}},
        extraction=extraction,
        weights=loaded.source,
        weights_sha256=loaded.weights_sha256,
    )
    save_head(base_file.with_name("head.pt"), head, base, {})
    return base_file.with_name("head.pt")


def test_a_checkpoint_of_a_head_finds_its_network(base_file: Path) -> None:
    path = head_of(base_file)
    assert path.stat().st_size < 0.2 * base_file.stat().st_size
    loaded = load_checkpoint(path)
    assert loaded.model.label == "gem-test_resnet-linear" and loaded.made_for_side_px == 0
    assert loaded.model.recommended_scales == SCALES
    assert isinstance(loaded.model, AdaptedModel)
    assert sha256_of_weights(loaded.model.base) == load_checkpoint(base_file).weights_sha256


def test_a_head_without_its_network_is_refused_in_one_line(base_file: Path) -> None:
    path = head_of(base_file)
    save_checkpoint(base_file, untrained_model("gem", {"backbone": "test_resnet"}, 1).model, {})
    with pytest.raises(
        UltronError, match=r"head\.pt is a head over gem-test_resnet, whose weights .* are others by now"
    ):
        load_checkpoint(path)
    base_file.unlink()
    with pytest.raises(UltronError, match=r"whose weights were at .*base\.pt, which is gone; put them back, or train"):
        load_checkpoint(path)
