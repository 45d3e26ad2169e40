"""scala_attention's CUDA kernels, forward and backward, against literal loops in float64; no GPU needed."""

import ctypes
import itertools

import numpy as np
import pytest

from tests.kernels.emulator.binding import TYPES, ScalaBackward, ScalaForward, ScalaShape
from tests.kernels.emulator.memory import TOLERANCE, check
from tests.kernels.emulator.scala_runs import Case, attention_by_loops, philox, run_scala

pytestmark = pytest.mark.slow

CASES = [
    # The shapes of the model, and its types.
    Case(size=(1, 16, 16, 2, 32)),
    Case(size=(2, 9, 17, 2, 32), dtype="float16", bias="same"),
    Case(size=(1, 11, 13, 2, 32), dtype="float32"),
    # Maps of one row, one column, smaller than the window, larger than a tile, just over it.
    *(
        Case(size=(1, *size, 1, 16), dtype=dtype)
        for size in ((1, 1), (1, 19), (18, 1), (3, 5), (17, 9), (8, 22))
        for dtype in ("bfloat16", "float32")
    ),
    # Windows: 9, 11 and 13 need two strips for the queries or the keys.
    *(
        Case(size=(1, *size, 1, 16), k=k, dtype=dtype, bias="same")
        for (k, size), dtype in itertools.product(
            ((3, (5, 10)), (5, (7, 12)), (9, (6, 24)), (13, (5, 21)), (13, (15, 14))), ("float16", "float32")
        )
    ),
    # Head dims, padded to 32, 64, 128.
    *(
        Case(size=(1, 5, 9, 2, d), dtype=dtype, bias="none")
        for d in (8, 24, 40, 64, 72, 128)
        for dtype in ("bfloat16", "float32")
    ),
    # Halos that take several chunks.
    Case(size=(1, 16, 8, 1, 128), k=13, dtype="bfloat16"),
    Case(size=(1, 9, 15, 1, 128), k=13, dtype="float32", bias="none"),
    # Dropout, with one and two strips.
    *(Case(size=(2, 6, 9, 2, 16), dtype=dtype, dropout_p=0.3) for dtype in ("bfloat16", "float16", "float32")),
    *(Case(size=(1, 5, 20, 1, 32), k=11, dtype=dtype, dropout_p=0.6) for dtype in ("float16", "float32")),
    # More samples than blocks or partial sums of the bias gradient are wanted: a block walks over several.
    *(Case(size=(2050, 1, 2, 1, 8), k=3, dtype=dtype) for dtype in ("float16", "float32")),
    # Strides, empty batches, scales that are not positive.
    *(
        Case(size=(2, 6, 5, 3, 16), k=5, dtype=dtype, layout="split", dropout_p=0.1)
        for dtype in ("bfloat16", "float32")
    ),
    *(Case(size=(0, 6, 5, 3, 16), dtype=dtype) for dtype in ("bfloat16", "float32")),
    *(
        Case(size=(1, 4, 5, 1, 16), dtype=dtype, scale=scale)
        for dtype in ("float16", "float32")
        for scale in (-0.4, 0.0)
    ),
]


def test_philox_of_the_reference_is_random123() -> None:
    """Known answers that Random123 publishes for philox4x32-10."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scala(kernels: ctypes.CDLL, case: Case) -> None:
    run = run_scala(kernels, case)
    inputs = run.inputs
    expected = attention_by_loops(
        case, inputs["query"], inputs["key"], inputs["value"], inputs["bias"], run.scale, run.seed, inputs["grad_out"]
    )
    for name, output in run.outputs.items():
        tolerance = TOLERANCE["float32" if name == "lse" else case.dtype]
        check(name, output, expected[name], tolerance)


@pytest.mark.parametrize(
    "case",
    [
        Case(size=(2, 17, 9, 1, 32), dropout_p=0.2),
        Case(size=(1, 18, 20, 1, 128), k=11, dtype="float16", bias="same"),
        Case(size=(2, 9, 9, 1, 64), dtype="float32", dropout_p=0.2),
    ],
    ids=str,
)
def test_order_of_threads_does_not_matter(kernels: ctypes.CDLL, case: Case) -> None:
    """The same bits whichever thread and block comes first: no barrier is missing, every sum has a fixed order."""
    first = run_scala(kernels, case)
    kernels.emulator_run_backwards(1)
    try:
        second = run_scala(kernels, case)
    finally:
        kernels.emulator_run_backwards(0)
    for name, values in first.outputs.items():
        np.testing.assert_array_equal(values, second.outputs[name], err_msg=name)


def test_refusals_name_the_rule(kernels: ctypes.CDLL) -> None:
    for change, words in (
        ({"type": TYPES["float64"]}, b"float64"),
        ({"head_dim": 136}, b"head_dim must be a multiple of 8"),
        ({"kernel_size": 15}, b"kernel_size must be odd"),
        ({"height": 2**20, "width": 2**12}, b"height x width x heads must be below 2^31"),
        ({"batch": 2**31}, b"the batch must be below 2^31"),
    ):
        fields = {
            "batch": 1,
            "height": 4,
            "width": 4,
            "heads": 1,
            "head_dim": 16,
            "kernel_size": 3,
            "window_height": 3,
            "window_width": 3,
            "scale": 1.0,
        }
        forward = ScalaForward(shape=ScalaShape(**fields | change))
        assert words in kernels.scala_forward(ctypes.byref(forward))
        assert words in kernels.scala_backward(ctypes.byref(ScalaBackward(shape=forward.shape)))
    forward.shape = ScalaShape(**fields)
    forward.value.row_stride = 2**31  # four rows: twice what 32 bits count
    assert b"must span fewer than 2^32 elements" in kernels.scala_forward(ctypes.byref(forward))
    assert kernels.scala_backward_size() == ctypes.sizeof(ScalaBackward)
