"""scala_attention: cases, their runs through the emulated kernels, and the definition in literal loops."""

import ctypes
import itertools
from dataclasses import dataclass

import numpy as np

from tests.kernels.emulator.binding import TYPES, ScalaBackward, ScalaForward, ScalaShape
from tests.kernels.emulator.memory import Guarded, decode, encode, guarded, map_of


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


def keep_factors(query: int, n_keys: int, dropout_p: float, seed: int) -> np.ndarray:
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
        keep = keep_factors(number, len(scores), case.dropout_p, seed) if case.dropout_p > 0 else np.ones(len(scores))
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
