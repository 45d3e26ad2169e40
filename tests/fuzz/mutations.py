"""Damages files: bytes at random, and the values of JSON."""

import json
import random
from collections.abc import Callable

MOST_BYTES = 1 << 16  # of a damaged file, unless its seed is larger
Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = [
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    32767,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    (1 << 64) - 1,
]
PIECES = [
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b'"', b"'", b",", b";", b"[", b"]", b"{", b"}", b"=", b"#", b"null",
    b"true", b"NaN", b"nan", b"inf", b"-1", b"1e999", b"0.5", b"9" * 30, b"[" * 200, b"\\u0000", b"\\ud800",
    b"\xef\xbb\xbf",
]  # fmt: skip
ODD_VALUES = [
    None, True, False, 0, -1, 7, 1 << 31, 1 << 63, 1 << 64, 10**400, 0.5, -0.5, 1.5, 1e308, -1e308, float("nan"),
    float("inf"), "", "\0", "\ud800", "x", "../x", "/", ".", "a\nb", "1", "x" * 5000, [], {}, [[]], [None], [1, "a"],
    {"a": None}, {"": 1},
]  # fmt: skip


def mutate_bytes(data: bytes, draws: random.Random) -> bytes:
    """One to six changes anywhere."""
    changed = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 3, 6))):
        start = draws.randrange(len(changed) + 1)
        length = min(draws.choice((1, 1, 2, 4, 8, 32, 256)), len(changed) - start)
        kind = draws.randrange(9)
        if kind == 0:
            changed[start : start + length] = draws.randbytes(length)
        elif kind == 1:
            del changed[start : start + length]
        elif kind == 2:
            changed[start:start] = draws.choice(PIECES)
        elif kind == 3:
            changed[start : start + length] = draws.choice(PIECES)
        elif kind == 4:
            changed[start:start] = changed[start : start + length] * draws.choice((1, 2, 20))
        elif kind == 5 and length:
            changed[start] ^= 1 << draws.randrange(8)
        elif kind == 6:
            n_bytes = draws.choice((1, 2, 4, 8))
            number = draws.choice(NUMBERS) % (1 << 8 * n_bytes)
            changed[start : start + n_bytes] = number.to_bytes(n_bytes, draws.choice(("little", "big")))
        elif kind == 7:
            target = draws.randrange(len(changed) + 1)
            changed[target : target + length] = changed[start : start + length]
        elif kind == 8 and draws.random() < 0.2:
            del changed[start:]
    return bytes(changed[: max(MOST_BYTES, len(data))])


def mutate_json(data: bytes, draws: random.Random) -> bytes:
    """One to three values or keys of a JSON text changed, removed or moved."""
    root = [json.loads(data)]
    for _ in range(draws.choice((1, 1, 2, 3))):
        container, key = _any_place(root, draws)
        kind = draws.randrange(8)
        if kind == 0 and container is not root:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[draws.choice(("", "\0", "\ud800", "x", "0", "x" * 1000))] = container.pop(key)
        elif kind == 2:
            other, other_key = _any_place(root, draws)
            container[key] = json.loads(json.dumps(other[other_key]))
        elif kind == 3:
            for _ in range(draws.choice((1, 3, 80, 800))):
                container[key] = [container[key]] if draws.random() < 0.5 else {"a": container[key]}
        elif kind == 4 and isinstance(container, list):
            container += [container[key]] * draws.choice((1, 100))
        else:
            container[key] = draws.choice(ODD_VALUES)
    return json.dumps(root[0], ensure_ascii=draws.random() < 0.9).encode("utf-8", "surrogatepass")


def _any_place(root: list, draws: random.Random) -> tuple:
    """(container, key) of a value at any depth."""
    container, key = root, 0
    while isinstance(container[key], (dict, list)) and container[key] and draws.random() < 0.8:
        container = container[key]
        key = draws.choice(list(container)) if isinstance(container, dict) else draws.randrange(len(container))
    return container, key


def damaged(seeds: list[bytes], mutations: tuple[Mutation, ...], draws: random.Random) -> bytes:
    """A damaged copy of one of the seeds; now and then two of them joined, or no trace of them. Mutations of a format
    get sound files only."""
    seed = draws.choice(seeds)
    if draws.random() < 0.02:
        other = draws.choice(seeds)
        return mutate_bytes(seed[: draws.randrange(len(seed) + 1)] + other[draws.randrange(len(other) + 1) :], draws)
    if draws.random() < 0.01:
        return draws.randbytes(draws.choice((0, 1, 8, 100)))
    try:
        return draws.choice(mutations)(seed, draws)
    except Exception:  # a change that the format, or the library that writes it, cannot hold
        return mutate_bytes(seed, draws)
