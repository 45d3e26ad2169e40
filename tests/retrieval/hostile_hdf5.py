"""HDF5 files that a stranger could send: a sound file with one thing wrong, or with bytes changed at random."""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np


def replace_dataset(path: Path, name: str, make: Callable[[h5py.File], None]) -> None:
    """Puts another dataset under a name."""
    with h5py.File(path, "r+") as handle:
        del handle[name]
        make(handle)


def self_referring(name: str, shape: tuple[int, ...], dtype: str) -> Callable[[h5py.File], None]:
    """A virtual dataset whose source is itself."""

    def make(handle: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(".", name, shape)
        handle.create_virtual_dataset(name, layout)

    return make


def stored_outside(name: str, shape: tuple[int, ...], dtype: str, other: Path) -> Callable[[h5py.File], None]:
    """A dataset whose bytes are those of another file."""

    def make(handle: h5py.File) -> None:
        handle.create_dataset(name, shape, dtype, external=[(str(other), 0, h5py.h5f.UNLIMITED)])

    return make


def linked(name: str, link: h5py.SoftLink | h5py.ExternalLink) -> Callable[[h5py.File], None]:
    """A link in the place of a dataset."""

    def make(handle: h5py.File) -> None:
        handle[name] = link

    return make


def declared(name: str, shape: tuple[int, ...], dtype: str, **how: object) -> Callable[[h5py.File], None]:
    """A dataset that was declared and never written."""

    def make(handle: h5py.File) -> None:
        handle.create_dataset(name, shape, dtype, **how)

    return make


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
