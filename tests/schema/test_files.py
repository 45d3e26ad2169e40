"""Files of text: which are opened, and what is said of those that cannot be read."""

import os
from pathlib import Path

import pytest

from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import read_bytes
from ultron_cli.schema.tables import csv_lines, csv_rows, spaced_lines
from ultron_cli.schema.texts import read_json, read_json_lines, read_text, read_toml


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of what is no regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["pipe", "link", "zero", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(odd: Path, name: str) -> None:
    for read in (
        lambda path: read_json(path, "list"),
        lambda path: read_toml(path, "list"),
        lambda path: read_text(path, "list"),
        lambda path: list(read_json_lines(path, "list", dict[str, object])),
        lambda path: list(csv_lines(path, "list", if_absent="look", if_unreadable="save it")),
        lambda path: list(spaced_lines(path, "list", if_unreadable="save it")),
    ):
        with pytest.raises(UltronError, match=f"list .*{name} must be a file, found a "):
            read(odd / name)


def test_files_above_their_reader_s_size_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with open(path, "wb") as handle:
        handle.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(UltronError, match="may have 67,108,864 bytes at most, found 1,099,511,627,776"):
        read_json(path, "list")
    path.write_bytes(b"12345")
    assert read_bytes(path, "list", most_bytes=5) == b"12345"
    with pytest.raises(UltronError, match="may have 4 bytes at most, found 5"):
        read_bytes(path, "list", most_bytes=4)


@pytest.mark.parametrize("name", ["absent", "absent/x", "a\0b"])
def test_a_file_that_is_not_there_is_said_with_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(UltronError, match=r"^list .* does not exist; look again$"):
        read_json(tmp_path / name, "list", if_absent="look again")


def test_a_message_names_the_file_the_place_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, "b"]}')
    with pytest.raises(UltronError) as raised:
        read_json(path, "list", dict[str, list[int]], advice="mend it")
    assert str(raised.value) == f"list {path}: a[1] must be a whole number, found text; mend it"
    path.write_text("{")
    with pytest.raises(UltronError, match=r"list .* is not readable JSON \(it ends too early.*\); mend it$"):
        read_json(path, "list", advice="mend it")


def test_lines_that_do_not_fit_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert list(read_json_lines(path, "lines", dict[str, int])) == []
    path.write_bytes(b'{"a": 1}\n\n{"a": "x"}\n[]\n\xff\n{"a": 2}\n{"a"')
    entries = list(read_json_lines(path, "lines", dict[str, int]))
    assert entries == [(1, {"a": 1}), (3, None), (4, None), (5, None), (6, {"a": 2}), (7, None)]


def rows(path: Path, content: bytes, **settings: object) -> list[tuple[int, dict[str, str]]]:
    path.write_bytes(content)
    return list(csv_rows(path, "table", required=[("a", "b")], **settings))  # type: ignore[arg-type]


def test_rows_are_read_by_column_whatever_parts_them(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    expected = [(2, {"a": "1", "b": "x, y"}), (4, {"a": "2", "b": ""})]
    assert rows(path, b'\xef\xbb\xbfa,b\n1,"x, y"\n\n2,\n') == expected
    assert rows(path, b" A ;b\r\n1; x, y\r\n\r\n2;\r\n", delimiters=",;\t") == expected
    assert rows(path, b"a\tb\n1\tx, y\n\n2\t", delimiters=",;\t") == expected
    assert rows(path, b'a,b\n"1\n2",3\n') == [(3, {"a": "1\n2", "b": "3"})]
    assert len(rows(path, b"a,b\n1," + b"x " * 200_000)[0][1]["b"]) == 399_999


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the first line must name the columns a, b; a, b is missing"),
        (b"a,c\n1,2\n", "b is missing, it is 'a,c'"),
        (b"a,b,c\n", "unknown column 'c'"),
        (b"a,b,a\n", "names the column 'a' twice"),
        (b"a,b\n1\n", "line 2 must have 2 fields, as the first line, found 1"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 must have 2 fields, as the first line, found 3"),
        (b"a,b\n1,\xff\n", r"cannot be read as a CSV in UTF-8 \(.*not UTF-8\)"),
        (b"a,b\n1,\0\n", r"cannot be read as a CSV in UTF-8 \(after line 1: a NUL character\)"),
        (b"a,b\n" + b'"' * 3, "line 2 must have 2 fields"),
    ],
)
def test_a_table_that_is_none_is_said_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        rows(tmp_path / "x.csv", content, optional=())


def test_fields_between_blanks(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa  b\tc\r\n\n d\u00a0e \nf".encode())
    lines = list(spaced_lines(path, "run", if_unreadable="save it"))
    assert lines == [(1, ["a", "b", "c"]), (3, ["d\u00a0e"]), (4, ["f"])]
    path.write_bytes(b"a\nb \xff\n")
    with pytest.raises(UltronError, match=r"run .*x\.txt cannot be read \(line 2: not UTF-8\); save it"):
        list(spaced_lines(path, "run", if_unreadable="save it"))
    with pytest.raises(UltronError, match=r"run .*y\.txt does not exist; check the path"):
        list(spaced_lines(tmp_path / "y.txt", "run", if_unreadable="save it"))
