"""Poolings of ViT tokens: SimPool, GGeM and the class token to the letter, register tokens left out, any size, DINOv2
and DINOv3."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.parts.attention_pooling import SimPool
from ultron_cli.models.parts.pooling import GGeM
from ultron_cli.models.weights.checkpoints import load_weights
from ultron_cli.visualization.cam.similarity import similarity_cam

pytestmark = pytest.mark.slow

# name -> tokens before the patches: class token, and register tokens
VITS = {"test_vit": 1, "vit_small_patch14_dinov2": 1, "vit_small_patch14_reg4_dinov2": 5, "vit_small_patch16_dinov3": 5}
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def literal_simpool(
    tokens: np.ndarray, query: np.ndarray, key: np.ndarray, norm: tuple[np.ndarray, np.ndarray], gamma: float
) -> np.ndarray:
    """Psomas et al. (ICCV 2023), section 3.3, one photo: tokens (N, C), Wq and Wk (C, C), LN's scale and shift (C,) ->
    (C,); no matrices."""
    n, c = tokens.shape
    normed = np.zeros((n, c))
    for i in range(n):
        mean = sum(tokens[i]) / c
        variance = sum((value - mean) ** 2 for value in tokens[i]) / c
        normed[i] = [
            (value - mean) / (variance + 1e-6) ** 0.5 * norm[0][j] + norm[1][j] for j, value in enumerate(tokens[i])
        ]
    average = [sum(tokens[:, j]) / n for j in range(c)]  # u0: of the tokens as they are
    q = [sum(query[row, j] * average[j] for j in range(c)) for row in range(c)]
    scores = []
    for i in range(n):
        k = [sum(key[row, j] * normed[i, j] for j in range(c)) for row in range(c)]
        scores.append(sum(a * b for a, b in zip(q, k, strict=True)) / c**0.5)
    powers = np.exp(np.array(scores) - max(scores))
    weights = powers / powers.sum()
    if gamma == 0:
        return np.array([sum(weights[i] * normed[i, j] for i in range(n)) for j in range(c)])
    least = normed.min()
    return np.array(
        [sum(weights[i] * (normed[i, j] - least + 1e-6) ** gamma for i in range(n)) ** (1 / gamma) for j in range(c)]
    )


@pytest.mark.parametrize("gamma", [0.0, 1.25, 2.0])
@torch.no_grad()
def test_simpool_equals_its_equations(gamma: float) -> None:
    torch.manual_seed(2)
    pooling, maps = SimPool(6, gamma=gamma), torch.randn(3, 6, 4, 5)
    for parameter in pooling.parameters():
        parameter.copy_(torch.randn_like(parameter))
    norm = pooling.norm.weight.double().numpy(), pooling.norm.bias.double().numpy()
    for photo, pooled in zip(maps, pooling(maps), strict=True):
        tokens = photo.flatten(1).T.double().numpy()
        expected = literal_simpool(
            tokens, pooling.query.weight.double().numpy(), pooling.key.weight.double().numpy(), norm, gamma
        )
        np.testing.assert_allclose(pooled.numpy(), expected, **TOLERANCE)


@torch.no_grad()
def test_ggem_of_tokens_equals_its_equation() -> None:
    """Ko et al. (2022), equation 4: channel c of group g is (1/N sum over tokens of x^p_g)^(1/p_g)."""
    torch.manual_seed(3)
    maps, pooling = torch.randn(2, 6, 3, 2), GGeM(6, 3)
    pooling.p.copy_(torch.tensor([1.0, 2.5, 4.0]))
    expected = np.zeros((2, 6))
    for b in range(2):
        for c in range(6):
            p = float(pooling.p[c // 2])
            expected[b, c] = (sum(max(float(value), 1e-6) ** p for value in maps[b, c].flatten()) / 6) ** (1 / p)
    np.testing.assert_allclose(pooling(maps).numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("backbone", VITS)
@torch.no_grad()
def test_class_token_and_map_are_those_of_timm(backbone: str) -> None:
    """The first token is the descriptor; the map is of the patches alone, row by row, without register tokens."""
    torch.manual_seed(0)
    model = create_model("gem", backbone=backbone, pooling="cls")
    images = torch.randn(2, 3, 56, 112)
    tokens = model.backbone.network.forward_features(images)
    np.testing.assert_allclose(
        model(images).numpy(), torch.nn.functional.normalize(tokens[:, 0], dim=1).numpy(), **TOLERANCE
    )
    maps = model.feature_map(images)
    rows, columns = maps.shape[2:]
    assert tokens.shape[1] == VITS[backbone] + rows * columns
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 1)):
        torch.testing.assert_close(maps[:, :, row, column], tokens[:, VITS[backbone] + row * columns + column])


@pytest.mark.parametrize("backbone", VITS)
@torch.no_grad()
def test_every_pooling_at_every_size(backbone: str) -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone=backbone, pooling="ggem")
    blocks = model.backbone.network.blocks
    assert model.pooling.p.shape == (blocks[-1].attn.num_heads,) and model.pooling.p.requires_grad
    patch_px = model.backbone.network.patch_embed.patch_size[0]
    for height, width in ((224, 224), (98, 196), (70, 33)):  # the last is no multiple of a patch
        images = torch.randn(1, 3, height, width)
        assert model.feature_map(images).shape[2:] == (-(-height // patch_px), -(-width // patch_px))
        torch.testing.assert_close(model(images).norm(dim=1), torch.ones(1))


def test_a_photo_bright_at_the_right_is_so_on_the_map_of_dinov3() -> None:
    model = create_model("gem", backbone="vit_small_patch16_dinov3", pooling="simpool")
    images = torch.zeros(1, 3, 32, 96)
    with torch.inference_mode():
        dark = model.feature_map(images)
        images[..., -16:] = 5.0
        change = (model.feature_map(images) - dark).abs().sum(1)[0]
    assert change.shape == (2, 6) and change[:, -1].sum() > 2 * change[:, 0].sum()


@pytest.mark.parametrize(("backbone", "gamma"), [("test_vit", 1.25), ("test_resnet", 2.0), ("test_convnext", 2.0)])
def test_simpool_takes_the_published_gamma(backbone: str, gamma: float) -> None:
    model = create_model("gem", backbone=backbone, pooling="simpool")
    assert model.pooling.exponent == gamma and model.pooling.shift == "left"
    with torch.inference_mode():
        torch.testing.assert_close(model(torch.randn(2, 3, 64, 96)).norm(dim=1), torch.ones(2))
    assert create_model("gem", backbone=backbone, pooling="simpool", gamma=0.0).pooling.exponent is None
    assert create_model("gem", backbone=backbone, pooling="simpool", pooling_shift="undone").pooling.shift == "undone"
    assert create_model("gem", backbone=backbone, pooling="simpool", beta=True).pooling.beta.item() == 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"backbone": "test_resnet", "pooling": "cls"},
            "pooling cls takes the class token of a ViT and test_resnet has none; choose another",
        ),
        ({"backbone": "test_vit2", "pooling": "cls"}, "test_vit2 has none"),  # register token, no class token
        (
            {"backbone": "test_vit", "gamma": 2.0},
            "gamma belongs to pooling simpool, found pooling gem; add `model.pooling=simpool`",
        ),
        ({"backbone": "test_vit", "beta": True}, "beta belongs to pooling simpool, found pooling gem"),
        ({"backbone": "test_vit", "pooling": "simpool", "gamma": 0.0, "beta": True}, "which gamma 0 leaves out"),
        ({"backbone": "test_vit", "pooling": "simpool", "gamma": -1.0}, "`model.gamma` must lie between 0.0 and 100.0"),
        (
            {"backbone": "test_vit", "pooling": "simpol"},
            "one of gem, avg, max, ggem, cls, simpool, salad; found 'simpol'; did you mean simpool",
        ),
    ],
)
def test_mistakes_are_told(settings: dict, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_model("gem", **settings)


def test_backbone_weights_alone_do_for_a_class_token_but_not_for_simpool(tmp_path: Path) -> None:
    model = create_model("gem", backbone="test_vit", pooling="cls")
    torch.save(model.backbone.network.state_dict(), tmp_path / "w.pth")
    assert (
        load_weights(tmp_path / "w.pth", "gem", {"backbone": "test_vit", "pooling": "cls"}).model.settings.pooling
        == "cls"
    )
    with pytest.raises(UltronError, match="has backbone weights only, pooling of gem would stay random"):
        load_weights(tmp_path / "w.pth", "gem", {"backbone": "test_vit", "pooling": "simpool"})


@pytest.mark.parametrize("pooling", ["cls", "simpool", "ggem"])
def test_gradient_reaches_all_that_is_trained(pooling: str) -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone="test_vit", pooling=pooling, descriptor_dim=8).train()
    model(torch.randn(2, 3, 48, 64))[:, :3].sum().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


@torch.no_grad()
def literal_class_attention(model: torch.nn.Module, images: Tensor) -> Tensor:
    """(N,) what the class token of test_vit takes from each patch in the last block, from its weights, head by head."""
    network = model.backbone.network
    block_inputs: list[Tensor] = []
    handle = network.blocks[-1].norm1.register_forward_hook(lambda _, __, output: block_inputs.append(output))
    model(images)
    handle.remove()
    layer, tokens = network.blocks[-1].attn, block_inputs[0][0]
    query, key, _ = (tokens @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=1)
    heads = []
    for q, k in zip(query.chunk(layer.num_heads, 1), key.chunk(layer.num_heads, 1), strict=True):
        q, k = layer.q_norm(q), layer.k_norm(k)
        heads.append((k @ q[0] / q.shape[1] ** 0.5).softmax(0)[1:])
    return torch.stack(heads).mean(0)


def test_attention_of_the_class_token_is_what_the_last_block_computes() -> None:
    from ultron_cli.visualization.cam.methods import attention_map

    torch.manual_seed(1)
    model, images = create_model("gem", backbone="test_vit", pooling="cls"), torch.randn(1, 3, 48, 80)
    layer = model.backbone.network.blocks[-1].attn
    was_fused = layer.fused_attn
    weights, descriptor = attention_map(model, images)
    assert layer.fused_attn == was_fused and not layer.attn_drop._forward_hooks  # as found
    torch.testing.assert_close(weights.flatten(), literal_class_attention(model, images), **TOLERANCE)
    torch.testing.assert_close(descriptor, model(images)[0], **TOLERANCE)
    assert weights.shape == (3, 5)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch16_dinov3"])
@pytest.mark.parametrize(
    ("pooling", "method"), [("cls", "attention"), ("cls", "hirescam"), ("simpool", "attention"), ("ggem", "hirescam")]
)
def test_maps_of_similarity(backbone: str, pooling: str, method: str) -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone=backbone, pooling=pooling)
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma_1", "gamma_2")):
            parameter.data.fill_(1.0)  # DINOv3's layer scales, 1e-5 at first: all class tokens would be alike
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        other = model(torch.randn(1, 3, 64, 64))[0]
    cam = similarity_cam(model, photo, other, method=method)
    assert cam.heat.shape == (64, 96) and cam.heat.max() == pytest.approx(1.0) and not cam.flat


def test_class_token_is_extracted_and_seen(
    ultron: Callable[..., tuple[int, str, str]], toy: Path, tmp_path: Path
) -> None:
    """A user's way: extract, search, visualize cam by gradient and by attention."""
    flags = (
        "--untrained",
        "--backbone",
        "vit_small_patch14_reg4_dinov2",
        "--set",
        "model.pooling=cls",
        "--max-side",
        "84",
        "--scales",
        "1",
    )
    code, _, err = ultron("extract", "--dataset", toy, *flags)
    assert code == 0, err
    assert ultron("search")[0] == 0
    for method in ("attention", "hirescam"):
        code, _, err = ultron("visualize", "cam", "--method", method, "-k", "2", "--out", tmp_path / method)
        assert code == 0, err
        assert len(list((tmp_path / method).glob("*.png"))) >= 2
