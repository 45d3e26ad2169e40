"""MCK, SCALA and its block against Algorithm 2 read literally."""

import numpy as np
import pytest
import torch

from tests.models.literal_ultron import literal_mck, literal_scala, literal_scala_block, weights_of
from ultron_cli.models.parts.scala import MultiscaleContext, ScalaAttention, ScalaBlock

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def with_clear_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that attention is far from uniform, in float64."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 7, 4), (1, 1, 3, 4), (1, 2, 1, 2)])
def test_mck_equals_its_definition(shape: tuple[int, ...], bias: bool) -> None:
    module, values = with_clear_weights(MultiscaleContext(shape[-1], bias=bias)), features(*shape)
    assert ("convolutions.0.bias" in module.state_dict()) == bias
    np.testing.assert_allclose(
        module(values).detach().numpy(), literal_mck(values.numpy(), weights_of(module)), **EXACT
    )


@pytest.mark.parametrize("mck_on", ["key", "query", "none"])
@pytest.mark.parametrize(("size", "window"), [((6, 5), 3), ((4, 9), 5), ((2, 3), 7), ((1, 1), 3)])
def test_scala_equals_algorithm_2(size: tuple[int, int], window: int, mck_on: str) -> None:
    module = with_clear_weights(ScalaAttention(16, 2, window=window, mck_on=mck_on)).eval()
    values = features(1, *size, 16)
    np.testing.assert_allclose(
        module(values).detach().numpy(), literal_scala(values.numpy(), weights_of(module), 2, window, mck_on), **EXACT
    )


def test_a_bias_of_mck_can_be_the_projections() -> None:
    """The projection is linear and follows at once: its own bias can hold what the convolutions' biases give."""
    module, values = with_clear_weights(MultiscaleContext(4, bias=True)), features(1, 5, 6, 4)
    plain = MultiscaleContext(4).double()
    plain.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        for i, convolution in enumerate(module.convolutions, start=1):
            plain.projection.bias += module.projection.weight[:, 4 * i : 4 * i + 4] @ convolution.bias
    torch.testing.assert_close(plain(values), module(values))


@pytest.mark.parametrize("mck_on", ["key", "none"])
def test_block_equals_its_definition(mck_on: str) -> None:
    block = with_clear_weights(ScalaBlock(16, ScalaAttention(16, 2, window=3, mck_on=mck_on), mlp_ratio=1.5)).eval()
    values = features(2, 4, 3, 16)
    np.testing.assert_allclose(
        block(values).detach().numpy(), literal_scala_block(values.numpy(), weights_of(block), 2, 3, mck_on), **EXACT
    )


def test_key_and_query_differ_and_none_has_no_context() -> None:
    modules = {
        where: with_clear_weights(ScalaAttention(16, 2, window=3, mck_on=where)) for where in ("key", "query", "none")
    }
    values = features(1, 4, 4, 16)
    assert not torch.allclose(modules["key"](values), modules["query"](values))
    assert modules["none"].context is None


def test_dropout_in_training_only() -> None:
    module = with_clear_weights(ScalaAttention(16, 2, window=3, attention_dropout=0.5, projection_dropout=0.1))
    values = features(1, 4, 4, 16)
    torch.manual_seed(0)
    first = module(values)
    assert not torch.allclose(first, module(values))
    torch.manual_seed(0)
    torch.testing.assert_close(first, module(values))
    module.eval()
    torch.testing.assert_close(module(values), module(values))


def test_gradients_reach_every_weight() -> None:
    block = ScalaBlock(16, ScalaAttention(16, 2, window=3, attention_dropout=0.1), drop_path=0.1).double()
    block(features(4, 4, 4, 16)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_are_right() -> None:
    block = with_clear_weights(ScalaBlock(8, ScalaAttention(8, 1, window=3)))
    assert torch.autograd.gradcheck(block, features(1, 3, 2, 8).requires_grad_(), atol=1e-5)
