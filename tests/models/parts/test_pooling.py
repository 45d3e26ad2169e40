"""Poolings against their equations, position by position."""

import pytest
import torch

from tests.models.literal_poolings import literal_power_mean
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.parts.pooling import GeM, GGeM, power_mean

P_RANGE = (0.1, 0.5, 1.0, 3.0, 4.5, 7.5, 20.0, 50.0, 100.0)  # of all that the settings allow


def map_of_all_kinds() -> torch.Tensor:
    """(2, 6, 3, 4) float32: channels of usual, all zero, small, large, mostly negative and equal values."""
    maps = torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(0)) * 6
    maps[:, 1] = 0.0
    maps[:, 2] *= 1e-3
    maps[:, 3] *= 100.0
    maps[:, 4] -= 4.5
    maps[:, 5] = 2.0
    return maps


def literal_pooled(maps: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (B, C), gradients (B, C, H, W) and derivatives (B, C) with respect to p of literal_power_mean."""
    channels = [literal_power_mean(channel.tolist(), p) for channel in maps.flatten(2).flatten(0, 1)]
    means, gradients, of_p = (torch.tensor(part, dtype=torch.float64) for part in zip(*channels, strict=True))
    return means.view(maps.shape[:2]), gradients.view(maps.shape), of_p.view(maps.shape[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", P_RANGE)
def test_gem_and_ggem_equal_the_equation_in_value_and_gradient(p: float, dtype: torch.dtype) -> None:
    exponent = float(torch.tensor(p, dtype=torch.float32))
    means, gradients, of_p = literal_pooled(map_of_all_kinds(), exponent)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    for pooling, n_groups in ((GeM(p, learnable=True).to(dtype), 1), (GGeM(6, 3, p).to(dtype), 3)):
        maps = map_of_all_kinds().to(dtype).requires_grad_()
        pooled = pooling(maps)
        pooled.sum().backward()
        assert maps.grad is not None and pooling.p.grad is not None
        torch.testing.assert_close(pooled.detach(), means.to(dtype), **tolerance)
        torch.testing.assert_close(maps.grad, gradients.to(dtype), **tolerance)
        right = of_p.view(2, n_groups, -1).sum((0, 2)).to(dtype)
        # The derivative is a difference of two terms, each up to 1/p times as large.
        atol = tolerance["atol"] * 10 / min(p, 1.0)
        torch.testing.assert_close(pooling.p.grad.view(-1), right, rtol=tolerance["rtol"], atol=atol)


@torch.no_grad()
def test_gem_becomes_the_maximum_as_p_grows() -> None:
    maps = map_of_all_kinds()
    for p in (1e4, 1e8, torch.inf):
        torch.testing.assert_close(GeM(p)(maps), maps.amax((2, 3)).clamp(min=1e-6), rtol=3e-4, atol=0)


@torch.no_grad()
def test_gem_has_the_bits_of_its_equation_where_no_power_leaves_float32() -> None:
    """Descriptors of sound input are those of earlier versions."""
    for maps in (map_of_all_kinds(), map_of_all_kinds().contiguous(memory_format=torch.channels_last)):
        for p in (1.0, 2.0, 2.92, 3.0, 4.5):
            right = maps.clamp(min=1e-6).pow(torch.tensor(p)).mean((2, 3)).pow(1.0 / torch.tensor(p))
            assert torch.equal(GeM(p)(maps), right)


def test_a_weighted_power_mean_whose_largest_value_has_no_weight() -> None:
    weights = torch.tensor([[[1.0, 0.0, 0.0]]], requires_grad=True)
    for p in (0.1, 2.0, 20.0, 100.0):
        values = torch.tensor([[[0.25], [3.0], [1e-6]]], requires_grad=True)
        mean = power_mean(values, p, dims=(1,), weights=weights)
        torch.testing.assert_close(mean, torch.tensor([[0.25]]))
        mean.sum().backward()
        assert values.grad is not None and weights.grad is not None
        torch.testing.assert_close(values.grad, torch.tensor([[[1.0], [0.0], [0.0]]]))
        assert weights.grad.isfinite().all()


@torch.no_grad()
def test_scales_are_joined_whatever_the_exponent() -> None:
    """GeM over scales of unit descriptors, whose components are small: their powers vanished in float32."""
    for p in (3.0, 15.0, 100.0):
        model = create_model("gem", backbone="test_resnet", scale_gem=True, p=p)
        descriptors = torch.nn.functional.normalize(torch.rand(3, 1, 256), dim=2)
        descriptors[:, :, 7] = 0.0
        right = [literal_power_mean(column.tolist(), p, eps=1e-30)[0] for column in descriptors[:, 0].T]
        torch.testing.assert_close(model.join_scales(descriptors)[0], torch.tensor(right), rtol=1e-4, atol=1e-9)


def test_gem_does_not_overflow_in_half_precision() -> None:
    feature_map = torch.full((1, 2, 3, 3), 300.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(GeM()(feature_map), torch.full((1, 2), 300.0), rtol=1e-4)


def test_learnable_exponent_has_a_gradient() -> None:
    pooling = GeM(learnable=True)
    pooling(torch.rand(1, 2, 3, 3)).sum().backward()
    assert pooling.p.grad is not None
    assert float(pooling.p.grad.abs()) > 0


@torch.no_grad()
def test_ggem_equals_gem_group_by_group() -> None:
    maps, pooling = torch.randn(2, 12, 4, 5), GGeM(12, 3)
    pooling.p.copy_(torch.tensor([1.0, 2.5, 6.0]))
    right = [
        (maps[:, i].clamp(min=1e-6) ** pooling.p[i // 4]).mean((1, 2)) ** (1 / pooling.p[i // 4]) for i in range(12)
    ]
    torch.testing.assert_close(pooling(maps), torch.stack(right, 1))
    with pytest.raises(ValueError, match="12 channels do not divide into 5 groups"):
        GGeM(12, 5)


def test_ggem_takes_as_many_groups_as_heads() -> None:
    model = create_model("gem", backbone="test_vit", pooling="ggem")
    assert model.pooling.p.shape == (model.backbone.network.blocks[-1].attn.num_heads,)
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, model.descriptor_dim)  # not square
    with pytest.raises(
        UltronError, match="ggem needs a number of groups and test_resnet has no attention heads to tell it"
    ):
        create_model("gem", backbone="test_resnet", pooling="ggem")
