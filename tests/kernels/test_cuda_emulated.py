"""The CUDA kernels of both operators, compiled as C++ by emulator/ and compared with literal loops in float64; no
GPU needed."""

import ctypes
import itertools
import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

EMULATOR = Path(__file__).parent / "emulator"
CSRC = Path(__file__).resolve().parents[2] / "kernels" / "csrc"
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
# Largest error allowed, relative to the largest number expected. float32: order of sums, and 2^x to 2 ulp. Half
# precision: results and the weights of the second product are rounded to 11 or 8 bits, gradients go through both.
TOLERANCE = {"float32": 3e-6, "float16": 1.5e-3, "bfloat16": 1e-2}
# numbers around every tensor: NaN where the kernels must not read, and looked at again where they must not write
GUARD = 64


class Map(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p)] + [
        (f"{name}_stride", ctypes.c_int64) for name in ("batch", "row", "column", "head")
    ]


class ScalaShape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("batch", "height", "width", "heads", "head_dim", "kernel_size", "window_height", "window_width")
    ] + [
        ("scale", ctypes.c_double),
        ("dropout_p", ctypes.c_double),
        ("seed", ctypes.c_void_p),
        ("type", ctypes.c_int),
        ("bias_type", ctypes.c_int),
    ]


class ScalaForward(ctypes.Structure):
    _fields_ = (
        [("shape", ScalaShape)]
        + [(name, Map) for name in ("query", "key", "value", "out")]
        + [("bias", ctypes.c_void_p), ("lse", ctypes.c_void_p)]
    )


class ScalaBackward(ctypes.Structure):
    _fields_ = [
        ("shape", ScalaShape),
        *((name, Map) for name in ("query", "key", "value", "out", "grad_out")),
        ("bias", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        *((name, Map) for name in ("grad_query", "grad_key", "grad_value")),
        ("grad_bias", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("deterministic", ctypes.c_bool),
    ]


class CdconvShape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "channels", "height", "width")] + [
        ("type", ctypes.c_int),
        ("channels_last", ctypes.c_bool),
        ("dilation", ctypes.c_void_p),
    ]


def build_emulator(folder: Path, *flags: str) -> Path:
    """Compiles the kernels and the emulator into a library in `folder`."""
    library = folder / "emulated.so"
    sources = [*sorted(CSRC.glob("cuda/*.cu")), EMULATOR / "emulator.cpp", EMULATOR / "entries.cpp"]
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Wno-unknown-pragmas",
        "-Wno-psabi",
        *flags,
    ]
    command += [
        "-include",
        str(EMULATOR / "emulator.h"),
        "-I",
        str(CSRC),
        "-o",
        str(library),
        "-x",
        "c++",
        *map(str, sources),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    return library


def load_emulator(library: Path) -> ctypes.CDLL:
    kernels = ctypes.CDLL(str(library))
    for name in ("scala_forward", "scala_backward", "cdconv_forward", "cdconv_backward"):
        getattr(kernels, name).restype = ctypes.c_char_p
    for name in ("scala_workspace", "cdconv_workspace", "scala_backward_size"):
        getattr(kernels, name).restype = ctypes.c_int64
    return kernels


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the emulator with")
    return load_emulator(build_emulator(tmp_path_factory.mktemp("emulator")))


# Numbers in memory. bfloat16, which numpy lacks, is held as its 16 bits.


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """float64 to the bits of dtype, rounded to nearest."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return stored.astype(np.float64)
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Guarded:
    """An array in memory that is NaN before, between and after what was put in."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.dtype = dtype
        stored = np.dtype("uint16" if dtype == "bfloat16" else dtype)
        n = math.prod(shape)
        self.memory = np.full((n + 2 * GUARD) * stored.itemsize + 64, 0xFF, np.uint8)
        begin = GUARD * stored.itemsize
        begin += -(self.memory.ctypes.data + begin) % 64
        end = begin + n * stored.itemsize
        self.array = self.memory[begin:end].view(stored).reshape(shape)
        self.guards = self.memory[:begin], self.memory[end:]

    @property
    def address(self) -> int:
        return self.array.ctypes.data

    def read(self) -> np.ndarray:
        """The values, in float64, once it is sure that nothing around them was written."""
        assert all((guard == 0xFF).all() for guard in self.guards), "written out of bounds"
        return decode(self.array, self.dtype)


def guarded(values: np.ndarray, dtype: str) -> Guarded:
    result = Guarded(values.shape, dtype)
    result.array[...] = encode(values, dtype)
    return result


def map_of(array: np.ndarray) -> Map:
    """A (B, H, W, h, d) view as the kernels see it."""
    strides = [stride // array.itemsize for stride in array.strides]
    assert strides[4] == 1 or array.shape[4] == 1
    return Map(array.ctypes.data, *strides[:4])


# scala_attention


@dataclass(frozen=True, kw_only=True)
class Case:
    size: tuple[int, int, int, int, int]  # (B, H, W, h, d)
    k: int = 7
    dtype: str = "bfloat16"
    bias: str = "float32"  # or "none", or "same" as the maps
    dropout_p: float = 0.0
    layout: str = "fused"  # views of a (B, H, W, 3, h, d) projection; or "split": (B, h, H, W, d) in memory, with gaps
    scale: float | None = None  # d^-1/2

    def __str__(self) -> str:
        parts = [
            "x".join(map(str, self.size)),
            f"k{self.k}",
            self.dtype,
            f"bias-{self.bias}",
            f"p{self.dropout_p}",
            self.layout,
        ]
        return "-".join(parts + ([] if self.scale is None else [f"scale{self.scale}"]))


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
SANITIZED_CASES = [
    Case(size=(2, 17, 9, 1, dim), k=k, dtype=dtype, dropout_p=p)
    for dtype in ("float16", "float32")
    for dim, k, p in ((8, 3, 0.0), (24, 7, 0.2), (72, 9, 0.0))
] + [Case(size=(1, 9, 22, 1, 128), k=13, dtype=dtype, layout="split") for dtype in ("bfloat16", "float32")]


def window(position: int, length: int, k: int) -> slice:
    begin = min(max(position - k // 2, 0), length - min(k, length))
    return slice(begin, begin + min(k, length))


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10 in Python's own integers."""
    low = 0xFFFFFFFF
    for _ in range(10):
        first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [second >> 32 ^ counter[1] ^ key[0], second & low, first >> 32 ^ counter[3] ^ key[1], first & low]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return counter


def test_philox_of_the_reference_is_random123() -> None:
    """Known answers that Random123 publishes for philox4x32-10."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def kept(query: int, n_keys: int, dropout_p: float, seed: int) -> np.ndarray:
    """(n_keys,) factors: 1 / (1 - p), or 0 where dropped."""
    words = [
        word
        for j in range(-(-n_keys // 4))
        for word in philox([j, query & 0xFFFFFFFF, query >> 32, 0], [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])
    ]
    return (np.array(words[:n_keys]) >= int(dropout_p * 2**32)) / (1 - dropout_p)


def attention_by_loops(
    case: Case,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    bias: np.ndarray,
    scale: float,
    seed: int,
    grad: np.ndarray,
) -> dict[str, np.ndarray]:
    """Forward and backward of the definition in scala_attention.h, one query at a time, in float64."""
    batch, height, width, heads, dim = case.size
    result = {name: np.zeros(case.size) for name in ("out", "grad_query", "grad_key", "grad_value")}
    result |= {"lse": np.zeros(case.size[:4]), "grad_bias": np.zeros_like(bias)}
    for number, (b, y, x, head) in enumerate(
        itertools.product(range(batch), range(height), range(width), range(heads))
    ):
        rows, columns = window(y, height, case.k), window(x, width, case.k)
        near = (b, rows, columns, head)
        table = (
            head,
            slice(rows.start - y + case.k - 1, rows.stop - y + case.k - 1),
            slice(columns.start - x + case.k - 1, columns.stop - x + case.k - 1),
        )
        keys, values = key[near].reshape(-1, dim), value[near].reshape(-1, dim)
        scores = scale * keys @ query[b, y, x, head] + bias[table].reshape(-1)
        highest = scores.max()
        lse = highest + np.log(np.exp(scores - highest).sum())
        weights = np.exp(scores - lse)
        keep = kept(number, len(scores), case.dropout_p, seed) if case.dropout_p > 0 else np.ones(len(scores))
        result["lse"][b, y, x, head] = lse
        result["out"][b, y, x, head] = (weights * keep) @ values
        grad_here = grad[b, y, x, head]
        grad_weights = keep * (values @ grad_here)
        grad_scores = weights * (grad_weights - weights @ grad_weights)
        window_shape = (rows.stop - rows.start, columns.stop - columns.start)
        result["grad_query"][b, y, x, head] = scale * grad_scores @ keys
        result["grad_key"][near] += (scale * np.outer(grad_scores, query[b, y, x, head])).reshape(*window_shape, dim)
        result["grad_value"][near] += np.outer(weights * keep, grad_here).reshape(*window_shape, dim)
        result["grad_bias"][table] += grad_scores.reshape(window_shape)
    return result


def empty_map(case: Case) -> tuple[Guarded, np.ndarray]:
    """Room for a map in the layout of the case, and its (B, H, W, h, d) view."""
    batch, height, width, heads, dim = case.size
    if case.layout == "fused":
        memory = Guarded(case.size, case.dtype)
        return memory, memory.array
    memory = Guarded((batch, heads, height, width, dim + 8), case.dtype)
    return memory, memory.array[..., :dim].transpose(0, 2, 3, 1, 4)


@dataclass
class Run:
    """What the kernels were given and what they gave, in float64."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    scale: float
    seed: int


def run_scala(kernels: ctypes.CDLL, case: Case) -> Run:
    """Forward and backward of a case through the kernels."""
    batch, height, width, heads, dim = case.size
    random = np.random.default_rng(dim + 7 * case.k + height)
    scale, seed = dim**-0.5 if case.scale is None else case.scale, 0x1234567_89ABCDEF
    bias_type = case.dtype if case.bias == "same" else "float32"
    inputs, maps = {}, {}
    fused = Guarded((batch, height, width, 3, heads, dim), case.dtype)
    keep_alive = [fused]
    for i, name in enumerate(("query", "key", "value", "grad_out")):
        if case.layout == "fused" and i < 3:
            view = fused.array[:, :, :, i]
        else:
            memory, view = empty_map(case)
            keep_alive.append(memory)
        view[...] = encode(random.standard_normal(case.size), case.dtype)
        inputs[name] = decode(view, case.dtype)
        maps[name] = map_of(view)
    side = 2 * case.k - 1
    bias = guarded(random.standard_normal((heads, side, side)), bias_type)
    inputs["bias"] = np.zeros((heads, side, side)) if case.bias == "none" else bias.read()
    bias_address = None if case.bias == "none" else bias.address
    seed_memory = np.array([seed], np.int64)
    shape = ScalaShape(
        *case.size, case.k, min(case.k, height), min(case.k, width), scale, case.dropout_p, seed_memory.ctypes.data,
        TYPES[case.dtype], TYPES[bias_type],
    )  # fmt: skip

    written = {name: empty_map(case) for name in ("out", "grad_query", "grad_key", "grad_value")}
    written_maps = {name: map_of(view) for name, (_, view) in written.items()}
    lse = Guarded(case.size[:4], "float32")
    forward = ScalaForward(
        shape, maps["query"], maps["key"], maps["value"], written_maps["out"], bias_address, lse.address
    )
    assert kernels.scala_forward(ctypes.byref(forward)) is None

    grad_bias = Guarded((heads, side, side), bias_type)
    wants_grad_bias = case.bias != "none"
    workspace = Guarded((kernels.scala_workspace(ctypes.byref(shape), wants_grad_bias, False) // 4,), "float32")
    backward = ScalaBackward(
        shape,
        maps["query"],
        maps["key"],
        maps["value"],
        written_maps["out"],
        maps["grad_out"],
        bias_address,
        lse.address,
        written_maps["grad_query"],
        written_maps["grad_key"],
        written_maps["grad_value"],
        grad_bias.address if wants_grad_bias else None,
        workspace.address,
        False,
    )
    assert kernels.scala_backward(ctypes.byref(backward)) is None
    workspace.read()
    outputs = {"lse": lse.read()}
    for name, (memory, view) in written.items():
        memory.read()
        outputs[name] = decode(view, case.dtype)
        if case.layout == "split":
            assert np.isnan(decode(memory.array[..., case.size[4] :], case.dtype)).all(), (
                f"{name}: written between the rows"
            )
    if wants_grad_bias:
        outputs["grad_bias"] = grad_bias.read()
    return Run(inputs, outputs, scale, seed)


def check(name: str, got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert got.shape == expected.shape
    assert np.isfinite(got).all(), (
        f"{name}: {np.count_nonzero(~np.isfinite(got))} of {got.size} not written or not finite"
    )
    if got.size:
        worst = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert worst <= tolerance, f"{name}: worst error {worst:.2e}, allowed {tolerance:.1e}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scala(kernels: ctypes.CDLL, case: Case) -> None:
    run = run_scala(kernels, case)
    given = run.inputs
    expected = attention_by_loops(
        case, given["query"], given["key"], given["value"], given["bias"], run.scale, run.seed, given["grad_out"]
    )
    for name, got in run.outputs.items():
        tolerance = TOLERANCE["float32" if name == "lse" else case.dtype]
        check(name, got, expected[name], tolerance)


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


# cdconv


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
] + [ConvCase(size=(2, 3, 5, 6), dilations=(2, 4, 1 << 40))]


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
        down, right = (i - 1) * int(dilation[b, c]), (j - 1) * int(dilation[b, c])
        if abs(down) >= height or abs(right) >= width:
            continue
        to = (b, c, slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right)))
        source = (b, c, slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
        result["output"][to] += weight[c, 0, i, j] * values[source]
        result["grad_input"][source] += weight[c, 0, i, j] * grad[to]
        result["grad_weight"][c, 0, i, j] += (grad[to] * values[source]).sum()
    return result


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_cdconv(kernels: ctypes.CDLL, case: ConvCase) -> None:
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


@pytest.mark.skipif(
    platform.system() != "Linux", reason="the sanitizer is put before Python's own libraries by the Linux loader"
)
def test_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    """Every access to shared and global memory lies within its array, exactly: a process of its own runs some shapes
    under the sanitizer."""
    sanitizer = (
        shutil.which("g++")
        and subprocess.run(
            ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    if not sanitizer or not Path(sanitizer).is_absolute():
        pytest.skip("no g++ with the address sanitizer")
    build_emulator(tmp_path, "-O0", "-fsanitize=address")
    environment = os.environ | {"LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


def run_sanitized(folder: str) -> None:
    """What the test above runs: shapes with every kind of border, by the library built in `folder`."""
    kernels = load_emulator(Path(folder) / "emulated.so")
    for case in SANITIZED_CASES:
        run_scala(kernels, case)
    for case in CONV_CASES:
        test_cdconv(kernels, case)


if __name__ == "__main__":
    run_sanitized(sys.argv[1])
