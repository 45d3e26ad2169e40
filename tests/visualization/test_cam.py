"""Similarity maps against Grad-CAM's definition worked out by autograd and by hand, and the figure that shows them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.backbones import Preprocessing
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization import drawing
from ultron_cli.visualization.cam.sheet import CamPair, cam_figure
from ultron_cli.visualization.cam.similarity import Cam, overlay, similarity_cam, write_overlay
from ultron_cli.visualization.drawing import QueryPhoto, RankedPhoto

BACKBONES = ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
# Sums over up to 1280 channels in another order, then divided by a maximum; float32.
TOLERANCE = 2e-4


class Colours(RetrievalModel):
    """Pixels are the feature map, their mean (plus a bias) the descriptor: small enough for answers worked by hand."""

    name, settings, min_side_px, descriptor_dim = "colours", None, 1, 3
    preprocessing = Preprocessing(mean=(0.0, 0.0, 0.0), sd=(1 / 255, 1 / 255, 1 / 255))  # pixels stay as they are

    def __init__(self, bias: tuple[float, float, float] = (0.0, 0.0, 0.0), scale: float = 1.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.scale = scale

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.scale

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return feature_map.mean(dim=(2, 3)) + self.bias


class Small(RetrievalModel):
    """A convolution, a batch norm and a linear layer with weights drawn from a seed; features may be negative."""

    name, settings, min_side_px, descriptor_dim = "small", None, 8, 6
    preprocessing = Preprocessing(mean=(0.5, 0.5, 0.5), sd=(0.5, 0.5, 0.5))

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 5, stride=4, padding=2), nn.BatchNorm2d(12), nn.Tanh())
        self.projection = nn.Linear(12, 6)
        self.eval()

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.projection(feature_map.mean(dim=(2, 3)))


def photo_of(seed: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: a few shapes."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(int(value) for value in random.integers(0, 255, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        box, colour = (x - 20, y - 15, x + 20, y + 15), tuple(int(value) for value in random.integers(0, 255, 3))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return np.array(image)


def descriptor_of(model: RetrievalModel, photo: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model(normalise_images(torch.from_numpy(photo)[None], model.preprocessing))[0]


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
        match=r"CAM method must be one of gradcam, gradcam\+\+, hirescam, .*; found 'gradcan'; did you mean gradcam",
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


def test_overlay_colours(tmp_path: Path) -> None:
    photo = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 1.0
    drawn = overlay(photo, heat)
    # inferno runs from (0, 0, 4) to (252, 255, 164); 0.35 of the one, 0.75 of the other, the rest the photo's grey.
    assert drawn[0, 0].tolist() == [65, 65, 66] and drawn[1, 2].tolist() == [214, 216, 148]
    write_overlay(tmp_path / "new" / "one.png", photo, heat)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "one.png")), drawn)
    with pytest.raises(ValueError, match="of one size"):
        overlay(photo, heat[:, :5])
    with pytest.raises(UltronError, match=r"figures are PNG files; found 'one\.jpg'"):
        write_overlay(tmp_path / "one.jpg", photo, heat)


def pair_of(rank: int, verdict: drawing.Verdict, heat: float, *, flat: bool = False) -> CamPair:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    cam = Cam(np.full((100, 100), heat, np.float32), 0.5, flat)
    return CamPair(RankedPhoto(pixels, rank, 0.5, verdict, f"photo {rank} <b>$x^2$"), cam)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_figure_at_known_places(tmp_path: Path) -> None:
    """Square photos fill cells of 280 px; the first database photo starts 26 + 280 + 10 + 34 px right of margin and
    frame."""
    query = QueryPhoto(np.full((100, 100, 3), 60, np.uint8), "q", (20.0, 20.0, 80.0, 80.0))
    pairs = [pair_of(1, "right", 1.0), pair_of(2, "wrong", 0.0, flat=True)]
    path = cam_figure(query, Cam(np.ones((60, 60), np.float32), 0.5), pairs, "model on data", tmp_path / "cam.png")
    picture = read(path)
    query_x = drawing.MARGIN_PX + 26 + drawing.FRAME_PX
    first_x = query_x + 280 + 10 + 34
    top = (
        drawing.Header.of("model on data", "a note of more than one line? no", picture.shape[1]).height_px
        + drawing.LEGEND_HEIGHT_PX
        + drawing.FRAME_PX
    )
    for x, verdict in ((first_x, "right"), (first_x + 280 + 10 + 14, "wrong")):
        assert picture[top + 140, x - 1].tolist() == list(drawing.VERDICT_COLOURS[verdict])
        assert picture[top + 140, x - 6].tolist() == [255, 255, 255]
        assert picture[top + 140, x].tolist() == [128, 128, 128]
    heat_top = top + 280 + 10 + drawing.LABEL_HEIGHT_PX
    hot = overlay(np.full((1, 1, 3), 128, np.uint8), np.ones((1, 1), np.float32))[0, 0].tolist()
    cold = overlay(np.full((1, 1, 3), 128, np.uint8), np.zeros((1, 1), np.float32))[0, 0].tolist()
    assert picture[heat_top + 140, first_x + 140].tolist() == hot
    assert picture[heat_top + 140, first_x + 304 + 140].tolist() == cold
    # The query's heat lies in its box; outside the photo is faded.
    assert (
        picture[heat_top + 140, query_x + 140].tolist()
        == overlay(np.full((1, 1, 3), 60, np.uint8), np.ones((1, 1), np.float32))[0, 0].tolist()
    )
    assert picture[heat_top + 20, query_x + 20].tolist() == [187, 187, 187]
    assert picture[top + 140, query_x + 57].tolist() == list(drawing.BOX_COLOUR)
    # The colour bar, right of the last photo, is hot at its upper and cold at its lower end.
    bar_x = first_x + 2 * 304 + 4
    assert picture[heat_top, bar_x].tolist() == hot and picture[heat_top + 279, bar_x].tolist() == cold
    again = cam_figure(query, Cam(np.ones((60, 60), np.float32), 0.5), pairs, "model on data", tmp_path / "again.png")
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.png", "cam.png"]


def test_figure_of_many_and_of_bad_photos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = CamPair(RankedPhoto(tmp_path / "gone.jpg", 12, 0.1, "ignored", "n" * 300), None)
    pairs = [*(pair_of(rank, "unknown", 0.3) for rank in range(1, 12)), bad]
    monkeypatch.setattr(drawing.log, "propagate", True)
    picture = read(cam_figure(QueryPhoto(tmp_path / "no.jpg", "q $"), None, pairs, "t " * 200, tmp_path / "many.png"))
    assert 2000 < picture.shape[1] <= 2400 and picture.shape[0] < 2000
    assert (picture == drawing.TILE_GREY).all(axis=2).sum() > 10_000
    assert "2 photos not shown in the figure: q $: no such photo; nnn" in caplog.text
    with pytest.raises(UltronError, match="needs at least one database photo"):
        cam_figure(QueryPhoto(photo_of(0, 40, 40), "q"), None, [], "t", tmp_path / "none.png")
