"""Numbers in memory as the kernels see them, with guards around every tensor. bfloat16, which numpy lacks, is held as
its 16 bits."""

import math

import numpy as np

from tests.kernels.emulator.binding import Map

# Largest error allowed, relative to the largest number expected. float32: order of sums, and 2^x to 2 ulp. Half
# precision: results and the weights of the second product are rounded to 11 or 8 bits, gradients go through both.
TOLERANCE = {"float32": 3e-6, "float16": 1.5e-3, "bfloat16": 1e-2}
# numbers around every tensor: NaN where the kernels must not read, and looked at again where they must not write
GUARD = 64


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


def check(name: str, output: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert output.shape == expected.shape
    assert np.isfinite(output).all(), (
        f"{name}: {np.count_nonzero(~np.isfinite(output))} of {output.size} not written or not finite"
    )
    if output.size:
        worst = np.abs(output - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert worst <= tolerance, f"{name}: worst error {worst:.2e}, allowed {tolerance:.1e}"
