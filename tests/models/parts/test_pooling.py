"""Poolings against their equations, position by position."""

import numpy as np
import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.parts.pooling import GeM, GGeM


def literal_gem(feature_map: np.ndarray, p: float, eps: float = 1e-6) -> np.ndarray:
    """Equation 3 of Radenovic et al. (TPAMI 2019), position by position."""
    n, channels, height, width = feature_map.shape
    pooled = np.zeros((n, channels))
    for b in range(n):
        for c in range(channels):
            total = 0.0
            for y in range(height):
                for x in range(width):
                    total += max(float(feature_map[b, c, y, x]), eps) ** p
            pooled[b, c] = (total / (height * width)) ** (1.0 / p)
    return pooled


@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_gem_equals_its_equation(p: float) -> None:
    feature_map = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(GeM(p).double()(feature_map).numpy(), literal_gem(feature_map.numpy(), p), rtol=1e-10)


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
