"""ULTRON's operators made of standard ones, which leave PyTorch with a graph, against the reference operators."""

import pytest
import torch
from ultron_kernels import cdconv, ops, scala_attention
from ultron_kernels.standard import cdconv_standard, scala_attention_standard

from tests.kernels.tolerances import assert_close

# (B, H, W, h, d), k: one row, maps smaller than the window on one axis or both, as large, larger, no sample
SHAPES = [
    ((1, 1, 1, 1, 8), 3),
    ((2, 1, 9, 2, 16), 5),
    ((1, 5, 3, 2, 24), 7),
    ((1, 7, 7, 1, 8), 7),
    ((2, 7, 11, 3, 8), 5),
    ((1, 13, 2, 1, 8), 13),
    ((0, 6, 6, 2, 16), 7),
]


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "k"), SHAPES)
@torch.no_grad()
def test_attention_equals_the_reference(shape: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
    batch, height, width, heads, dim = shape
    joined = draws(batch, height, width, 3, heads, dim, dtype=dtype)
    query, key, value = joined.unbind(3)  # as a network has them: not contiguous
    for bias in (draws(heads, 2 * k - 1, 2 * k - 1, seed=1, dtype=dtype), None):
        right = scala_attention(query, key, value, bias, kernel_size=k, scale=0.3, backend="torch")
        assert_close(scala_attention_standard(query, key, value, bias, k, 0.3), right)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 9), (1, 5, 7, 4), (2, 6, 12, 13), (0, 4, 6, 6)])
@torch.no_grad()
def test_cdconv_equals_the_reference(shape: tuple[int, ...]) -> None:
    input, weight = draws(*shape), draws(shape[1], 1, 3, 3, seed=1)
    choices = (1, 2, 3, 2, 5)  # one of them twice
    dilation = torch.randint(0, 5, shape[:2], generator=torch.Generator().manual_seed(2))
    dilation = torch.tensor(choices)[dilation]
    for numbers in (input, input.to(memory_format=torch.channels_last)):
        right = cdconv(numbers, weight, dilation, backend="torch")
        assert_close(cdconv_standard(numbers, weight, dilation, choices), right)
    with pytest.raises(ValueError, match="choices must name at least one dilation"):
        cdconv_standard(input, weight, dilation, ())


@torch.no_grad()
def test_they_are_taken_within_the_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(ops.standard, "scala_attention_standard", lambda *_: calls.append(1))
    query = draws(1, 3, 3, 1, 8)
    scala_attention(query, query, query, kernel_size=3, backend="torch")
    with pytest.raises(RuntimeError, match="inside"), ops.standard_operators():
        scala_attention(query, query, query, kernel_size=3)
        scala_attention(query, query, query, kernel_size=3, backend="torch")  # by name it stays itself
        raise RuntimeError("inside")
    assert calls == [1] and not ops.takes_standard
