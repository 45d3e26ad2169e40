"""DALG against a literal second implementation, on a small Swin."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.backbones import list_backbones
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.dalg import DalgModel, DalgSettings, WindowAttention
from ultron_cli.models.weights.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

SMALL = {"dim": 12, "n_heads": 3, "window": 3, "descriptor_dim": 10}


def small_swin() -> Backbone:
    """A Swin of four stages of one block, 8 to 64 channels, for photos of any size."""
    network = SwinTransformer(
        img_size=64,
        window_size=4,
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 4),
        num_classes=0,
        strict_img_size=False,
    )
    network.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "classifier": "head.fc"}
    return Backbone(network, "small_swin")


def small_dalg(**settings: object) -> DalgModel:
    """With all parameters away from their first values."""
    torch.manual_seed(0)
    model = DalgModel("dalg", DalgSettings(**SMALL | settings), small_swin()).eval()
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return (x - x.mean()) / (((x - x.mean()) ** 2).mean() + 1e-5).sqrt() * norm.weight + norm.bias


def literal_mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    hidden = linear(mlp[0], x)
    return linear(mlp[2], hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))


def literal_attention(attention: WindowAttention, x: Tensor) -> Tensor:
    """(H, W, C): each place attends to the places of the map in its own window, place by place and head by head."""
    height, width, channels = x.shape
    k, n_heads, d = attention.window, attention.n_heads, channels // attention.n_heads
    joined = [
        [linear(attention.query_key_value, x[i, j]).view(3, n_heads, d) for j in range(width)] for i in range(height)
    ]
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            window = ((i + attention.shift) // k, (j + attention.shift) // k)
            others = [
                (a, b)
                for a in range(height)
                for b in range(width)
                if ((a + attention.shift) // k, (b + attention.shift) // k) == window
            ]
            heads = []
            for head in range(n_heads):
                bias = [attention.position_bias[head, i - a + k - 1, j - b + k - 1] for a, b in others]
                scores = torch.stack(
                    [joined[i][j][0, head] @ joined[a][b][1, head] / d**0.5 for a, b in others]
                ) + torch.stack(bias)
                heads.append(
                    sum(
                        weight * joined[a][b][2, head] for weight, (a, b) in zip(scores.softmax(0), others, strict=True)
                    )
                )
            out[i, j] = linear(attention.projection, torch.cat(heads))
    return out


def each(function, x: Tensor) -> Tensor:
    """A function of a vector at every place of (H, W, C)."""
    return torch.stack([torch.stack([function(vector) for vector in row]) for row in x])


def literal_dalg(model: DalgModel, images: Tensor) -> Tensor:
    network = model.backbone.network
    stage_3 = network.forward_intermediates(images, indices=[2], intermediates_only=True)[0].permute(0, 2, 3, 1)
    stage_4 = network.forward_features(images)
    descriptors = []
    for three, four in zip(stage_3, stage_4, strict=True):
        pooled = torch.stack(
            [
                (four[..., c].clamp(min=1e-6) ** model.global_pooling.p).mean() ** (1 / model.global_pooling.p)
                for c in range(four.shape[-1])
            ]
        )
        whole = linear(model.global_layer, pooled)
        local = model.local_branch
        x = each(lambda v: linear(local.reduce, v), three)  # noqa: B023
        for block in local.blocks:
            x = x + literal_attention(block.attention, each(lambda v: layer_norm(block.attention_norm, v), x))  # noqa: B023
            x = x + each(lambda v: literal_mlp(block.mlp, layer_norm(block.mlp_norm, v)), x)  # noqa: B023
        x = each(lambda v: layer_norm(local.norm, v), x)  # noqa: B023
        x = each(lambda v: F.softplus(linear(local.score, v.clamp(min=0))) * v, x)  # noqa: B023
        places = [
            *x.flatten(0, 1),
            *(layer_norm(model.deep_layer[1], linear(model.deep_layer[0], v)) for v in four.flatten(0, 1)),
        ]
        for block in model.fusion:
            d = len(whole) // block.n_heads
            query = linear(block.query, layer_norm(block.query_norm, whole)).view(block.n_heads, d)
            answers = [linear(block.key_value, place).view(2, block.n_heads, d) for place in places]
            heads = []
            for head in range(block.n_heads):
                weights = torch.stack([query[head] @ answer[0, head] / d**0.5 for answer in answers]).softmax(0)
                heads.append(sum(weight * answer[1, head] for weight, answer in zip(weights, answers, strict=True)))
            whole = whole + linear(block.projection, torch.cat(heads))
            whole = whole + literal_mlp(block.mlp, layer_norm(block.mlp_norm, whole))
        descriptors.append(linear(model.head, whole))
    return F.normalize(torch.stack(descriptors), dim=1)


@torch.no_grad()
def test_dalg_equals_its_literal_form(images: Tensor) -> None:
    model = small_dalg(fusion_blocks=2)
    torch.testing.assert_close(model(images), literal_dalg(model, images), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 3), (4, 6), (7, 5)])
@pytest.mark.parametrize(("window", "shift"), [(3, 0), (3, 1), (4, 2), (7, 3)])
def test_window_attention_at_any_size(size: tuple[int, int], window: int, shift: int) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(6, 2, window, shift)
    attention.position_bias.normal_()
    maps = torch.randn(2, *size, 6)
    torch.testing.assert_close(
        attention(maps), torch.stack([literal_attention(attention, photo) for photo in maps]), rtol=0, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (40, 200), (161, 67), (224, 224)])
def test_any_input_size(size: tuple[int, int]) -> None:
    model = small_dalg()
    descriptors = model(torch.randn(1, 3, *size))
    assert descriptors.shape == (1, 10) and descriptors.isfinite().all()
    assert model.feature_map(torch.randn(1, 3, 64, 96)).shape == (1, 32, 4, 6)
    assert model.recommended_scales == (1.0,)


@pytest.mark.parametrize(
    "ablation",
    [
        {},
        {"fusion": "concat"},
        {"spatial_attention": False},
        {"global_pooling": "avg"},
        {"local_blocks": 0},
        {"fusion_blocks": 3},
    ],
)
def test_ablations_train(ablation: dict, images: Tensor) -> None:
    model = small_dalg(**ablation).train()
    descriptors = model(images)
    assert descriptors.shape == (2, 10)
    descriptors[:, 0].sum().backward()
    missing = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert not missing


def test_spatial_attention_counts(images: Tensor) -> None:
    """The scores reach the descriptor: a norm behind them would undo them."""
    model = small_dalg()
    model(images)[:, 0].sum().backward()
    others = [parameter.grad.abs().mean() for parameter in model.local_branch.blocks.parameters()]
    assert model.local_branch.score.weight.grad.abs().mean() > 0.1 * torch.stack(others).median()


@torch.no_grad()
def test_a_photo_does_not_depend_on_those_beside_it(images: Tensor) -> None:
    model = small_dalg()
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "test_vit"}, "dalg takes a Swin of timm as its backbone .*, found test_vit"),
        ({"backbone": "test_resnet"}, "dalg takes a Swin"),
        ({"dim": 100}, "dim must be a multiple of n_heads; found 100 and 8"),
        ({"fusion": "sum"}, "fusion` must be one of cross, concat; found 'sum'"),
        ({"window": 0}, "window` must lie between 1 and 32; found 0"),
        ({"windows": 7}, "unknown setting model.windows; did you mean window"),
    ],
)
def test_mistakes_are_told(settings: dict, message: str) -> None:
    with pytest.raises(UltronError, match=message):
        create_model("dalg", **settings)


@torch.no_grad()
def test_a_swin_of_timm_and_its_checkpoint(tmp_path: Path) -> None:
    model = create_model("dalg", backbone="swin_tiny_patch4_window7_224", dim=32, n_heads=4, descriptor_dim=16)
    save_checkpoint(tmp_path / "c.pt", model, {})
    loaded = load_checkpoint(tmp_path / "c.pt").model
    images = torch.randn(1, 3, 64, 112)
    assert loaded.settings == model.settings and torch.equal(model(images), loaded(images))
    assert loaded.label == "dalg-swin_tiny_patch4_window7_224"


@torch.no_grad()
def test_the_small_swin_takes_photos_of_any_size(tmp_path: Path) -> None:
    model = create_model("dalg", backbone="test_swin", dim=16, n_heads=4, descriptor_dim=8, window=4).eval()
    for height, width in ((32, 32), (64, 96), (75, 130)):
        torch.testing.assert_close(model(torch.randn(2, 3, height, width)).norm(dim=1), torch.ones(2))
    save_checkpoint(tmp_path / "net.pt", model, {})
    photo = torch.randn(1, 3, 64, 64)
    assert torch.equal(load_checkpoint(tmp_path / "net.pt").model.eval()(photo), model(photo))
    assert "test_swin" in list_backbones("test_*") and list_backbones("test_swin") == ["test_swin"]
    with pytest.raises(UltronError, match="no published weights of test_swin"):
        create_model("gem", backbone="test_swin", pretrained=True)
