"""Attention pooling against its equations, position by position."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.models.literal_ultron import literal_attention_pooling, weights_of
from ultron_cli.models.parts.attention_pooling import AttentionPooling, NormedGeM


def pooling_and_map(**settings: Any) -> tuple[AttentionPooling, torch.Tensor]:
    torch.manual_seed(4)
    module = AttentionPooling(6, **settings)
    torch.nn.init.normal_(module.norm.weight, 1.0, 0.2)
    torch.nn.init.normal_(module.norm.bias, 0.0, 0.2)
    torch.nn.init.normal_(module.query.weight)
    torch.nn.init.normal_(module.key.weight)
    return module.double(), torch.randn(3, 6, 4, 5, dtype=torch.float64)


@pytest.mark.parametrize("shift", ["undone", "left"])
@pytest.mark.parametrize(("gem_p", "exponent"), [(3.0, 2.0), (1.0, 1.0), (4.5, 3.5)])
def test_pooling_equals_its_equations(gem_p: float, exponent: float, shift: str) -> None:
    module, feature_map = pooling_and_map(gem_p=gem_p, exponent=exponent, shift=shift)
    expected = literal_attention_pooling(feature_map.numpy(), weights_of(module), gem_p, exponent, shift)
    np.testing.assert_allclose(module(feature_map).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", ["undone", "left"])
def test_beta_and_a_learnable_exponent_of_the_query(shift: str) -> None:
    """SimPool's beta, 0 at first, and GeM's exponent of 2 as a third party has it: parameters with a gradient."""
    module, feature_map = pooling_and_map(gem_p=2.0, gem_p_learnable=True, shift=shift, beta=True)
    without, _ = pooling_and_map(gem_p=2.0, shift=shift)
    torch.testing.assert_close(module(feature_map), without(feature_map))
    torch.nn.init.constant_(module.beta, -0.3)
    torch.nn.init.constant_(module.summary.p, 2.5)
    expected = literal_attention_pooling(feature_map.numpy(), weights_of(module), 2.5, 2.0, shift)
    pooled = module(feature_map)
    np.testing.assert_allclose(pooled.detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    pooled.square().sum().backward()
    assert abs(float(module.beta.grad)) > 0 and abs(float(module.summary.p.grad)) > 0
    with pytest.raises(ValueError, match="beta is added after the power mean"):
        AttentionPooling(6, exponent=None, beta=True)


@pytest.mark.parametrize("exponent", [0.1, 1.25, 7.5, 30.0, 100.0])
def test_every_exponent_works_in_float32(exponent: float) -> None:
    module, feature_map = pooling_and_map(gem_p=exponent, exponent=exponent, shift="left")
    feature_map[0, 2] = feature_map[0].amin() - 9.0  # a channel that is the least of all everywhere
    expected = literal_attention_pooling(feature_map.numpy(), weights_of(module), exponent, exponent, "left")
    module, feature_map = module.float(), feature_map.float().requires_grad_()
    pooled = module(feature_map)
    # In float32 the least value lies a rounding beside eps, which its power 0.1 sees.
    np.testing.assert_allclose(pooled.detach().numpy(), expected, rtol=2e-3, atol=2e-6)
    pooled.sum().backward()
    gradients = [feature_map.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_weights_are_shares_and_a_photo_stands_alone() -> None:
    module, feature_map = pooling_and_map()
    torch.testing.assert_close(module.weights(feature_map)[0].sum(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(module(feature_map)[:1], module(feature_map[:1]))


def test_exponent_1_is_the_weighted_mean() -> None:
    module, feature_map = pooling_and_map(exponent=1.0)
    weights, values = module.weights(feature_map)
    torch.testing.assert_close(module(feature_map), (weights[:, :, None] * values).sum(dim=1))


def test_half_precision_in_float32_out() -> None:
    module, feature_map = pooling_and_map()
    module, feature_map = module.float(), feature_map.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = module(feature_map)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, module(feature_map.float()))


def test_gradient_is_right() -> None:
    module, feature_map = pooling_and_map()
    assert torch.autograd.gradcheck(module, feature_map.requires_grad_())


def test_normed_gem_normalises_across_channels() -> None:
    feature_map = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    normalised = torch.nn.functional.layer_norm(feature_map.permute(0, 2, 3, 1), (6,), eps=1e-6)
    expected = normalised.clamp(min=1e-6).pow(3.0).mean(dim=(1, 2)).pow(1 / 3)
    torch.testing.assert_close(NormedGeM(6).double()(feature_map), expected)
