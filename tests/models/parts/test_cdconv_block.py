"""CDConv and the MobileNet block against Algorithm 1 read literally; where gradients go."""

import numpy as np
import pytest
import torch

from tests.models.literal_ultron import (
    literal_cdconv,
    literal_depthwise,
    literal_importance,
    literal_mobile_block,
    weights_of,
)
from ultron_cli.models.parts.cdconv import CDConv, ChannelImportance, MobileBlock, PlainDepthwise
from ultron_cli.models.parts.layers import eca_kernel_size

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    """Positive on the whole, each channel with a level of its own, so that all branches are taken."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) + 0.6 * torch.rand(
        *shape[:2], 1, 1, dtype=torch.float64, generator=generator
    )


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Norm statistics and parameters away from 0 and 1, in float64 and evaluation mode."""
    torch.manual_seed(7)
    for child in module.modules():
        if isinstance(child, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(child.running_mean, 0.0, 0.3)
            torch.nn.init.uniform_(child.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(child.weight, 0.5, 1.5)
            torch.nn.init.normal_(child.bias, 0.2, 0.3)
    return module.double().eval()


@pytest.mark.parametrize(
    ("n_channels", "size"), [(1, 1), (2, 1), (16, 3), (64, 3), (256, 5), (384, 5), (512, 5), (768, 5), (2048, 7)]
)
def test_eca_kernel_is_the_nearest_odd_number(n_channels: int, size: int) -> None:
    assert eca_kernel_size(n_channels) == size


def test_importance_equals_its_definition() -> None:
    module, values = randomise(ChannelImportance(16)), features(2, 16, 3, 4)
    np.testing.assert_allclose(
        module(values).detach().numpy(), literal_importance(values.numpy(), weights_of(module)["weight"]), **EXACT
    )


@pytest.mark.parametrize("gate", ["none", "multiply"])
@pytest.mark.parametrize("kind", ["value", "quantile"])
@pytest.mark.parametrize("shape", [(2, 16, 9, 7), (1, 5, 1, 4), (3, 8, 2, 2)])
def test_cdconv_equals_algorithm_1(shape: tuple[int, ...], kind: str, gate: str) -> None:
    module, values = randomise(CDConv(shape[1], threshold_kind=kind, gate=gate)), features(*shape)
    choice = {"thresholds": (0.75, 0.5), "kind": kind, "deltas": (3, 6), "gate": gate}
    expected = literal_cdconv(values.numpy(), weights_of(module), **choice)
    np.testing.assert_allclose(module(values).detach().numpy(), expected, **EXACT)
    np.testing.assert_allclose(
        module(values.contiguous(memory_format=torch.channels_last)).detach().numpy(), expected, **EXACT
    )


def test_all_three_branches_were_taken() -> None:
    """Else the test above would say little."""
    importance = randomise(CDConv(16)).importance(features(2, 16, 9, 7))
    assert (importance > 0.75).any() and ((importance <= 0.75) & (importance > 0.5)).any() and (importance <= 0.5).any()


def test_plain_depthwise_is_pytorchs() -> None:
    module, values = PlainDepthwise(6).double(), features(2, 6, 5, 4)
    expected = torch.nn.functional.conv2d(values, module.weight, padding=1, groups=6)
    torch.testing.assert_close(module(values), expected, **EXACT)
    np.testing.assert_allclose(
        expected[1, 3].detach().numpy(),
        literal_depthwise(values[1, 3].numpy(), module.weight[3, 0].detach().numpy(), 1),
        **EXACT,
    )


@pytest.mark.parametrize("gate", ["none", "multiply"])
def test_mobile_block_equals_its_definition(gate: str) -> None:
    choice = {"thresholds": (0.7, 0.55), "deltas": (2, 4), "gate": gate}
    block, values = randomise(MobileBlock(4, 4, CDConv(16, threshold_kind="value", **choice))), features(2, 4, 6, 5)
    np.testing.assert_allclose(
        block(values).detach().numpy(),
        literal_mobile_block(values.numpy(), weights_of(block), kind="value", **choice),
        **EXACT,
    )


@pytest.mark.parametrize("gate", ["none", "multiply"])
def test_norms_folded_into_weights_change_nothing(gate: str) -> None:
    """Evaluation against the training path with the same fixed statistics, in both memory orders."""
    block, values = randomise(MobileBlock(8, 4, CDConv(32, gate=gate))), features(2, 8, 7, 6)
    folded = block(values)
    for module in block.modules():
        module.training = not isinstance(module, torch.nn.BatchNorm2d)
    torch.testing.assert_close(folded, block(values), **EXACT)
    block.to(memory_format=torch.channels_last).eval()
    torch.testing.assert_close(folded, block(values.contiguous(memory_format=torch.channels_last)), **EXACT)


def test_the_gate_decides_whether_eca_learns() -> None:
    for gate in ("none", "multiply"):
        module = CDConv(16, gate=gate)
        module(features(2, 16, 6, 6).float()).square().sum().backward()
        assert module.weight.grad is not None
        assert (module.importance.weight.grad is not None) == (gate == "multiply")


def test_gradients_of_a_gated_block_are_right() -> None:
    """In float64; the dilations do not change under gradcheck's small steps."""
    block = MobileBlock(2, 2, CDConv(4, gate="multiply")).double()
    assert torch.autograd.gradcheck(block, features(2, 2, 4, 3).requires_grad_(), atol=1e-6)


def test_at_first_about_a_third_of_the_channels_takes_each_branch() -> None:
    """For maps that differ from photo to photo as those of photos do: channel means of 0.4 with a spread of 0.17 (seen
    on rendered landmarks)."""
    shares = []
    for seed in range(8):
        torch.manual_seed(seed)
        means = (0.4 + 0.17 * torch.randn(4, 384, 1, 1)).clamp(min=0)
        importance = ChannelImportance(384)(means)
        shares.append(
            [
                float(part.float().mean())
                for part in (importance > 0.75, (importance <= 0.75) & (importance > 0.5), importance <= 0.5)
            ]
        )
    assert all(0.2 < share < 0.5 for share in np.mean(shares, axis=0))
