"""HDF5 files that a stranger could send: a sound file with one thing wrong."""

from collections.abc import Callable
from pathlib import Path

import h5py


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
