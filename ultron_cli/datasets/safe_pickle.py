"""Reads a pickle of plain data without running anything that it contains.

The published ground truth (revisitop) and CIFAR's batches are pickles, and a pickle is a program for a machine with a
stack. Here is a machine for the few instructions that plain data needs: containers, numbers, text, and arrays of
numbers or text, which are put together from parts that were checked. No name is imported, no object is given a state,
and neither time nor memory go beyond what a file of this length can hold.
"""

import codecs
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import MOST_LIST_BYTES, read_bytes
from ultron_cli.schema.values import shown

MOST_OPEN = 64  # containers that are begun within one another; a ground truth has four
MOST_DIMENSIONS = 8
MOST_DIGITS = 40  # of a number in words
MOST_VALUES = 1_000_000  # that a file may stand for beyond 16 per byte, as one list may stand at several places
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
OBJECTS = "O8"
_UINT32 = struct.Struct("<I").unpack_from
_RUN = re.compile(rb"(?:M..)+", re.DOTALL)  # of numbers of two bytes
_RUN_TYPE = np.dtype([("code", "u1"), ("value", "<u2")])
_KEYS = (str, bytes, int, float, bool, type(None))  # not tuples: the hash of one within many takes for ever
_CONTAINERS = (list, dict, tuple, set, frozenset)


class _Refused(Exception):
    """What a file has that plain data has not."""


class _Name(str):
    """One of the names that plain data may use, such as `numpy.dtype`. It stands for itself."""


@dataclass
class _Kind:
    """A numpy type: its name, and its byte order once its state has come."""

    name: str
    order: str = "="

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.name)


@dataclass
class _Array:
    """An array that is made when its state has come."""

    array: np.ndarray | None = None


class _Machine:
    """Runs one file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0  # offset of the next byte
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}
        self.n_array_bytes = 0
        self.is_simple = True  # it uses no name, and no container stands at two places

    def run(self) -> object:
        """What the file stands for."""
        data, memo, at, stack = self.data, self.memo, 0, self.stack
        while True:
            code = data[at]
            # Nearly all of a ground truth is text that is remembered and numbers of two bytes: these go without a call.
            if code == 0x58:  # BINUNICODE
                end = at + 5 + _UINT32(data, at + 1)[0]
                text = data[at + 5 : end].decode()
                stack.append(text)
                at = end
                if data[at] == 0x72:  # LONG_BINPUT; the index also tells a text that ends too early
                    memo[_UINT32(data, at + 1)[0]] = text
                    at += 5
            elif code == 0x4D and (run := _RUN.match(data, at)):  # BININT2
                stack += np.frombuffer(run[0], _RUN_TYPE)["value"].tolist()
                at = run.end()
            elif code == 0x2E:  # STOP
                (value,) = stack
                if not self.is_simple:
                    _refuse_unplain(value, MOST_VALUES + 16 * len(data))
                return value
            else:
                instruction = _INSTRUCTIONS.get(code)
                if instruction is None:
                    raise _Refused(f"the instruction {shown(bytes([code]))}")
                self.at = at + 1
                instruction(self)
                at, stack = self.at, self.stack

    # What instructions read.

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        end = self.at + n
        if end > len(self.data):
            raise IndexError
        part, self.at = self.data[self.at : end], end
        return part

    def line(self) -> bytes:
        """The bytes up to the end of the line."""
        start, end = self.at, self.data.index(b"\n", self.at)
        self.at = end + 1
        return self.data[start:end]

    def digits(self) -> bytes:
        """A number in words, on a line."""
        digits = self.line()
        if len(digits) > MOST_DIGITS:
            raise _Refused(f"a number of {len(digits)} digits")
        return digits

    def unsigned(self, n: int) -> int:
        """The next n bytes as a number."""
        return int.from_bytes(self.take(n), "little")

    def sized(self, n: int) -> bytes:
        """Bytes behind their length, which takes n bytes."""
        return self.take(self.unsigned(n))

    # What instructions do.

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_text(self, text: str) -> None:
        text.encode()  # half a surrogate pair is no text
        self.stack.append(text)

    def push_number(self, value: int) -> None:
        if not -(1 << 63) <= value < 1 << 64:
            raise _Refused("a number of more than 64 bits")
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.outer) == MOST_OPEN:
            raise _Refused(f"containers that lie more than {MOST_OPEN} deep")
        self.outer.append(self.stack)
        self.stack = []

    def parts(self) -> list[object]:
        """What lies above the last mark, taken off the stack."""
        parts, self.stack = self.stack, self.outer.pop()
        return parts

    def top(self, n: int) -> list[object]:
        """The n topmost values, taken off the stack."""
        if len(self.stack) < n:
            raise IndexError
        parts = self.stack[-n:]
        del self.stack[-n:]
        return parts

    def add(self, values: list[object]) -> None:
        """Adds to the list or the set below."""
        target = self.stack[-1]
        if type(target) is list:
            target += values
        elif type(target) is set:
            target |= _keys(values)
        else:
            raise _Refused(f"parts of {shown(target)}")

    def set_items(self, values: list[object]) -> None:
        """Adds keys and values, in turn, to the dictionary below."""
        target = self.stack[-1]
        if type(target) is not dict:
            raise _Refused(f"keys of {shown(target)}")
        target.update(_dictionary(values))

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def recall(self, number: int) -> None:
        value = self.memo[number]
        if isinstance(value, _Array) and value.array is not None:  # else what holds it is refused at the end
            value = value.array
        if isinstance(value, (*_CONTAINERS, np.ndarray, bytearray)):
            self.is_simple = False
        self.stack.append(value)

    def name(self, module: object, name: object) -> None:
        full = f"{module}.{name}" if type(module) is type(name) is str else ""
        if full not in _CALLS and full != "numpy.ndarray":
            raise _Refused(f"the name {shown(full)[1:-1]}")
        self.is_simple = False
        self.stack.append(_Name(full))

    def call(self) -> None:
        name, arguments = self.top(2)
        if type(name) is not _Name or name not in _CALLS or type(arguments) is not tuple:
            raise _Refused(f"a call of {shown(name)}")
        self.stack.append(_CALLS[name](self, *arguments))

    def set_state(self) -> None:
        target, state = self.top(2)
        if type(target) is _Kind and type(state) is tuple and len(state) in (8, 9):
            self.stack.append(target)
            target.order = _order(state, target)
        elif type(target) is _Array and target.array is None and type(state) is tuple and len(state) == 5:
            _, shape, kind, is_fortran, content = state
            array = self.array(content, kind, shape, "F" if is_fortran else "C")
            target.array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
            self.stack.append(target.array)
        else:
            raise _Refused(f"a state of {shown(target)}")

    def array(self, content: object, kind: object, shape: object, order: object = "C") -> np.ndarray:
        """An array from its parts. Raises _Refused unless they fit each other and the file's length."""
        if type(kind) is _Kind and kind.name == OBJECTS:
            return self.array_of_texts(content, shape)
        if isinstance(content, str):
            content = content.encode("latin1")  # as Python 2 wrote it
        if type(kind) is not _Kind or not isinstance(content, (bytes, bytearray)) or order not in ("C", "F"):
            raise _Refused("an array of other parts than type, shape and content")
        dtype = kind.dtype()
        if type(shape) is not tuple or len(shape) > MOST_DIMENSIONS:
            raise _Refused(f"an array of shape {shown(shape)}")
        if not all(type(length) is int and 0 <= length <= len(self.data) for length in shape):
            raise _Refused(f"an array of shape {shown(shape)}")
        n_bytes = math.prod(shape) * dtype.itemsize
        self.n_array_bytes += n_bytes
        if n_bytes != len(content) or (dtype.itemsize == 0 and math.prod(shape)):
            raise _Refused(f"an array of shape {shown(shape)} and {len(content):,} bytes")
        if self.n_array_bytes > len(self.data):
            raise _Refused("arrays of more bytes than the file")
        if dtype.kind == "U":
            _refuse_no_text(np.frombuffer(content, f"{dtype.byteorder}u4"))
        return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if order == "F" else "C")

    def array_of_texts(self, content: object, shape: object) -> np.ndarray:
        """A list of texts in an array of objects, as h5py gives names."""
        if type(content) is not list or shape != (len(content),) or not all(type(text) is str for text in content):
            raise _Refused("an array of type object that is no list of texts")
        self.n_array_bytes += 2 * len(content)  # that the file has for each at least
        if self.n_array_bytes > len(self.data):
            raise _Refused("arrays of more texts than the file")
        texts = np.empty(len(content), object)
        texts[:] = content
        return texts

    def scalar(self, kind: object, content: object) -> object:
        """A numpy number or text as Python has it."""
        return self.array(content, kind, (), "C").item()


def _keys(values: list[object]) -> set[object]:
    if not all(isinstance(value, _KEYS) and type(value) is not _Name for value in values):
        raise _Refused("a key or a part of a set that is neither number nor text")
    return set(values)


def _dictionary(values: list[object]) -> dict[object, object]:
    keys = values[::2]
    _keys(keys)
    return dict(zip(keys, values[1::2], strict=True))


def _kind(machine: _Machine, name: object, *flags: object) -> _Kind:
    """A type by the name that numpy writes, such as `i8` or `U12`."""
    if type(name) is not str or not (name in (*NUMBERS, OBJECTS) or re.fullmatch(r"[SU]\d{1,7}", name, re.ASCII)):
        raise _Refused(f"an array of type {shown(name)}")
    return _Kind(name)


def _order(state: tuple[object, ...], kind: _Kind) -> str:
    """The byte order in the state of a numpy type. Raises _Refused for a state that makes another type of it."""
    _, order, subarray, names, fields, n_bytes, *_ = state
    is_same = subarray is names is fields is None and type(n_bytes) is int and n_bytes in (-1, kind.dtype().itemsize)
    if not is_same or type(order) is not str or order not in ("<", ">", "=", "|"):
        raise _Refused("an array of a type of several parts")
    return order


def _refuse_no_text(codes: np.ndarray) -> None:
    if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
        raise _Refused("an array of text that is no text")


def _encoded(machine: _Machine, text: object, encoding: object = "latin1") -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise _Refused(f"bytes in encoding {shown(encoding)}")
    return text.encode("latin1")


def _set(machine: _Machine, values: list[object]) -> set[object]:
    return _keys(list(values))


def _refuse_unplain(value: object, most_values: int) -> None:
    """Raises _Refused if a name or a type is left in a value, or it holds more than so many values: one list may stand
    at many places, and within itself."""
    containers: list[Any] = [[value]]
    n_values = 0
    while containers:
        container = containers.pop()
        n_values += len(container)
        for part in (*container.keys(), *container.values()) if type(container) is dict else container:
            if isinstance(part, _CONTAINERS):
                containers.append(part)
            elif isinstance(part, np.ndarray):
                n_values += part.size
            elif isinstance(part, (_Name, _Kind, _Array)):
                raise _Refused(f"{shown(part)} as a value")
            if n_values > most_values:
                raise _Refused("the same list at so many places that it stands for more than a file of its length can")


def _whole(line: bytes) -> int:
    """A number of protocol 0, where True is 01 and False 00."""
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str:
    """The text of Python 2 between its quotes."""
    if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
        raise ValueError
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")


# Names that may be called, and what then happens. The arguments are those in the file.
_CALLS: dict[str, Callable[..., object]] = {
    "_codecs.encode": _encoded,
    "numpy.dtype": _kind,
    **{f"{core}.multiarray._reconstruct": lambda machine, *_: _Array() for core in ("numpy.core", "numpy._core")},
    **{f"{core}.multiarray.scalar": _Machine.scalar for core in ("numpy.core", "numpy._core")},
    **{f"{core}.numeric._frombuffer": _Machine.array for core in ("numpy.core", "numpy._core")},
    **{f"{module}.set": _set for module in ("builtins", "__builtin__")},
    **{
        f"{module}.frozenset": lambda machine, values: frozenset(_set(machine, values))
        for module in ("builtins", "__builtin__")
    },
    # Protocols 0 to 2 write empty bytes, those of an empty array, as a call without arguments.
    **{f"{module}.bytes": lambda machine: b"" for module in ("builtins", "__builtin__")},
}
# Instructions by their code, under the names of pickletools.
_INSTRUCTIONS: dict[int, Callable[[_Machine], object]] = {
    ord(code): instruction
    for code, instruction in (
        ("\x80", lambda m: m.take(1)),  # PROTO
        ("\x95", lambda m: m.take(8)),  # FRAME
        ("(", _Machine.mark),  # MARK
        ("N", lambda m: m.push(None)),  # NONE
        ("\x88", lambda m: m.push(True)),  # NEWTRUE
        ("\x89", lambda m: m.push(False)),  # NEWFALSE
        ("K", lambda m: m.push(m.unsigned(1))),  # BININT1
        ("M", lambda m: m.push(m.unsigned(2))),  # BININT2
        ("J", lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True))),  # BININT
        ("\x8a", lambda m: m.push_number(int.from_bytes(m.sized(1), "little", signed=True))),  # LONG1
        ("G", lambda m: m.push(struct.unpack(">d", m.take(8))[0])),  # BINFLOAT
        ("I", lambda m: m.push_number(_whole(m.digits()))),  # INT
        ("L", lambda m: m.push_number(int(m.digits().removesuffix(b"L")))),  # LONG
        ("F", lambda m: m.push(float(m.digits()))),  # FLOAT
        ("\x8c", lambda m: m.push(m.sized(1).decode())),  # SHORT_BINUNICODE
        ("\x8d", lambda m: m.push(m.sized(8).decode())),  # BINUNICODE8
        ("V", lambda m: m.push_text(m.line().decode("raw-unicode-escape"))),  # UNICODE
        ("S", lambda m: m.push(_quoted(m.line()))),  # STRING
        ("T", lambda m: m.push(m.sized(4).decode("latin1"))),  # BINSTRING
        ("U", lambda m: m.push(m.sized(1).decode("latin1"))),  # SHORT_BINSTRING
        ("C", lambda m: m.push(m.sized(1))),  # SHORT_BINBYTES
        ("B", lambda m: m.push(m.sized(4))),  # BINBYTES
        ("\x8e", lambda m: m.push(m.sized(8))),  # BINBYTES8
        ("\x96", lambda m: m.push(bytearray(m.sized(8)))),  # BYTEARRAY8
        ("]", lambda m: m.push([])),  # EMPTY_LIST
        ("}", lambda m: m.push({})),  # EMPTY_DICT
        (")", lambda m: m.push(())),  # EMPTY_TUPLE
        ("\x8f", lambda m: m.push(set())),  # EMPTY_SET
        ("a", lambda m: m.add(m.top(1))),  # APPEND
        ("e", lambda m: m.add(m.parts())),  # APPENDS
        ("\x90", lambda m: m.add(m.parts())),  # ADDITEMS
        ("s", lambda m: m.set_items(m.top(2))),  # SETITEM
        ("u", lambda m: m.set_items(m.parts())),  # SETITEMS
        ("l", lambda m: m.push(m.parts())),  # LIST
        ("d", lambda m: m.push(_dictionary(m.parts()))),  # DICT
        ("t", lambda m: m.push(tuple(m.parts()))),  # TUPLE
        ("\x85", lambda m: m.push(tuple(m.top(1)))),  # TUPLE1
        ("\x86", lambda m: m.push(tuple(m.top(2)))),  # TUPLE2
        ("\x87", lambda m: m.push(tuple(m.top(3)))),  # TUPLE3
        ("\x91", lambda m: m.push(frozenset(_keys(m.parts())))),  # FROZENSET
        ("p", lambda m: m.remember(int(m.digits()))),  # PUT
        ("q", lambda m: m.remember(m.unsigned(1))),  # BINPUT
        ("r", lambda m: m.remember(m.unsigned(4))),  # LONG_BINPUT
        ("\x94", lambda m: m.remember(len(m.memo))),  # MEMOIZE
        ("g", lambda m: m.recall(int(m.digits()))),  # GET
        ("h", lambda m: m.recall(m.unsigned(1))),  # BINGET
        ("j", lambda m: m.recall(m.unsigned(4))),  # LONG_BINGET
        ("c", lambda m: m.name(m.line().decode(), m.line().decode())),  # GLOBAL
        ("\x93", lambda m: m.name(*m.top(2))),  # STACK_GLOBAL
        ("R", _Machine.call),  # REDUCE
        ("b", _Machine.set_state),  # BUILD
    )
}


def load_plain_pickle(
    path: Path, what: str = "a ground truth", advice: str = "get it from its publisher or write it as JSON"
) -> Any:
    """Plain containers, numbers, text and numpy arrays of numbers or text of a pickle; runs no code of the file.

    A numpy number is a number of Python. what, advice: for the error: what the file is said to be, and what to do
    instead. Raises UltronError if the file holds anything else or is damaged.
    """
    data = read_bytes(path, what, most_bytes=MOST_LIST_BYTES)
    machine = _Machine(data)
    try:
        return machine.run()
    except (_Refused, UnicodeError) as error:
        reason = "text that is not UTF-8" if isinstance(error, UnicodeError) else error
        raise UltronError(
            f"{path} was refused, and nothing in it was run: {what} may hold only plain containers, numbers, "
            f"strings and numpy arrays, this one has {reason}; {advice}"
        ) from None
    except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, MemoryError):
        raise UltronError(
            f"{path} is not a whole pickle (byte {machine.at:,} of {len(data):,}); get it again"
        ) from None
