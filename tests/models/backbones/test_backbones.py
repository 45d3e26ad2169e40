"""Backbones of timm: the grid of tokens, what their photos must be, and what is refused."""

from pathlib import Path

import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import normalise_images


def test_token_grid_keeps_rows_and_columns() -> None:
    """A ViT's map of a wide photo: a bright patch at the right must show at the right."""
    model = create_model("gem", backbone="test_vit")
    side = model.backbone.network.patch_embed.patch_size[0]
    images = torch.zeros(1, 3, 2 * side, 6 * side)
    with torch.inference_mode():
        dark = model.feature_map(images)
        images[..., -side:] = 5.0
        change = (model.feature_map(images) - dark).abs().sum(1)[0]
    assert change.shape == (2, 6)
    assert change[:, -1].sum() > change[:, 0].sum()


def test_preprocessing_is_the_backbones_own() -> None:
    model = create_model("gem", backbone="tf_efficientnet_lite0")
    assert model.preprocessing.to_dict() == {
        "mean": [0.5] * 3,
        "sd": [0.5] * 3,
        "interpolation": "bicubic",
        "scaling": "bilinear",
    }
    pixels = torch.tensor([[[[0, 127, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(
        normalise_images(pixels, model.preprocessing)[0, :, 0, 0], torch.tensor([-1.0, -1 / 255, 1.0])
    )


def test_pretrained_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UltronError, match=r"pretrained weights of resnet18 could not be downloaded.*`weights`"):
        create_model("gem", backbone="resnet18", pretrained=True)


@pytest.mark.parametrize("name", ["dolg-r50", "superglobal"])
def test_only_resnets(name: str) -> None:
    with pytest.raises(UltronError, match="takes a ResNet of timm"):
        create_model(name, backbone="test_vit")
