"""Sound files with bytes changed at random, the same at every run."""

from collections.abc import Iterator

import numpy as np


def mutated(content: bytes, seed: int, n_files: int) -> Iterator[bytes]:
    """Files with 1 to 64 bytes changed: to a random value, 0, 255, or a bit flipped; every fourth is cut or has a block
    copied to another place."""
    rng = np.random.default_rng(seed)
    for i in range(n_files):
        data = bytearray(content)
        for _ in range(int(2 ** rng.integers(0, 7))):
            # Half of the changes strike the first 4 KiB, where the headers are.
            place = int(rng.integers(0, min(4096, len(data)) if rng.random() < 0.5 else len(data)))
            data[place] = (int(rng.integers(0, 256)), 0, 255, data[place] ^ 1 << int(rng.integers(0, 8)))[
                int(rng.integers(0, 4))
            ]
        if i % 4 == 3:
            source, target, length = (int(value) for value in rng.integers(0, len(data) - 64, 3))
            if i % 8 == 3:
                del data[source:]
            else:
                data[target : target + length % 512] = data[source : source + length % 512]
        yield bytes(data)
