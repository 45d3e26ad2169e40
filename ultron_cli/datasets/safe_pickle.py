"""Reads a pickle of plain data without running anything that it contains.

The published ground truth (revisitop) and CIFAR's batches are pickles, and a pickle is a program. This unpickler
resolves only what numpy arrays need; plain containers, numbers and strings need no name at all. Any other name is
refused before it is imported.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Never

import numpy as np

from ultron_cli.errors import UltronError


def _empty_array(subtype: object, shape: object, kind: object) -> np.ndarray:
    # The shape in the file is ignored: __setstate__ sets it from the data, so a huge shape allocates nothing.
    return np.ndarray((0,), dtype="b")


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


def _plain_dtype(*arguments: Any) -> np.dtype:  # as numpy writes them: a name, and flags of its own
    dtype = np.dtype(*arguments)
    if dtype.kind not in "biufUS":
        raise pickle.UnpicklingError(f"an array of type {dtype}")
    return dtype


def _number(dtype: np.dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _from_buffer(
    data: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray:
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _allowed() -> dict[tuple[str, str], Callable[..., object]]:
    """What the names that a pickle may use stand for; made anew for each file, so that no file can change what the next
    one gets."""

    def fresh(function: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: function(*arguments)

    table: dict[tuple[str, str], Callable[..., object]] = {
        ("_codecs", "encode"): fresh(_latin1_bytes),
        ("numpy", "ndarray"): fresh(_empty_array),
        ("numpy", "dtype"): fresh(_plain_dtype),
    }
    for module in ("builtins", "__builtin__"):
        table[module, "set"] = fresh(set)
        table[module, "frozenset"] = fresh(frozenset)
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = fresh(_empty_array)
        table[f"{core}.multiarray", "scalar"] = fresh(_number)
        table[f"{core}.numeric", "_frombuffer"] = fresh(_from_buffer)
    return table


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._table = _allowed()

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if (module, name) not in self._table:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return self._table[module, name]

    def persistent_load(self, reference: object) -> Never:
        raise pickle.UnpicklingError("a reference to an object outside the file")


def load_plain_pickle(
    path: Path, what: str = "a ground truth", advice: str = "get it from its publisher or write it as JSON"
) -> Any:
    """Unpickles plain containers, numbers, strings and numpy arrays of numbers or strings; runs no code of the file.

    what, advice: for the error: what the file is said to be, and what to do instead. Raises UltronError if the file
    holds anything else or is damaged.
    """
    data = path.read_bytes()
    try:
        return _PlainUnpickler(data).load()
    except pickle.UnpicklingError as error:
        raise UltronError(
            f"{path} was refused, and nothing in it was run: {what} may hold only plain containers, numbers, "
            f"strings and numpy arrays, this one has {error}; {advice}"
        ) from error
    except (
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        MemoryError,
        OverflowError,
    ) as error:
        raise UltronError(f"{path} is not a whole pickle ({type(error).__name__}: {error}); get it again") from error
