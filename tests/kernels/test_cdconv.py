"""cdconv: the reference against torch's own dilated convolutions, the compiled versions against the reference."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from ultron_kernels import build, cdconv

from tests.kernels.tolerances import assert_close

pytestmark = pytest.mark.slow

SHAPES = [(1, 1, 1, 1), (2, 3, 1, 9), (1, 5, 7, 4), (2, 17, 12, 13), (1, 40, 5, 33), (3, 16, 8, 8), (0, 4, 6, 6)]


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", channels_last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape[1], 1, 3, 3, generator=generator, dtype=torch.float64)
    dilation = torch.randint(1, 8, shape[:2], generator=generator)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = input.to(device=device, dtype=dtype).contiguous(memory_format=memory_format)
    return input.requires_grad_(), weight.to(device=device, dtype=dtype).requires_grad_(), dilation.to(device)


def separate_convolutions(input: Tensor, weight: Tensor, dilation: Tensor) -> Tensor:
    """One convolution per sample and channel, by torch."""
    output = torch.empty_like(input)
    for b in range(input.shape[0]):
        for c in range(input.shape[1]):
            step = int(dilation[b, c])
            output[b, c] = functional.conv2d(input[b, c][None, None], weight[c][None], padding=step, dilation=step)[
                0, 0
            ]
    return output


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_equals_separate_convolutions(shape: tuple[int, ...]) -> None:
    input, weight, dilation = inputs(shape, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            cdconv(input, weight, dilation, backend="torch"),
            separate_convolutions(input, weight, dilation),
            rtol=0,
            atol=1e-13,
        )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_equals_reference(
    shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, device: str
) -> None:
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("float64 is the CPU's")
    input, weight, dilation = inputs(shape, dtype, device, channels_last)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(input)
    output, right = (cdconv(input, weight, dilation, backend=backend) for backend in (device, "torch"))
    assert_close(output, right, 4.0)
    if channels_last and min(shape) > 1:
        assert output.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(
        torch.autograd.grad(output, (input, weight), grad),
        torch.autograd.grad(right, (input, weight), grad),
        strict=True,
    ):
        assert_close(ours, theirs, 4.0)


@pytest.mark.parametrize("isa", ["baseline", "avx2", ""])
def test_every_instruction_set_equals_reference(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_CPU_ISA", isa)
    input, weight, dilation = inputs((2, 19, 11, 21), torch.float32)
    output, right = (cdconv(input, weight, dilation, backend=backend) for backend in ("cpu", "torch"))
    assert_close(output, right, 4.0)


def test_dilation_beyond_the_map_leaves_the_centre(device: str) -> None:
    input, weight, dilation = inputs((1, 4, 5, 6), torch.float32, device)
    far = torch.full_like(dilation, 10**12)
    torch.testing.assert_close(
        cdconv(input, weight, far, backend=device), input * weight[:, 0, 1, 1][None, :, None, None]
    )


def test_other_integers_as_dilation() -> None:
    input, weight, dilation = inputs((2, 3, 5, 6), torch.float32)
    assert torch.equal(cdconv(input, weight, dilation.to(torch.int32)), cdconv(input, weight, dilation))


def test_gradcheck_and_opcheck() -> None:
    input, weight, dilation = inputs((2, 3, 5, 6), torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: cdconv(a, b, dilation, backend="cpu"), (input, weight))
    torch.library.opcheck(torch.ops.ultron.cdconv.default, (input, weight, dilation))
    last, weight, dilation = inputs((2, 3, 5, 6), torch.float32, channels_last=True)
    torch.library.opcheck(torch.ops.ultron.cdconv.default, (last, weight, dilation))


def test_compiles_into_one_graph(device: str) -> None:
    input, weight, dilation = inputs((2, 3, 5, 6), torch.float32, device)
    compiled = torch.compile(lambda a, b, c: cdconv(a + 1, b, c).relu(), fullgraph=True, backend="aot_eager")
    assert_close(compiled(input, weight, dilation), cdconv(input + 1, weight, dilation).relu())


def test_the_first_use_of_a_process_compiles_into_one_graph() -> None:
    """The choice of the implementation looks for a compiler and a library, which no graph can hold."""
    program = (
        "import sys, torch; from ultron_kernels import cdconv; assert 'torch._dynamo' not in sys.modules\n"
        "compiled = torch.compile(lambda *inputs: cdconv(*inputs).relu(), fullgraph=True, backend='aot_eager')\n"
        "compiled(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(1, 2, dtype=torch.int64))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_same_bits_every_time_and_for_any_number_of_threads() -> None:
    input, weight, dilation = inputs((3, 40, 17, 19), torch.float32)
    results, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            out = cdconv(input, weight, dilation, backend="cpu")
            results.append((out, *torch.autograd.grad(out.square().sum(), (input, weight))))
    finally:
        torch.set_num_threads(before)
    for values in zip(*results, strict=True):
        assert all(torch.equal(values[0], value) for value in values[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(3, 1, 5, 5)}, r"weight \(C, 1, 3, 3\)"),
        (
            {"dilation": torch.ones(2, 4, dtype=torch.int64)},
            r"dilation must be \(B, C\) = \(2, 3\) integers, got \(2, 4\)",
        ),
        ({"dilation": torch.ones(2, 3)}, "integers"),
        ({"weight": torch.zeros(3, 1, 3, 3, dtype=torch.float64)}, "share one floating-point dtype"),
        ({"backend": "natten"}, "backend must be one of auto, torch, cpu, cuda, got 'natten'"),
    ],
)
def test_what_does_not_fit_is_said(change: dict, message: str) -> None:
    arguments = {
        "input": torch.zeros(2, 3, 5, 6),
        "weight": torch.zeros(3, 1, 3, 3),
        "dilation": torch.ones(2, 3, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        cdconv(**(arguments | change))


@pytest.mark.parametrize("least", [0, -1, -(10**12)])
@pytest.mark.parametrize("backend", ["auto", "torch", "cpu"])
def test_dilation_under_one_is_refused_by_every_backend(backend: str, least: int) -> None:
    dilation = torch.ones(2, 3, dtype=torch.int64)
    dilation[1, 2] = least
    arguments = torch.zeros(2, 3, 5, 6), torch.zeros(3, 1, 3, 3), dilation
    with pytest.raises(ValueError, match=f"dilation must be at least 1, got {least}"):
        cdconv(*arguments, backend=backend)
    if backend == "cpu":  # the operator itself refuses it too, there
        build.load("cpu")
        with pytest.raises(RuntimeError, match=f"dilation must be at least 1, got {least}"):
            torch.ops.ultron.cdconv(*arguments)
