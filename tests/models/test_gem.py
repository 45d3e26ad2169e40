"""The GeM baseline: any backbone and size, its settings and their errors."""

import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model, list_models

SMALL_BACKBONE = "test_resnet"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("size", [(32, 32), (75, 90), (100, 333)])
def test_any_backbone_and_size_gives_unit_descriptors(backbone: str, size: tuple[int, int]) -> None:
    model = create_model("gem", backbone=backbone)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        feature_map, descriptors = model.feature_map(images), model(images)
    assert feature_map.ndim == 4
    assert descriptors.shape == (2, model.descriptor_dim)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))


def test_whitening_layer_sets_the_dimension() -> None:
    model = create_model("gem", backbone=SMALL_BACKBONE, descriptor_dim=24)
    with torch.inference_mode():
        descriptors = model(torch.randn(1, 3, 64, 64))
    assert descriptors.shape == (1, 24)
    assert model.whitening is not None


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("gme", {}, "unknown model 'gme'; did you mean gem"),
        ("gem", {"backbone": "resnet5"}, "unknown backbone 'resnet5'; did you mean resnet5"),
        ("gem", {"bakbone": "resnet50"}, r"unknown setting model\.bakbone; did you mean backbone"),
        ("gem", {"backbone": SMALL_BACKBONE, "p": "big"}, r"model\.p must be a number"),
        ("gem", {"backbone": SMALL_BACKBONE, "p": -1.0}, "`model.p` must lie between"),
        ("gem", {"backbone": SMALL_BACKBONE, "pooling": "gen"}, "`model.pooling` must be one of gem, avg, max"),
        ("gem", {"backbone": "levit_128s"}, "one fixed size only"),
    ],
)
def test_wrong_names_and_settings(name: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_model(name, **settings)
    assert {"gem", "ultron-b", "ultron-s", "ultron-t"} <= set(list_models())


def test_scale_gem_needs_descriptors_that_are_not_negative() -> None:
    with pytest.raises(
        UltronError, match=r"scale_gem needs pooling gem and no whitening layer.* found descriptor_dim 8"
    ):
        create_model("gem", backbone="test_resnet", scale_gem=True, descriptor_dim=8)
