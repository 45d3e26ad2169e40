"""Numbers that are the same on every machine: seeded draws by name, and sine and cosine from + - * / alone.

A library's sin, cos, exp and normal() may differ in the last bit between processors and builds, so the rendered
landmarks use none of them.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_RADIANS_PER_DEGREE = 3.141592653589793 / 180.0


def sine(angle_deg: float) -> float:
    """Sine of an angle in degrees by its Taylor polynomial (error below 1e-12), from IEEE + - * / only."""
    folded = (angle_deg + 180.0) % 360.0 - 180.0
    if folded > 90.0:
        folded = 180.0 - folded
    elif folded < -90.0:
        folded = -180.0 - folded
    x = folded * _RADIANS_PER_DEGREE
    term = total = x
    for n in range(1, 12):
        term = -term * x * x / ((2 * n) * (2 * n + 1))
        total += term
    return total


def cosine(angle_deg: float) -> float:
    """Cosine of an angle in degrees, from `sine`."""
    return sine(90.0 - angle_deg)


class Draws:
    """Random draws that depend on their key alone, so photos can be made in any order by any number of processes.

    The key (for example seed, landmark, photo) is hashed with SHA-256 into the seed of numpy's PCG64. Only uniform
    53-bit fractions and raw bytes are taken from it: their streams involve no rounding and no library function.
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
        self._generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._generator.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return float(self._generator.random()) < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, weights: dict[T, float]) -> T:
        """One of the keys, with probability in proportion to its weight."""
        left = self.uniform(0.0, sum(weights.values()))
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return list(weights)[-1]  # rounding has left a remainder

    def bell(self, spread: float) -> float:
        """A bell-shaped number about 0 with standard deviation `spread`, within 3.5 spreads: the sum of four uniform
        ones."""
        return (sum(float(self._generator.random()) for _ in range(4)) - 2.0) * 1.7320508 * spread

    def sign(self) -> float:
        """-1.0 or 1.0."""
        return -1.0 if self.chance(0.5) else 1.0

    def bytes(self, *shape: int) -> np.ndarray:
        """Array of the given shape, uint8, all values equally likely."""
        n = 1
        for side in shape:
            n *= side
        return np.frombuffer(self._generator.bytes(n), np.uint8).reshape(shape)


def value_noise(draws: Draws, height: int, width: int, cell: int) -> np.ndarray:
    """(height, width) float32 in [-1, 1]: random values every `cell` pixels, with linear interpolation between them."""
    grid = (draws.bytes(height // cell + 2, width // cell + 2).astype(np.float32) - 127.5) / np.float32(127.5)
    y, x = np.arange(height), np.arange(width)
    part_y = ((y % cell).astype(np.float32) / np.float32(cell))[:, None]
    part_x = ((x % cell).astype(np.float32) / np.float32(cell))[None, :]
    rows = grid[y // cell] * (1 - part_y) + grid[y // cell + 1] * part_y
    return rows[:, x // cell] * (1 - part_x) + rows[:, x // cell + 1] * part_x


def draw_order(seed: int, names: Sequence[str]) -> list[str]:
    """The names in an order that depends on the seed alone: sorted by the hash of each."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/order/{name}".encode()).digest())
