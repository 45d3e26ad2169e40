"""SE, ECA, CBAM, SCA and GLAM against literal second implementations, and how they are put into a ResNet."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.attentions.conftest import C, H, W
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.attentions import ATTENTIONS
from ultron_cli.models.attentions.gates import Cbam, ChannelGate, EcaGate, Sca
from ultron_cli.models.attentions.glam import Glam
from ultron_cli.models.parts.layers import eca_kernel_size
from ultron_cli.models.weights.checkpoints import load_checkpoint, save_checkpoint


def shaken(module: nn.Module) -> nn.Module:
    """All parameters and running statistics away from their first values, in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def literal_channel_gate(module: nn.Module, photo: Tensor, with_maximum: bool) -> Tensor:
    """photo (C, H, W), channel by channel."""
    statistics = [torch.stack([channel.sum() / (H * W) for channel in photo])]
    if with_maximum:
        statistics.append(torch.stack([channel.max() for channel in photo]))
    hidden = [(module.squeeze.weight @ s + module.squeeze.bias).clamp(min=0) for s in statistics]
    scores = sum(module.excite.weight @ h + module.excite.bias for h in hidden)
    return torch.stack([sigmoid(float(score)) * channel for score, channel in zip(scores, photo, strict=True)])


def literal_eca(module: nn.Module, photo: Tensor) -> Tensor:
    means, size = photo.mean((1, 2)), module.across.weight.numel()
    out = []
    for c in range(C):
        score = float(module.across.bias)
        for i in range(size):
            neighbour = c + i - size // 2
            score += float(module.across.weight.flatten()[i]) * (float(means[neighbour]) if 0 <= neighbour < C else 0.0)
        out.append(photo[c] * sigmoid(score))
    return torch.stack(out)


def literal_cbam(module: nn.Module, photo: Tensor) -> Tensor:
    photo = literal_channel_gate(module.channels, photo, with_maximum=True)
    padded = F.pad(torch.stack([photo.max(0).values, photo.mean(0)]), [3] * 4)
    out, norm = torch.zeros_like(photo), module.norm
    for y in range(H):
        for x in range(W):
            score = (padded[:, y : y + 7, x : x + 7] * module.places.weight[0]).sum()
            score = (score - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            out[:, y, x] = photo[:, y, x] * sigmoid(float(score))
    return out


def literal_sca(module: nn.Module, photo: Tensor) -> Tensor:
    u, b, w = module.channel_hidden.weight[:, 0], module.channel_hidden.bias, module.channel_score.weight[0]
    powers = torch.stack([(w @ torch.tanh(u * channel.mean() + b)).exp() for channel in photo])
    photo = torch.stack([channel * C * power / powers.sum() for channel, power in zip(photo, powers, strict=True)])
    u, b, w = module.place_hidden.weight[:, :, 0, 0], module.place_hidden.bias, module.place_score.weight[0, :, 0, 0]
    powers = torch.stack(
        [torch.stack([(w @ torch.tanh(u @ photo[:, y, x] + b)).exp() for x in range(W)]) for y in range(H)]
    )
    return photo * H * W * powers / powers.sum()


def literal_glam(module: nn.Module, photo: Tensor) -> Tensor:
    state = module.state_dict()

    def across(name: str) -> Tensor:
        return F.conv1d(photo.mean((1, 2))[None, None], state[f"{name}.weight"], state[f"{name}.bias"], padding=1)[
            0, 0
        ].sigmoid()

    def convolved(name: str, x: Tensor, d: int = 0) -> Tensor:
        return F.conv2d(x[None], state[f"{name}.weight"], state[f"{name}.bias"], padding=d, dilation=max(d, 1))[0]

    local = photo + photo * across("local_branch.across")[:, None, None]
    reduced = convolved("local_branch.reduce", photo)
    score = convolved(
        "local_branch.score",
        torch.cat([reduced, *(convolved(f"local_branch.reaches.{d - 1}", reduced, d) for d in (1, 2, 3))]),
    )
    local = local + local * score
    query, key = across("global_branch.channel_query"), across("global_branch.channel_key")
    by_channel = torch.zeros_like(photo)
    for c in range(C):
        weights = torch.stack([(query[c] * key[other]).exp() for other in range(C)])
        by_channel[c] = photo[c] * sum(weight / weights.sum() * photo[other] for other, weight in enumerate(weights))
    q, k, v = (convolved(f"global_branch.place_{part}", photo).flatten(1) for part in ("query", "key", "value"))
    mixed = torch.zeros_like(q)
    for place in range(H * W):
        weights = torch.stack([(q[:, place] @ k[:, other]).exp() for other in range(H * W)])
        mixed[:, place] = (v * weights / weights.sum()).sum(1)
    whole = by_channel + by_channel * convolved("global_branch.widen", mixed.view(-1, H, W))
    powers = state["fusion"].exp()
    return (powers[0] * local + powers[1] * whole + powers[2] * photo) / powers.sum()


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "literal"),
    [
        (
            lambda: ChannelGate(C, reduction=4),
            lambda module, photo: literal_channel_gate(module, photo, with_maximum=False),
        ),
        (lambda: EcaGate(C), literal_eca),
        (lambda: Cbam(C, reduction=4), literal_cbam),
        (lambda: Sca(C), literal_sca),
        (lambda: Glam(C), literal_glam),
    ],
    ids=["se", "eca", "cbam", "sca", "glam"],
)
def test_equals_its_literal_form(make, literal, maps: Tensor) -> None:
    torch.manual_seed(0)
    module = shaken(make())
    torch.testing.assert_close(module(maps), torch.stack([literal(module, photo) for photo in maps]), rtol=0, atol=2e-5)


def test_eca_kernel_sizes() -> None:
    assert [eca_kernel_size(n) for n in (64, 128, 256, 512, 1024, 2048)] == [3, 5, 5, 5, 5, 7]  # as the authors' code


@torch.no_grad()
@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_network_hardly_changes_when_one_is_put_in(name: str) -> None:
    """Cosine of the descriptors, on a network whose blocks do something: timm starts the last norm of each at 0."""
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    plain = create_model("gem", backbone="test_resnet")
    for part in plain.modules():
        if isinstance(part, nn.BatchNorm2d):
            shaken(part).weight.data.clamp_(min=0.5)
    model = create_model("gem", backbone="test_resnet", attention=name)
    left = model.load_state_dict(plain.state_dict(), strict=False)
    assert not left.unexpected_keys and left.missing_keys
    fresh = model(images)
    assert float((fresh * plain(images)).sum(1).min()) > 0.99
    for stage in (model.backbone.network.layer3, model.backbone.network.layer4):
        shaken(getattr(stage, "attention", stage[0].se or nn.Identity()))
    assert float((model(images) - fresh).abs().max()) > 1e-3  # and they are in use


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("at", ["block", "stage"])
def test_every_attention_trains_at_both_places(name: str, at: str) -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone="test_resnet", attention=name, attention_stages=(2, 4), attention_at=at)
    shaken(model).train()
    model(torch.randn(2, 3, 64, 96)).square()[:, 0].sum().backward()
    network = model.backbone.network
    put = [stage[0].se if at == "block" else stage.attention for stage in (network.layer2, network.layer4)]
    assert network.layer1[0].se is None and not hasattr(network.layer3, "attention")
    for attention in put:
        assert all(
            parameter.grad is not None and parameter.grad.isfinite().all() for parameter in attention.parameters()
        )


@torch.no_grad()
def test_default_places_follow_the_papers() -> None:
    inside = create_model("gem", backbone="test_resnet", attention="cbam").backbone.network
    assert all(
        isinstance(block.se, Cbam)
        for stage in (inside.layer1, inside.layer2, inside.layer3, inside.layer4)
        for block in stage
    )
    after = create_model("gem", backbone="test_resnet", attention="glam").backbone.network
    assert (
        isinstance(after.layer4.attention, Glam)
        and after.layer4[0].se is None
        and not hasattr(after.layer3, "attention")
    )


@torch.no_grad()
def test_settings_travel_with_the_checkpoint(tmp_path: Path) -> None:
    model = shaken(create_model("gem", backbone="test_resnet", attention="eca", attention_stages="3,4"))
    assert model.label == "gem-test_resnet-eca" and model.settings.attention_stages == (3, 4)
    save_checkpoint(tmp_path / "c.pt", model, {})
    loaded = load_checkpoint(tmp_path / "c.pt").model
    images = torch.randn(1, 3, 64, 64)
    assert loaded.settings == model.settings and torch.equal(model(images), loaded(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attention": "cbma"},
            "`model.attention` must be one of se, eca, cbam, hoga, sca, glam; found 'cbma'; did you mean cbam",
        ),
        (
            {"attention": "se", "attention_stages": (0, 5)},
            r"attention_stages must be different numbers from 1 to 4 \(\[3,4\]\); found \[0, 5\]",
        ),
        ({"attention": "se", "attention_stages": (3, 3)}, "different numbers"),
        ({"attention": "se", "attention_at": "end"}, "`model.attention_at` must be one of block, stage"),
        ({"attention_stages": (4,)}, "say where an attention goes, and none is set; add `model.attention=A`"),
        (
            {"attention": "se", "genotype": "skip:0/skip:0/skip:0/skip:0"},
            "a genotype belongs to attention hoga, found attention se",
        ),
        ({"attention": "se", "backbone": "test_vit"}, "attention se takes a ResNet of timm"),
    ],
)
def test_mistakes_are_told(settings: dict, message: str) -> None:
    with pytest.raises(UltronError, match=message):
        create_model("gem", **{"backbone": "test_resnet"} | settings)


def test_a_backbone_with_attentions_of_its_own_is_refused() -> None:
    with pytest.raises(
        UltronError,
        match=r"seresnet18 has attentions in its blocks already; choose another backbone, or `model.attention_at=",
    ):
        create_model("gem", backbone="seresnet18", attention="se")
