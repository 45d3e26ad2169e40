"""Grad-CAM++, guided backpropagation, attention maps and maps of inner layers against their definitions, some worked by
hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.visualization.photos import photo_of
from tests.visualization.small_models import descriptor_of
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.layer_maps import find_stage, map_at, stage_names
from ultron_cli.visualization.cam.method_table import METHODS
from ultron_cli.visualization.cam.methods import gradcam_plus_plus, guided_backprop, guided_gradient, pixel_heat
from ultron_cli.visualization.cam.similarity import similarity_cam

pytestmark = pytest.mark.slow

TOLERANCE = 2e-4  # as in test_similarity.py


class Rectified(RetrievalModel):
    """Two convolutions with a ReLU after each; what Grad-CAM++ and guided backpropagation were made for."""

    name, settings, min_side_px, descriptor_dim = "rectified", None, 8, 6
    preprocessing = Preprocessing(mean=(0.5, 0.5, 0.5), sd=(0.5, 0.5, 0.5))

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 10, 3, stride=2, padding=1)
        self.after = nn.ReLU()
        self.projection = nn.Linear(10, 6)
        self.eval()

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.after(self.second(F.relu(self.first(images), inplace=True)))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.projection(feature_map.mean(dim=(2, 3)))


def test_guided_gradient_by_hand() -> None:
    """Photo (1, 2, 3), y = relu(W x) with rows (1,0,0), (0,1,0), (-1,0,0), (0,0,1), score = 2 y1 - 3 y2 + 5 y3 + 7 y4,
    through one ReLU more.

    y1 = 1 passes 2. y2's gradient -3 is stopped. y3 = relu(-1) = 0 is off. y4 passes 7. A plain gradient has -3 in the
    middle.
    """
    images = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1]])

    def score() -> torch.Tensor:
        return F.relu(torch.relu(weight @ images) @ torch.tensor([2.0, -3.0, 5.0, 7.0]))

    assert guided_gradient(score(), images).tolist() == [2.0, 0.0, 7.0]
    assert torch.autograd.grad(score(), images)[0].tolist() == [2.0, -3.0, 7.0]
    assert guided_gradient(-score(), images).tolist() == [0.0, 0.0, 0.0]


def test_guided_gradient_of_relu6_and_gelu() -> None:
    """ReLU6 is off above 6 too; for GELU the incoming gradient is made positive, then times its derivative."""
    images = torch.tensor([7.0, 3.0, -1.0, 2.0], requires_grad=True)
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert guided_gradient(F.relu6(images.clone(), inplace=True) @ signs, images).tolist() == [0.0, 1.0, 0.0, 0.0]
    values = torch.tensor([1.0, -0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(F.gelu(values).sum(), values)
    guided = guided_gradient(F.gelu(values) @ torch.tensor([3.0, -2.0]), values)
    torch.testing.assert_close(guided, torch.stack([3 * slope[0], torch.tensor(0.0)]))


def guided_by_layers(model: Rectified, images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(H, W, 3): backwards layer by layer with transposed convolutions, each ReLU with R = [f > 0] [R > 0] R."""
    a = model.first(images)
    b = model.second(a.relu())
    features = b.relu().detach().requires_grad_()
    cosine = F.cosine_similarity(model.pool(features)[0], other, dim=0)
    (back,) = torch.autograd.grad(cosine, features)
    back = torch.where((b > 0) & (back > 0), back, 0.0)
    back = F.conv_transpose2d(back, model.second.weight, stride=2, padding=1, output_padding=1)
    back = torch.where((a > 0) & (back > 0), back, 0.0)
    return F.conv_transpose2d(back, model.first.weight, stride=2, padding=1, output_padding=1)[0].permute(1, 2, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_guided_backprop_and_guided_gradcam_of_a_small_network(seed: int) -> None:
    model, photo = Rectified(seed), photo_of(seed, 48, 64)
    other = descriptor_of(model, photo_of(seed + 5, 48, 48)).clone()  # no inference tensor
    images = normalise_images(torch.from_numpy(photo)[None], model.preprocessing)
    expected = guided_by_layers(model, images, other).detach()
    gradients, descriptor = guided_backprop(model, images, other)
    torch.testing.assert_close(gradients, expected, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(descriptor, model(images)[0].detach())
    cam = similarity_cam(model, photo, other, method="guided-backprop")
    np.testing.assert_allclose(cam.heat, pixel_heat(expected.numpy()), atol=TOLERANCE)
    gradcam = similarity_cam(model, photo, other)
    both = similarity_cam(model, photo, other, method="guided-gradcam")
    np.testing.assert_allclose(both.heat, pixel_heat(expected.numpy() * gradcam.heat[..., None]), atol=TOLERANCE)
    assert cam.heat.dtype == both.heat.dtype == np.float32 and cam.heat.max() == both.heat.max() == 1
    assert both.cosine == pytest.approx(gradcam.cosine, abs=1e-6)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradcam_plus_plus_by_hand() -> None:
    """A = (1, 3), g = (1, -1): alpha1 = 1 / (2 + 4 * 1) = 1/6, relu(g2) = 0, w = 1/6, map (1/6, 1/2). A second channel
    without gradient adds 0."""
    activations = torch.tensor([[[1.0, 3.0]], [[5.0, 6.0]]])
    gradients = torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(
        gradcam_plus_plus(activations, gradients), torch.tensor([[1 / 6, 1 / 2]], dtype=torch.float64)
    )
    negative = gradcam_plus_plus(
        torch.tensor([[[-1.0, -3.0]]]), torch.tensor([[[0.5, 0.5]]])
    )  # denominator 2 - 4 * 0.5 = 0
    assert negative.tolist() == [[0.0, 0.0]]


def test_gradcam_plus_plus_by_its_formula() -> None:
    """Equation 19 as it is written, in float64, on a network with ReLU features."""
    model, photo = Rectified(3), photo_of(3, 80, 56)
    other = descriptor_of(model, photo_of(4, 64, 64))
    images = normalise_images(torch.from_numpy(photo)[None], model.preprocessing)
    features = model.feature_map(images).detach().double().requires_grad_()
    model.double()
    (g,) = torch.autograd.grad(F.cosine_similarity(model.pool(features)[0], other.double(), dim=0), features)
    model.float()
    denominator = 2 * g**2 + features.detach().sum(dim=(2, 3), keepdim=True) * g**3
    alpha = torch.where(g != 0, g**2 / denominator, 0.0)
    raw = ((alpha * g.relu()).sum(dim=(2, 3), keepdim=True) * features.detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(raw, size=photo.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(
        similarity_cam(model, photo, other, method="gradcam++").heat, (heat / heat.max()).numpy(), atol=TOLERANCE
    )


def test_pixel_heat_by_hand() -> None:
    gradient = np.zeros((1, 2, 3))
    gradient[0, 0], gradient[0, 1] = (1, -4, 2), (-1, 0, 1)
    np.testing.assert_allclose(pixel_heat(gradient)[0, 1], 1 / 4, rtol=0.01)  # 0.995 quantile of (4, 1): 3.985
    assert pixel_heat(gradient)[0, 0] == 1 and not pixel_heat(np.zeros((2, 2, 3))).any()


def by_hook(model: RetrievalModel, layer: nn.Module, photo: np.ndarray, other: torch.Tensor, turn: str) -> np.ndarray:
    """Grad-CAM at a layer by autograd through the whole network. turn: how its output becomes (1, C, h, w)."""
    outputs: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    images = normalise_images(torch.from_numpy(photo)[None], model.preprocessing)
    cosine = F.cosine_similarity(model(images)[0], other, dim=0)
    handle.remove()
    maps = [outputs[-1], torch.autograd.grad(cosine, outputs[-1])[0]]
    if turn == "channels_last":
        maps = [part.permute(0, 3, 1, 2) for part in maps]
    elif turn == "tokens":  # one class token, a grid of patches of 16
        maps = [part[:, 1:].transpose(1, 2).unflatten(2, (photo.shape[0] // 16, photo.shape[1] // 16)) for part in maps]
    activations, gradients = (part.detach() for part in maps)
    raw = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    heat = F.interpolate(raw, size=photo.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max() if heat.max() > 0 else heat).numpy()


@pytest.mark.parametrize(
    ("name", "backbone", "layer", "turn"),
    [
        ("gem", "resnet18", "layer3", ""),
        ("gem", "tf_efficientnet_lite0", "blocks.4", ""),
        ("gem", "swin_tiny_patch4_window7_224", "layers.2", "channels_last"),
        ("gem", "vit_tiny_patch16_224", "blocks.9", "tokens"),
        ("ultron-t", "", "stage2", ""),
        ("ultron-t", "", "stage3", "channels_last"),
    ],
)
def test_maps_of_inner_layers(name: str, backbone: str, layer: str, turn: str) -> None:
    """Of ResNet, a mobile network, Swin (channels last), ViT (tokens) and ULTRON, whose stages are of both kinds."""
    torch.manual_seed(0)
    model = create_model(name, **({"backbone": backbone} if backbone else {})).eval()
    photo = photo_of(1, 128, 96)
    other = descriptor_of(model, photo_of(2, 96, 96))
    stage = find_stage(model, layer)
    for towards in (other, -other):
        heat = similarity_cam(model, photo, towards, layer=layer).heat
        np.testing.assert_allclose(heat, by_hook(model, stage.module, photo, towards, turn), atol=5e-3)
    feature_map = map_at(model, normalise_images(torch.from_numpy(photo)[None], model.preprocessing), layer)
    assert feature_map.ndim == 4 and feature_map.shape[-2] / feature_map.shape[-1] == pytest.approx(0.75, abs=0.1)
    for method in ("gradcam++", "hirescam", "guided-gradcam"):
        cam = similarity_cam(model, photo, -other, method=method, layer=layer)
        assert cam.heat.shape == (96, 128) and (cam.method, cam.layer) == (method, layer)


def test_stage_names_and_errors() -> None:
    model, photo = create_model("ultron-t").eval(), photo_of(0, 64, 64)
    assert stage_names(model) == ["stage1", "stage2", "stage3", "stage4"]
    other = torch.ones(model.descriptor_dim)
    with pytest.raises(
        UltronError,
        match=r"ultron-t has no layer 'stage5'; did you mean stage.*\(stages: stage1, stage2, stage3, stage4\)",
    ):
        similarity_cam(model, photo, other, layer="stage5")
    with pytest.raises(UltronError, match=r"layer 'stages\.2' was not used for this photo"):
        similarity_cam(model, photo, other, layer="stages.2")
    with pytest.raises(UltronError, match="layer 'head' gives no map"):
        similarity_cam(model, photo, other, layer="head")
    with pytest.raises(UltronError, match="Guided backpropagation is not of a layer; leave out `layer`"):
        similarity_cam(model, photo, other, method="guided-backprop", layer="stage2")
    resnet = create_model("gem", backbone="test_resnet").eval()
    assert stage_names(resnet)[-1] == "layer4"
    known = "gem with model.pooling=simpool or cls; ultron-b, ultron-s, ultron-t with model.pooling=attention"
    with pytest.raises(UltronError, match=rf"pool by attention \({known}\), found gem-test_resnet"):
        similarity_cam(resnet, photo, torch.ones(resnet.descriptor_dim), method="attention")


def test_attention_map_is_the_poolings_weights() -> None:
    torch.manual_seed(0)
    model, photo = create_model("ultron-t").eval(), photo_of(1, 128, 96)
    cam = similarity_cam(model, photo, torch.ones(model.descriptor_dim), method="attention")
    features = model.feature_map(normalise_images(torch.from_numpy(photo)[None], model.preprocessing)).detach()
    weights = model.pooling.weights(features)[0].detach()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    heat = F.interpolate(weights.view(1, 1, 3, 4), size=(96, 128), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(cam.heat, heat / heat.max(), atol=1e-6)
    same = similarity_cam(model, photo, descriptor_of(model, photo), method="attention")
    assert not same.flat and same.cosine == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(same.heat, cam.heat)


def test_equal_descriptors_are_flat_by_every_method_of_the_cosine() -> None:
    model, photo = Rectified(0), photo_of(0, 64, 48)
    for method in set(METHODS) - {"attention"}:
        cam = similarity_cam(model, photo, descriptor_of(model, photo), method=method)
        assert cam.flat and not cam.heat.any(), method


def test_the_table_names_functions_and_needs_no_torch() -> None:
    for name, method in METHODS.items():
        assert callable(method.heat_of()), name
        assert method.of_pair or not method.of_layer, name
    code = (
        "import sys; from ultron_cli.visualization.cam.method_table import METHODS; "
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("height", "width"), [(12, 20), (20, 12), (9, 9)])
def test_occlusion_place_by_place(height: int, width: int) -> None:
    """Every square is covered in turn, and a place has the mean of the squares over it; counted photo by photo."""
    model, photo = Rectified(1), photo_of(3, width, height)
    other = descriptor_of(model, photo_of(4, 16, 16)).clone()
    images = normalise_images(torch.from_numpy(photo)[None], model.preprocessing)
    window = round(0.25 * min(height, width))
    firsts = [sorted({*range(0, side - window, window // 2 or 1), side - window}) for side in (height, width)]
    falls: dict[tuple[int, int], list[float]] = {}
    with torch.no_grad():
        whole = float(F.cosine_similarity(model(images)[0], other, dim=0))
        for top in firsts[0]:
            for left in firsts[1]:
                covered = images.clone()
                covered[..., top : top + window, left : left + window] = 0
                fall = whole - float(F.cosine_similarity(model(covered)[0], other, dim=0))
                for y in range(top, top + window):
                    for x in range(left, left + window):
                        falls.setdefault((y, x), []).append(fall)
    assert len(falls) == height * width
    expected = np.array([[max(0.0, np.mean(falls[y, x])) for x in range(width)] for y in range(height)])
    cam = similarity_cam(model, photo, other, method="occlusion")
    # Falls are 1e-4 of cosines in float32, whose rounding is 1e-7.
    np.testing.assert_allclose(cam.heat, expected / expected.max(), atol=2e-3)
    assert cam.cosine == pytest.approx(whole, abs=1e-6)
