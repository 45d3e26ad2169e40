"""The depthwise convolution with its own gradient against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from ultron_cli.models.parts.depthwise import depthwise

SHAPES = [(2, 5, 1, 1), (3, 4, 2, 2), (2, 6, 1, 9), (1, 8, 4, 3), (2, 16, 13, 8), (0, 4, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_output_and_gradients_equal_pytorchs(shape: tuple[int, ...], dilation: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(shape[1], 1, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(features, weight, padding=dilation, dilation=dilation, groups=shape[1])
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, (features, weight), upstream)
    output = depthwise(features, weight, dilation)
    gradients = torch.autograd.grad(output, (features, weight), upstream)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
def test_first_and_second_derivatives(dilation: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise, (features, weight, dilation))
    assert torch.autograd.gradgradcheck(depthwise, (features, weight, dilation))


def test_only_the_wanted_gradient_is_made() -> None:
    features, weight = torch.randn(1, 3, 6, 6), torch.randn(3, 1, 3, 3, requires_grad=True)
    depthwise(features, weight, 1).sum().backward()
    assert features.grad is None and weight.grad is not None


def test_compiles_whole_and_runs_under_autocast() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    expected = torch.autograd.grad(depthwise(features, weight, 2).square().sum(), (features, weight))
    compiled = torch.compile(depthwise, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(compiled(features, weight, 2).square().sum(), (features, weight))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = depthwise(features, weight, 2)
    assert half.dtype == torch.bfloat16
    half.float().sum().backward()
