"""Pickles of plain data: what is read, and that hostile ones cost no more than a file of their length."""

import logging
import pickle
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import shared_or_skip
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def loaded(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    return load_plain_pickle(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_plain_value_comes_back(tmp_path: Path, protocol: int) -> None:
    values = [
        None, True, False, 0, 255, 256, 65535, 65536, -1, -(1 << 31), 1 << 31, (1 << 63) - 1, -(1 << 63), 0.1, -1e300,
        float("inf"), "", "text", "Sacré-Cœur", "\N{GRINNING FACE}", "a\nb\\", "x" * 300, b"", b"\x00\xff", b"y" * 300,
        (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [[]], {}, {"a": {"b": []}}, {1: 2, None: 3, b"k": 4}, set(),
        {1, 2}, frozenset({"a"}), list(range(3000)), [i * 256 for i in range(40)] + [1],
    ]  # fmt: skip
    same = ["shared"]
    assert loaded(tmp_path, pickle.dumps(values, protocol)) == values
    assert loaded(tmp_path, pickle.dumps([same, same, (same,)], protocol)) == [same, same, (same,)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0, np.int64),
        np.zeros((0, 3), np.float32),
        np.arange(5),
        np.arange(5, dtype=">i4"),
        np.arange(6.0).reshape(2, 3).T,
        np.array([[True, False]]),
        np.array(["a", "", "\N{GRINNING FACE}bc"]),
        np.array([b"ab", b""]),
        np.array(3.5),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.arange(4, dtype=np.float16)[::2],
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_every_plain_array_comes_back_and_can_be_written(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    content = pickle.dumps([array, array], protocol)
    expected = pickle.loads(content)[0]
    first, again = loaded(tmp_path, content)
    for read in (first, again):
        assert (read.dtype, read.shape, read.strides) == (expected.dtype, expected.shape, expected.strides)
        np.testing.assert_array_equal(read, array)
        assert read.flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_are_numbers_of_python(tmp_path: Path, protocol: int) -> None:
    values = [np.int64(-7), np.float32(0.1), np.bool_(True), np.str_("ab"), np.uint8(200)]
    read = loaded(tmp_path, pickle.dumps(values, protocol))
    assert read == [value.item() for value in values] and [type(value) for value in read] == [
        int,
        float,
        bool,
        str,
        int,
    ]


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    data = struct.pack("<3q", 4, 0, 3).decode("latin1")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n"
        b"(I1\n(I3\ntp9\ncnumpy\ndtype\np10\n(S'i8'\np11\nI0\nI1\ntp12\nRp13\n"
        b"(I3\nS'<'\np14\nNNNI-1\nI-1\nI0\ntp15\nbI00\nS" + repr(data).encode() + b"\np16\ntp17\nb"
    )
    read = loaded(tmp_path, b"(dp0\nS'k\\xe9'\np1\n(lp2\nI01\naL12L\naF0.5\nasS'a'\n" + array + b"s.")
    assert read["k\xe9"] == [True, 12, 0.5] and read["a"].tolist() == [4, 0, 3]


def test_the_published_files_are_read_as_pickle_reads_them() -> None:
    for path in sorted((shared_or_skip("pickles are read as published") / "groundtruth").glob("*.pkl")):
        assert load_plain_pickle(path) == pickle.loads(path.read_bytes())


INT64 = b"\x80\x02cnumpy\ndtype\n(X\x02\0\0\0i8\x89\x88tR(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\x01btR"


def array_of(shape: bytes, content: bytes, kind: bytes = INT64[2:]) -> bytes:
    return b"\x80\x03" + EMPTY + b"(K\x01" + shape + kind + b"\x89" + content + b"tb."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (INT64.replace(b"NNN", b"q\0q\0q\0" + b"NNN") + b".", "whole pickle|as a value|type of several parts"),
        (INT64.replace(b"<NNN", b"<X\0\0\0\0NN") + b".", "a type of several parts"),
        (INT64.replace(b"<NNN", b"?NNN") + b".", "a type of several parts"),
        (INT64 + b".", "as a value"),
        (b"\x80\x02" + EMPTY.replace(b"C\x01b", b"N") + b".", "as a value"),
        (array_of(b"K\x05\x85", b"C\x08" + b"\0" * 8), r"an array of shape \(5,\) and 8 bytes"),
        (array_of(b"J\xff\xff\xff\xff\x85", b"C\0"), r"an array of shape \(-1,\)"),
        (array_of(b"(K\0J\0\0\0\x7ft", b"C\0"), r"an array of shape \(0, 2130706432\)"),
        (array_of(b"X\x01\0\0\0a\x85", b"C\0"), r"an array of shape \('a',\)"),
        (array_of(b"K\x01\x85", b"]"), "an array of other parts"),
        (array_of(b"K\x63\x85", b"C\0", b"cnumpy\ndtype\n(X\x02\0\0\0U0\x89\x88tR"), "an array of shape"),
        (array_of(b"K\x01\x85", b"C\x04\xff\xff\xff\xff", b"cnumpy\ndtype\n(X\x02\0\0\0U1\x89\x88tR"), "no text"),
        (array_of(b"K\x01\x85", b"C\x08" + b"\0" * 8, b"cnumpy\ndtype\n(X\x02\0\0\0M8\x89\x88tR"), "type 'M8'"),
        (b"\x80\x02]q\0h\0a.", "the same list at so many places"),
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.", "the same list at so many places"),
        (b"\x80\x02]q\0(h\0h\0e.", "the same list at so many places"),
        (b"\x80\x02}K\x01\x85K\x01s.", "neither number nor text"),
        (b"\x80\x02\x8a\x09" + b"\xff" * 8 + b"\x7f.", "more than 64 bits"),
        (b"L" + b"9" * 5000 + b"L\n.", "a number of 5001 digits"),
        (b"cos\nsystem\n.", "the name os.system"),
        (b"c" + b"a" * 5000 + b"\nb\n.", r"the name aaa.*\.\.\..*"),
        (b"\x80\x02cbuiltins\nset\n.", "builtins.set' as a value"),
        (b"\x80\x02Pa\n.", "the instruction b'P'"),
        (b"(" * 1000 + b".", "more than 64 deep"),
        (b"\x80\x02X\x02\0\0\0\xff\xfe.", "text that is not UTF-8"),
        (b"V\\ud800\n.", "text that is not UTF-8"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", r"is not a whole pickle \(byte 11 of 12\)"),
        (b"\x80\x02h\x07.", "is not a whole pickle"),
        (b"e.", "is not a whole pickle"),
        (b"", r"is not a whole pickle \(byte 0 of 0\)"),
    ],
)
def test_hostile_pickles_are_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UltronError, match=words) as raised:
        loaded(tmp_path, content)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_a_memo_of_billions_takes_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    assert loaded(tmp_path, b"\x80\x02]r\xff\xff\xff\xff.") == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_lists_within_lists_are_refused_before_they_explode(tmp_path: Path) -> None:
    started_s = time.process_time()
    content = b"\x80\x02(]q\0" + b"".join(
        b"](" + bytes([0x68, level]) * 10 + b"e" + bytes([0x71, level + 1]) for level in range(60)
    )
    with pytest.raises(UltronError, match="the same list at so many places"):
        loaded(tmp_path, content + b"l.")
    gnd = b"\x80\x02}(X\x06\0\0\0imlist" + content[2:] + b"lu."
    with pytest.raises(UltronError, match="the same list at so many places"):
        loaded(tmp_path, gnd)
    assert time.process_time() - started_s < 5


def test_one_array_cannot_stand_for_many_times_the_file(tmp_path: Path) -> None:
    column = INT64[2:-1].join([b"", b"b"])
    many = b"(" + (EMPTY + b"(K\x01M\xe8\x03\x85" + column + b"\x89h\0tb") * 50 + b"l"
    content = b"\x80\x03B" + struct.pack("<I", 8000) + b"\1" * 8000 + b"q\0" + b"\x86".join([many, b""]) + b"."
    with pytest.raises(UltronError, match="arrays of more bytes than the file"):
        loaded(tmp_path, content)


def test_many_names_with_one_twice_are_said_in_no_time(tmp_path: Path) -> None:
    names = [f"photo{i}" for i in range(60_000)] + ["photo59999"]
    path = tmp_path / "gnd_x.pkl"
    path.write_bytes(pickle.dumps({"imlist": names, "qimlist": [], "gnd": []}))
    started_s = time.process_time()
    with pytest.raises(UltronError, match="imlist names 'photo59999' 2 times"):
        load_ground_truth(path)
    assert time.process_time() - started_s < 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ground_truths_with_empty_arrays_are_plain(tmp_path: Path, protocol: int) -> None:
    entry = {
        "easy": np.array([1, 0]),
        "hard": np.array([]),
        "junk": np.zeros((0, 1), int),
        "bbx": np.array([1, 2, 3, 4]),
    }
    content = {"imlist": np.array(["a", "b"]), "qimlist": ["q"], "gnd": [entry]}
    path = tmp_path / "gnd_x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    truth = load_ground_truth(path)
    assert truth.database_names == ["a", "b"] and truth.queries[0].bbx == (1.0, 2.0, 3.0, 4.0)
    assert [truth.queries[0].rows((label,)).tolist() for label in ("easy", "hard", "junk")] == [[1, 0], [], []]
    assert all(truth.queries[0].rows((label,)).dtype == np.int64 for label in ("easy", "hard", "junk"))


def test_photos_that_a_query_names_twice_are_said_with_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = {"easy": [0], "hard": [2], "junk": [3]}
    entries = [sound, {"easy": [1, 1], "hard": [2], "junk": []}, {"easy": [0, 3], "hard": [3, 0], "junk": []}]
    content = {"imlist": ["a", "b", "c", "d"], "qimlist": ["x", "y", "z"], "gnd": entries}
    path = tmp_path / "gnd_x.pkl"
    with caplog.at_level(logging.WARNING):
        path.write_bytes(pickle.dumps({**content, "gnd": [sound] * 3}))
        load_ground_truth(path)
        assert not caplog.messages
        path.write_bytes(pickle.dumps(content))
        load_ground_truth(path)
    (message,) = caplog.messages
    assert (
        "3 photos are repeated among easy, hard and junk of 2 queries (the first is gnd[1]), which changes AP"
        in message
    )
