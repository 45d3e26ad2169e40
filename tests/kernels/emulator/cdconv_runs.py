"""cdconv: cases, their runs through the emulated kernels, and the definition in literal loops."""

import ctypes
import itertools
from dataclasses import dataclass

import numpy as np

from tests.kernels.emulator.binding import TYPES, CdconvShape
from tests.kernels.emulator.memory import TOLERANCE, Guarded, check, decode, encode, guarded


@dataclass(frozen=True, kw_only=True)
class ConvCase:
    size: tuple[int, int, int, int]  # (B, C, H, W)
    dtype: str = "float32"
    channels_last: bool = False
    dilations: tuple[int, ...] = (1, 3, 6)

    def __str__(self) -> str:
        return "-".join(
            ["x".join(map(str, self.size)), self.dtype, "channels_last" if self.channels_last else "contiguous"]
        )


CONV_CASES = [
    ConvCase(size=size, dtype=dtype, channels_last=channels_last)
    for size, dtype in (
        ((2, 3, 8, 8), "float32"),
        ((2, 5, 13, 7), "float16"),
        ((1, 33, 7, 9), "bfloat16"),
        ((3, 2, 1, 1), "float32"),
        ((1, 4, 1, 21), "bfloat16"),
        ((1, 2, 40, 37), "float32"),  # two bands
        ((0, 3, 8, 8), "float32"),
        ((2, 3, 0, 8), "float16"),
    )
    for channels_last in (False, True)
] + [
    ConvCase(size=(2, 3, 5, 6), dilations=(2, 4, 1 << 40)),
    # Below 1, which ops.py refuses: taken as 1, and nothing is read outside the map.
    ConvCase(size=(2, 3, 5, 6), dilations=(-2, 0, -(1 << 40))),
    ConvCase(size=(2, 3, 5, 6), dilations=(-2, 0, -(1 << 40)), channels_last=True),
]


def convolution_by_loops(
    values: np.ndarray, weight: np.ndarray, dilation: np.ndarray, grad: np.ndarray
) -> dict[str, np.ndarray]:
    """Forward and backward of the definition in cdconv.h, one plane and tap at a time, in float64."""
    batch, channels, height, width = values.shape
    result = {
        "output": np.zeros_like(values),
        "grad_input": np.zeros_like(values),
        "grad_weight": np.zeros_like(weight),
    }
    for b, c, i, j in itertools.product(range(batch), range(channels), range(3), range(3)):
        down, right = (i - 1) * max(1, int(dilation[b, c])), (j - 1) * max(1, int(dilation[b, c]))
        if abs(down) >= height or abs(right) >= width:
            continue
        to = (b, c, slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right)))
        source = (b, c, slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
        result["output"][to] += weight[c, 0, i, j] * values[source]
        result["grad_input"][source] += weight[c, 0, i, j] * grad[to]
        result["grad_weight"][c, 0, i, j] += (grad[to] * values[source]).sum()
    return result


def check_cdconv(kernels: ctypes.CDLL, case: ConvCase) -> None:
    """Runs a case forward and backward through the kernels and compares it with the loops."""
    random = np.random.default_rng(sum(case.size))
    batch, channels, height, width = case.size

    def room() -> tuple[Guarded, np.ndarray]:
        """Memory for a map, and its (B, C, H, W) view."""
        if not case.channels_last:
            memory = Guarded(case.size, case.dtype)
            return memory, memory.array
        memory = Guarded((batch, height, width, channels), case.dtype)
        return memory, memory.array.transpose(0, 3, 1, 2)

    memory = {name: room() for name in ("input", "grad", "output", "grad_input")}
    for name in ("input", "grad"):
        memory[name][1][...] = encode(random.standard_normal(case.size), case.dtype)
    weight = guarded(random.standard_normal((channels, 1, 3, 3)), case.dtype)
    dilation = random.choice(np.array(case.dilations, np.int64), (batch, channels))
    shape = CdconvShape(*case.size, TYPES[case.dtype], case.channels_last, dilation.ctypes.data)
    address = {name: ctypes.c_void_p(array.address) for name, (array, _) in memory.items()}
    weight_address = ctypes.c_void_p(weight.address)
    assert kernels.cdconv_forward(ctypes.byref(shape), address["input"], weight_address, address["output"]) is None

    grad_weight = Guarded((channels, 1, 3, 3), case.dtype)
    workspace = Guarded((kernels.cdconv_workspace(ctypes.byref(shape)) // 4,), "float32")
    for grads in ((address["grad_input"], None), (None, ctypes.c_void_p(grad_weight.address))):
        problem = kernels.cdconv_backward(
            ctypes.byref(shape),
            address["grad"],
            address["input"],
            weight_address,
            *grads,
            ctypes.c_void_p(workspace.address),
        )
        assert problem is None
    workspace.read()

    expected = convolution_by_loops(
        decode(memory["input"][1], case.dtype), weight.read(), dilation, decode(memory["grad"][1], case.dtype)
    )
    check("grad_weight", grad_weight.read(), expected["grad_weight"], TOLERANCE[case.dtype])
    for name in ("output", "grad_input"):
        memory[name][0].read()
        check(name, decode(memory[name][1], case.dtype), expected[name], TOLERANCE[case.dtype])
