"""Similarity maps against Grad-CAM's definition worked out by autograd and by hand."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.visualization.photos import photo_of
from tests.visualization.small_models import Colours, Small, descriptor_of
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization.cam.similarity import similarity_cam

pytestmark = pytest.mark.slow

BACKBONES = ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
# Sums over up to 1280 channels in another order, then divided by a maximum; float32.
TOLERANCE = 2e-4


def by_definition(
    model: RetrievalModel, photo: np.ndarray, other: torch.Tensor, method: str = "gradcam"
) -> tuple[np.ndarray, float]:
    """The heat and the cosine straight from the formulas."""
    images = normalise_images(torch.from_numpy(photo)[None], model.preprocessing)
    activations = model.feature_map(images).detach().requires_grad_()
    cosine = F.cosine_similarity(model.pool(activations)[0], other, dim=0)
    (gradient,) = torch.autograd.grad(cosine, activations)
    weights = {
        "gradcam": gradient.mean(dim=(2, 3), keepdim=True),
        "hirescam": gradient,
        "layercam": gradient.clamp(min=0),
    }[method]
    raw = (weights * activations.detach()).sum(dim=1, keepdim=True).relu()
    heat = F.interpolate(raw, size=photo.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max() if heat.max() > 0 else heat).numpy(), float(cosine.detach())


def test_two_pixels_by_hand() -> None:
    """Pixels (2,0,0) and (0,2,0), other (1,0,0): weights (+c, -c, 0), so the map is (2c, -2c), as heat (1, 0); cosine
    1/sqrt 2."""
    photo = np.array([[[2, 0, 0], [0, 2, 0]]], np.uint8)
    cam = similarity_cam(Colours(), photo, torch.tensor([3.0, 0.0, 0.0]))
    np.testing.assert_allclose(cam.heat, [[1.0, 0.0]], atol=1e-6)
    assert cam.cosine == pytest.approx(0.5**0.5, abs=1e-6)
    assert not cam.flat and cam.heat.dtype == np.float32


def test_small_values_keep_their_shape() -> None:
    """Reds 4, 2, 0 beside a green of 1: mean (2,1,0), weights towards red (1,-2,0) c, map (2c, 0, -2c); also at a scale
    of 1e-9."""
    photo = np.array([[[4, 1, 0], [2, 1, 0], [0, 1, 0]]], np.uint8)
    for scale in (1.0, 1e-9):
        cam = similarity_cam(Colours(scale=scale), photo, torch.tensor([1.0, 0.0, 0.0]))
        np.testing.assert_allclose(cam.heat, [[1.0, 0.0, 0.0]], atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_definition_on_small_networks(method: str, seed: int) -> None:
    model, photo = Small(seed), photo_of(seed, 61, 45)
    other = descriptor_of(model, photo_of(seed + 10, 50, 70))
    cam = similarity_cam(model, photo, other, method=method)
    heat, cosine = by_definition(model, photo, other, method)
    np.testing.assert_allclose(cam.heat, heat, atol=TOLERANCE)
    assert cam.cosine == pytest.approx(cosine, abs=1e-5)
    assert cam.heat.shape == (45, 61) and cam.heat.min() >= 0 and cam.heat.max() == 1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_definition_on_backbones(backbone: str) -> None:
    """Also against the opposite descriptor, as Grad-CAM of a ViT or Swin towards a like one is negative everywhere."""
    torch.manual_seed(0)
    model = create_model("gem", backbone=backbone)
    photo, other = photo_of(1, 130, 101), descriptor_of(model, photo_of(2, 96, 96))
    for towards, method in ((other, "gradcam"), (-other, "gradcam"), (other, "hirescam")):
        cam = similarity_cam(model, photo, towards, method=method)
        heat, cosine = by_definition(model, photo, towards, method)
        np.testing.assert_allclose(cam.heat, heat, atol=TOLERANCE)
        assert cam.cosine == pytest.approx(cosine, abs=1e-5)
        assert cam.heat.shape == (101, 130) and cam.flat == (heat.max() == 0)
        if cam.flat:
            assert method == "gradcam" and towards is other and backbone.startswith(("vit", "swin"))


def test_heat_lies_on_what_is_shared() -> None:
    photo = np.array(Image.new("RGB", (60, 40), (0, 0, 90)))
    photo[10:20, 40:55] = (200, 0, 0)
    cam = similarity_cam(Colours(), photo, torch.tensor([1.0, 0.0, 0.0]))
    assert (cam.heat[10:20, 40:55] == 1).all()
    assert cam.heat.sum() == 150


def test_equal_descriptors_are_flat() -> None:
    model, photo = Small(0), photo_of(0, 64, 48)
    cam = similarity_cam(model, photo, descriptor_of(model, photo))
    assert cam.flat and not cam.heat.any() and cam.cosine == pytest.approx(1.0, abs=1e-6)
    half = descriptor_of(model, photo).half()  # as stored with --storage float16
    assert similarity_cam(model, photo, half).flat


def test_map_of_one_cell_is_flat() -> None:
    """Over one cell gradient times activation sums to 0: what is left is rounding, not heat."""
    model = Colours()
    for pixel in ((10, 20, 30), (255, 1, 7)):
        cam = similarity_cam(model, np.array([[pixel]], np.uint8), torch.tensor([1.0, 2.0, -1.0]))
        assert cam.flat and cam.heat.tolist() == [[0.0]]


def test_negative_map_is_flat() -> None:
    """Descriptor (2,1,0) from pixels (2,0,0) and a bias (0,1,0): less red raises the cosine with green, no place
    does."""
    cam = similarity_cam(
        Colours(bias=(0.0, 1.0, 0.0)), np.full((2, 3, 3), (2, 0, 0), np.uint8), torch.tensor([0.0, 1.0, 0.0])
    )
    assert cam.flat and cam.heat.shape == (2, 3) and not cam.heat.any()
    assert cam.cosine == pytest.approx(0.2**0.5, abs=1e-6)


def test_model_is_left_as_it_was() -> None:
    model = Small(0)
    model.train()
    model.layers[0].eval()
    model.layers[0].weight.requires_grad_(False)
    model.projection.bias.grad = torch.full((6,), 7.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    similarity_cam(model, photo_of(0, 64, 48), torch.ones(6))
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert [parameter.requires_grad for parameter in model.layers[0].parameters()] == [False, True]
    assert model.projection.bias.grad.tolist() == [7.0] * 6
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "projection.bias")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_under_inference_mode_and_twice_the_same() -> None:
    model, photo, other = Small(1), photo_of(1, 64, 48)[:, ::-1], torch.arange(6.0)
    first = similarity_cam(model, photo, other)
    with torch.inference_mode():
        second = similarity_cam(model, photo, torch.arange(6.0))
    assert np.array_equal(first.heat, second.heat) and first.cosine == second.cosine


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model, photo = Small(0), photo_of(0, 64, 48)
    with pytest.raises(
        UltronError, match=r"descriptor has shape \(5,\), small gives \(6,\); take one of the same model"
    ):
        similarity_cam(model, photo, torch.ones(5))
    with pytest.raises(UltronError, match="zero or not finite; extract it again"):
        similarity_cam(model, photo, torch.zeros(6))
    with pytest.raises(UltronError, match="at least 8 px a side, found 64 x 7"):
        similarity_cam(model, photo[:7], torch.ones(6))
    with pytest.raises(
        UltronError,
        match=r"`method` must be one of gradcam, gradcam\+\+, hirescam, .*; found 'gradcan'; did you mean gradcam",
    ):
        similarity_cam(model, photo, torch.ones(6), method="gradcan")
    with pytest.raises(ValueError, match="must be \\(H, W, 3\\) uint8"):
        similarity_cam(model, photo.astype(np.float32), torch.ones(6))
    model.projection.bias.data[0] = torch.nan
    with pytest.raises(UltronError, match="not finite for this photo; its weights are damaged"):
        similarity_cam(model, photo, torch.ones(6))
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UltronError, match=r"grad-cam package, which cannot be imported .*run `pip install grad-cam`"):
        similarity_cam(model, photo, torch.ones(6))
