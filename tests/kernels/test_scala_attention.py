"""scala_attention: the reference against dense attention, the compiled versions against the reference, on odd
shapes."""

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from ultron_kernels import scala_attention
from ultron_kernels.backends import window_mask
from ultron_kernels.reference import dropout_mask, philox, window_keys

from tests.kernels.tolerances import assert_close

pytestmark = pytest.mark.slow

SHAPES = [  # (B, H, W, h, d), k
    ((1, 1, 1, 1, 8), 3),
    ((2, 1, 9, 2, 16), 5),
    ((1, 5, 3, 2, 24), 7),  # smaller than the window
    ((2, 7, 11, 3, 32), 7),
    ((1, 13, 2, 1, 128), 13),
    ((1, 40, 6, 9, 8), 3),  # several blocks of rows
    ((1, 48, 64, 1, 32), 7),
    ((1, 14, 15, 2, 40), 11),
    ((1, 9, 10, 1, 64), 9),
    ((0, 6, 6, 2, 16), 7),
]


def inputs(shape: tuple[int, ...], k: int, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    """query, key, value and bias, each with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    tensors.append(torch.randn(shape[3], 2 * k - 1, 2 * k - 1, generator=generator, dtype=torch.float64))
    return [tensor.to(device=device, dtype=dtype).requires_grad_() for tensor in tensors]


def dense_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, k: int) -> Tensor:
    """Every position attends to every position, with minus infinity outside the window: written pair by pair."""
    batch, height, width, heads, dim = query.shape
    mask = torch.full((heads, height * width, height * width), -torch.inf, dtype=query.dtype)
    rows, columns = (
        [range(s[0], s[-1] + 1) for s in window_keys(n, k, query.device).tolist()] for n in (height, width)
    )
    for y in range(height):
        for x in range(width):
            for key_y in rows[y]:
                for key_x in columns[x]:
                    mask[:, y * width + x, key_y * width + key_x] = bias[:, key_y - y + k - 1, key_x - x + k - 1]
    flat = [tensor.reshape(batch, height * width, heads, dim).transpose(1, 2) for tensor in (query, key, value)]
    return functional.scaled_dot_product_attention(*flat, attn_mask=mask).transpose(1, 2).reshape(query.shape)


@pytest.mark.parametrize(
    ("length", "k", "starts"), [(7, 3, [0, 0, 1, 2, 3, 4, 4]), (4, 7, [0, 0, 0, 0]), (6, 5, [0, 0, 0, 1, 1, 1])]
)
def test_windows_move_inward_at_the_borders(length: int, k: int, starts: list[int]) -> None:
    keys = window_keys(length, k, torch.device("cpu"))
    assert keys[:, 0].tolist() == starts
    assert keys.shape == (length, min(k, length)) and (keys[:, -1] < length).all()


@pytest.mark.parametrize(("shape", "k"), [case for case in SHAPES if case[0][1] * case[0][2] < 200 and case[0][0]])
def test_reference_equals_dense_attention(shape: tuple[int, ...], k: int) -> None:
    query, key, value, bias = (tensor.detach() for tensor in inputs(shape, k, torch.float64))
    output = scala_attention(query, key, value, bias, kernel_size=k, backend="torch")
    torch.testing.assert_close(output, dense_attention(query, key, value, bias, k), rtol=0, atol=1e-12)


def test_reference_equals_natten() -> None:
    pytest.importorskip("natten", reason="natten is not installed (an extra)")
    query, key, value, _ = (tensor.detach() for tensor in inputs((2, 12, 16, 2, 32), 7, torch.float32))
    output, right = (
        scala_attention(query, key, value, kernel_size=7, backend=backend) for backend in ("torch", "natten")
    )
    torch.testing.assert_close(output, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "k"), SHAPES)
def test_compiled_equals_reference(shape: tuple[int, ...], k: int, dtype: torch.dtype, device: str) -> None:
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("float64 is the CPU's")
    tensors = inputs(shape, k, dtype, device)
    grad = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(tensors[0])
    output, right = (scala_attention(*tensors, kernel_size=k, backend=backend) for backend in (device, "torch"))
    assert_close(output, right)
    # Gradients in half precision start from outputs that are rounded already: delta = sum(grad * out) carries that on.
    factor = {torch.float16: 8.0, torch.bfloat16: 8.0, torch.float32: 10.0}.get(dtype, 10.0)
    for ours, theirs in zip(
        torch.autograd.grad(output, tensors, grad), torch.autograd.grad(right, tensors, grad), strict=True
    ):
        assert_close(ours, theirs, factor)


@pytest.mark.parametrize("isa", ["baseline", "avx2", ""])
def test_every_instruction_set_equals_reference(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_CPU_ISA", isa)
    assert os.environ["ULTRON_CPU_ISA"] == isa  # the library asks the environment at every call
    for shape, k in (((2, 9, 10, 2, 24), 5), ((1, 8, 9, 2, 32), 7), ((1, 15, 14, 1, 72), 13)):
        tensors = inputs(shape, k, torch.float32)
        output, right = (scala_attention(*tensors, kernel_size=k, backend=backend) for backend in ("cpu", "torch"))
        assert_close(output, right)
        for ours, theirs in zip(
            torch.autograd.grad(output.sum(), tensors), torch.autograd.grad(right.sum(), tensors), strict=True
        ):
            assert_close(ours, theirs, 10.0)


def test_without_bias_and_with_a_scale(device: str) -> None:
    query, key, value, _ = inputs((2, 8, 9, 2, 16), 5, torch.float32, device)
    output, right = (
        scala_attention(query, key, value, kernel_size=5, scale=0.7, backend=backend) for backend in (device, "torch")
    )
    assert_close(output, right)
    for ours, theirs in zip(
        *(torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (output, right)), strict=True
    ):
        assert_close(ours, theirs, 10.0)


@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16])
def test_bias_in_float32_or_the_inputs_dtype(bias_dtype: torch.dtype, device: str) -> None:
    query, key, value, bias = inputs((1, 8, 8, 2, 16), 7, torch.bfloat16, device)
    bias = bias.detach().to(bias_dtype).requires_grad_()
    output, right = (scala_attention(query, key, value, bias, backend=backend) for backend in (device, "torch"))
    assert_close(output, right)
    ours, theirs = (torch.autograd.grad(out.sum(), bias)[0] for out in (output, right))
    assert ours.dtype == bias_dtype
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.02, atol=0.1)


def test_strided_inputs_are_read_in_place(device: str) -> None:
    fused = torch.randn(2, 8, 9, 3, 2, 16, device=device)
    query, key, value = fused.unbind(3)  # as a fused projection gives them
    assert not query.is_contiguous()
    dense = [tensor.contiguous() for tensor in (query, key, value)]
    assert torch.equal(scala_attention(query, key, value, backend=device), scala_attention(*dense, backend=device))
    turned = [tensor.transpose(1, 2) for tensor in dense]  # H and W change places
    assert_close(scala_attention(*turned, backend=device), scala_attention(*turned, backend="torch"))
    inner = [
        torch.randn(1, 8, 9, 16, 2, device=device).transpose(3, 4) for _ in range(3)
    ]  # head dims not contiguous: copied
    assert_close(scala_attention(*inner, backend=device), scala_attention(*inner, backend="torch"))


def test_a_value_outside_every_window_changes_nothing() -> None:
    """On the CPU; the CUDA kernels multiply masked keys too, so there a key that is not finite reaches the queries
    of its tile."""
    query, key, value, bias = (tensor.detach() for tensor in inputs((1, 20, 20, 1, 8), 3, torch.float32))
    before = scala_attention(query, key, value, bias, kernel_size=3, backend="cpu")
    key[0, 10, 10], value[0, 10, 10] = torch.inf, torch.nan
    after = scala_attention(query, key, value, bias, kernel_size=3, backend="cpu")
    touched = ~torch.isfinite(after).all(-1)[0, :, :, 0]
    assert touched[9:12, 9:12].all() and touched.sum() == 9
    assert torch.equal(before[0, :, :, 0][~touched], after[0, :, :, 0][~touched])


def test_large_scores_do_not_overflow(device: str) -> None:
    query, key, value, bias = (100 * tensor.detach() for tensor in inputs((1, 6, 6, 1, 32), 5, torch.float32, device))
    output = scala_attention(query, key, value, bias, kernel_size=5, backend=device)
    assert torch.isfinite(output).all()
    assert_close(output, scala_attention(query, key, value, bias, kernel_size=5, backend="torch"), 10.0)


def test_gradcheck() -> None:
    tensors = inputs((1, 4, 5, 2, 8), 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *args: scala_attention(*args, kernel_size=3, backend="cpu"), tensors)

    def dropped(*args: Tensor) -> Tensor:
        torch.manual_seed(5)
        return scala_attention(*args, kernel_size=3, dropout_p=0.4, backend="cpu")

    assert torch.autograd.gradcheck(dropped, tensors)


def test_philox_equals_the_published_vectors() -> None:
    """The known answers of the authors' Random123 library (kat_vectors, philox4x32 10)."""
    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
    known = [
        ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ]
    for words, right in known:
        tensors = [torch.tensor([word]) for word in words]
        assert tuple(int(word) for word in philox(tuple(tensors[:4]), tuple(tensors[4:]))) == right


@pytest.mark.parametrize("dropout_p", [0.1, 0.5])
def test_dropout_equals_reference_for_one_seed(dropout_p: float, device: str) -> None:
    tensors, results = inputs((2, 9, 8, 2, 16), 5, torch.float32, device), []
    for backend in (device, "torch", device):
        torch.manual_seed(3)
        out = scala_attention(*tensors, kernel_size=5, dropout_p=dropout_p, backend=backend)
        results.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
    for ours, theirs, again in zip(*results, strict=True):
        assert torch.equal(ours, again)
        assert_close(ours, theirs, 10.0)
    assert not torch.equal(scala_attention(*tensors, kernel_size=5, dropout_p=dropout_p, backend=device), results[0][0])


def test_dropout_statistics() -> None:
    seed = torch.tensor([12345])
    mask = dropout_mask(seed, (4, 16, 16, 4), 49, 0.3).double()
    n = mask.numel()
    assert abs(mask.mean() - 0.7) < 5 * (0.21 / n) ** 0.5
    per_key = mask.view(-1, 49).mean(0)
    assert (per_key - 0.7).abs().max() < 5 * (0.21 / (n / 49)) ** 0.5
    neighbours = (mask.view(-1, 49)[:, 1:] - 0.7) * (mask.view(-1, 49)[:, :-1] - 0.7)
    assert neighbours.mean().abs() < 5 * 0.21 / (n * 48 / 49) ** 0.5  # no correlation of neighbouring keys
    query = torch.ones(1, 24, 24, 4, 8)
    outputs = scala_attention(query, query, query, kernel_size=7, dropout_p=0.3, backend="cpu")
    assert abs(outputs.mean() - 1) < 0.01  # kept weights are divided by 1 - p


def test_same_bits_every_time_and_for_any_number_of_threads() -> None:
    tensors, results, before = inputs((2, 40, 20, 5, 32), 7, torch.float32), [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            out = scala_attention(*tensors, backend="cpu")
            results.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
    finally:
        torch.set_num_threads(before)
    for values in zip(*results, strict=True):
        assert all(torch.equal(values[0], value) for value in values[1:])


def test_opcheck(device: str) -> None:
    query, key, value, bias = inputs((2, 5, 6, 2, 16), 3, torch.float32, device)
    seed = torch.tensor([7], device=device)
    scala_attention(query, key, value, bias, kernel_size=3, backend=device)  # loads the library
    op = torch.ops.ultron.scala_attention.default
    torch.library.opcheck(op, (query, key, value, bias, None, 3, 0.25, 0.0))
    torch.library.opcheck(op, (query, key, value, None, seed, 3, 0.25, 0.5))


def test_compiles_into_one_graph_and_exports(device: str) -> None:
    query, key, value, bias = inputs((1, 6, 7, 2, 16), 5, torch.float32, device)

    def block(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        return scala_attention(query * 2, key, value, bias, kernel_size=5).relu()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    output, right = compiled(query, key, value, bias), block(query, key, value, bias)
    assert_close(output, right)
    for ours, theirs in zip(*(torch.autograd.grad(out.sum(), (query, bias)) for out in (output, right)), strict=True):
        assert_close(ours, theirs)

    class Module(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return scala_attention(query, key, value, kernel_size=5)

    plain = [tensor.detach() for tensor in (query, key, value)]
    program = torch.export.export(Module(), tuple(plain))
    assert "ultron.scala_attention" in str(program.graph)
    assert_close(program.module()(*plain), Module()(*plain))


def test_autocast_computes_in_half_precision(device: str) -> None:
    query, key, value, bias = inputs((1, 6, 7, 2, 16), 5, torch.float32, device)
    with torch.autocast(device, dtype=torch.bfloat16):
        output = scala_attention(query, key, value, bias, kernel_size=5)
    assert output.dtype == torch.bfloat16
    assert_close(
        output, scala_attention(*(t.bfloat16() for t in (query, key, value)), bias, kernel_size=5, backend="torch")
    )
    assert torch.autograd.grad(output.float().sum(), query)[0].dtype == torch.float32


def test_window_mask_equals_window_keys() -> None:
    mask = window_mask(3, 9, 5, torch.device("cpu")).view(3, 9, 3, 9)
    assert mask[1, 4].nonzero().tolist() == [[y, x] for y in range(3) for x in range(2, 7)]
    assert mask.view(27, 27).sum(1).eq(3 * 5).all()


def test_flex_attention_equals_reference() -> None:
    query, key, value, bias = (tensor.detach() for tensor in inputs((1, 8, 9, 2, 16), 5, torch.float32))
    from ultron_kernels import backends

    backends.compiled_flex_attention.cache_clear()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        from torch.nn.attention import flex_attention as flex

        patch.setattr(
            backends, "compiled_flex_attention", lambda: flex.flex_attention
        )  # the same function, not compiled: quicker
        output = scala_attention(query, key, value, bias, kernel_size=5, backend="flex")
    assert_close(output, scala_attention(query, key, value, bias, kernel_size=5, backend="torch"), 10.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd and 3 to 13, got 4"),
        ({"kernel_size": 15}, "kernel_size must be odd and 3 to 13, got 15"),
        ({"dropout_p": 1.0}, "dropout_p must be at least 0 and under 1, got 1.0"),
        ({"bias": torch.zeros(2, 13, 12)}, r"bias must be \(heads, 2k-1, 2k-1\) = \(2, 13, 13\), got \(2, 13, 12\)"),
        (
            {"bias": torch.zeros(2, 13, 13, dtype=torch.float64)},
            "bias must be float32 or torch.float32 as the query, got torch.float64",
        ),
        ({"key": torch.zeros(1, 8, 7, 2, 16)}, "must share one shape"),
        ({"key": torch.zeros(1, 8, 8, 2, 16, dtype=torch.float64)}, "must share one floating-point dtype"),
        ({"backend": "gpu"}, "backend must be one of auto, torch, cpu, cuda, natten, flex, got 'gpu'"),
        ({"backend": "cuda"}, "backend 'cuda' needs tensors on cuda, got cpu"),
    ],
)
def test_what_does_not_fit_is_said(change: dict, message: str) -> None:
    arguments = {name: torch.zeros(1, 8, 8, 2, 16) for name in ("query", "key", "value")} | change
    with pytest.raises(ValueError, match=message):
        scala_attention(**arguments)


def test_head_dim_is_checked() -> None:
    with pytest.raises(ValueError, match="head dim must be a multiple of 8 from 8 to 128, got 12"):
        scala_attention(*(torch.zeros(1, 8, 8, 2, 12) for _ in range(3)))
    with pytest.raises(RuntimeError, match="head dim must be a multiple of 8, 8 to 128, got 136"):
        tensor = torch.zeros(1, 8, 8, 2, 136)
        torch.ops.ultron.scala_attention(tensor, tensor, tensor, None, None, 7, 1.0, 0.0)


@pytest.mark.parametrize("backend", ["natten", "flex"])
def test_others_say_what_they_lack(backend: str) -> None:
    tensor = torch.zeros(1, 8, 8, 2, 16)
    with pytest.raises(RuntimeError, match="attention dropout"):
        scala_attention(tensor, tensor, tensor, dropout_p=0.1, backend=backend)
