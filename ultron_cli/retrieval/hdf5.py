"""HDF5 files of ours: what all of them say of themselves, and reading them with one line for what is wrong."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ultron_cli import __version__
from ultron_cli.errors import UltronError
from ultron_cli.provenance import utc_now


def write_h5_header(
    handle: h5py.File, format_name: str, version: int, *, created: str = "", ultron_version: str = __version__
) -> None:
    """Writes the attributes that every file of ours begins with: format, version, created, ultron_version.

    created: ISO 8601, UTC; empty is now.
    """
    handle.attrs["format"] = format_name
    handle.attrs["version"] = version
    handle.attrs["created"] = created or utc_now()
    handle.attrs["ultron_version"] = ultron_version


def open_h5(path: Path, format_name: str, version: int, what: str) -> h5py.File:
    """Opens an HDF5 file of ours for reading. Raises UltronError if it is absent, damaged, of another kind or too
    new."""
    if not path.is_file():
        raise UltronError(f"{what} {path} does not exist; check the path")
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise UltronError(f"{path} is truncated or not an HDF5 file ({str(error)[:90]}); make it again") from error
    stored_format = handle.attrs.get("format")
    stored_version = handle.attrs.get("version")
    if stored_format != format_name:
        handle.close()
        raise UltronError(
            f"{path} is not a {what}: its format attribute must be {format_name!r}, found {stored_format!r}"
        )
    if not isinstance(stored_version, (int, np.integer)) or stored_version > version:
        handle.close()
        raise UltronError(
            f"{path} has format version {stored_version}, this ultron reads up to {version}; install a newer ultron"
        )
    return handle


def h5_dataset(handle: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of an open file. Raises KeyError if it is absent or is something else."""
    part = handle[name]
    if not isinstance(part, h5py.Dataset):
        raise KeyError(f"{name!r} is not a dataset")
    return part


def h5_names(handle: h5py.File, name: str) -> list[str]:
    """The texts of a dataset, UTF-8 but for names of files that are not. Raises KeyError if it is absent, TypeError if
    it holds something else."""
    return [str(text) for text in h5_dataset(handle, name).asstr(errors="surrogateescape")[:]]


def write_h5_names(handle: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Writes texts as a dataset, each with the bytes that its file is named by."""
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    handle[name] = np.array(values, dtype=h5py.string_dtype("utf-8"))


def write_h5_text(handle: h5py.File, name: str, text: str) -> None:
    """Writes a text as an attribute; it may be made of names of files."""
    handle.attrs.create(name, text.encode("utf-8", "surrogateescape"), dtype=h5py.string_dtype("utf-8"))


def h5_text(handle: h5py.File, name: str, default: str | None = None) -> str:
    """An attribute of text. Raises KeyError if it is absent and there is no default."""
    return str(handle.attrs[name] if default is None else handle.attrs.get(name, default))
