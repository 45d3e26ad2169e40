"""What is printed: tables that fit, names that an encoding lacks, colours, JSON."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli import console
from ultron_cli.console import bar_class, progress, table

COLUMNS = ("protocol", "A", "B", "B - A", "95 % interval", "p", "better / worse / equal")
ROWS = [("medium", "32.32", "21.35", "-10.96", "-32.64 to +9.05", "< 0.001", "10 / 30 / 30")]


@pytest.mark.parametrize("width", [200, 80, 60, 30])
def test_a_table_fits_and_breaks_no_word(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = table(COLUMNS, ROWS)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for cell in (*COLUMNS, *ROWS[0]):
        assert all(word in words for word in cell.split())
    assert (len(text.splitlines()) > 5) == (width < 80)  # there each row becomes lines of its own
    assert text == text.strip("\n")


def test_a_long_word_is_folded_where_even_lines_of_their_own_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = table(("name", "path"), [("a", "/" + "x" * 60)])
    assert max(map(len, text.splitlines())) <= 30
    assert text.count("x") == 60


def test_files_and_pipes_have_wide_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(COLUMNS, ROWS * 3).splitlines()) == 5


def test_names_in_a_sentence() -> None:
    assert console.named(["a", "b"]) == "a, b"
    assert console.named(list("abcdef")) == "a, b, c, d, e ..."


def test_no_rows_and_no_columns() -> None:
    assert table(("a", "b"), []).split()[:2] == ["a", "b"]
    assert table(("", ""), [("key", "value")], left=2) == "key   value"


@pytest.mark.parametrize("n", [0, 50, 51, 4993])
def test_of_a_long_table_the_others_are_counted(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(console.settings, "flags", {"json": "--json"})
    rows = [(i, f"p{i}") for i in range(n)]
    *shown, last = table(("rank", "photo"), rows, what="photos").splitlines()
    if n <= 50:
        assert len(shown) + 1 == n + 2 and "more" not in last
    else:
        assert len(shown) == 52 and shown[-1].split() == ["49", "p49"]
        assert last == f"and {n - 50:,} more of {n:,} photos; --json prints all"
    assert table(("rank",), [(i,) for i in range(60)], all_in="r.h5").endswith("\nand 10 more of 60 rows; all in r.h5")


def test_a_long_table_of_a_terminal_too_narrow_for_it_is_cut_by_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    text = table(("photo", "score"), [(f"photo-{i:02}", "0.5000") for i in range(60)])
    assert text.count("photo-") == 50 and "photo-49" in text


VALUES = {
    "plain": {"results": [{"query": "q", "score": 0.1, "row": 3, "is": True, "path": Path("a/b")}], "none": None},
    "empty": {"a": [], "b": {}, "c": [[], {}], "d": ()},
    "numbers": [1e300, -0.0, 10**25, 1.5e-9, float("nan"), float("inf"), np.float32(0.5), np.int64(7)],
    "keys": {1: "a", 2.5: "b", Path("c"): "d"},
    "objects": {"row": np.int64(7), "score": np.float32(0.5), "at": Path("x"), "both": (np.float64(1.5), Path("y"))},
    "texts": {"é": '日本 \U0001f600 \n\t\x00\u2028 "\\', "": ""},
    "undecodable": {"caf\udce9.jpg": ["\udcff"]},
}


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_json_is_laid_out_as_pythons(name: str, ascii_only: bool) -> None:
    text = console.dump_json(VALUES[name], ascii_only=ascii_only)
    value = json.loads(text)
    assert console.without_surrogates(json.dumps(value, indent=1, ensure_ascii=ascii_only)) == text
    assert console.dump_json(VALUES[name], indent=None) == console.without_surrogates(
        json.dumps(value, ensure_ascii=False)
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_an_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    console.prints_anything()
    console.reset_settings()
    console.print_result({}, table(("photo",), [("café 東京 \udcff",)]))
    text = buffer.getvalue().decode(encoding)
    assert ("東京" in text) == (encoding == "utf-8")
    assert ("\\u6771\\u4eac" in text) == (encoding != "utf-8")
    assert "\\xff" in text


def test_json_is_ascii(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console.reset_settings()
    console.settings.json = True
    console.print_result({"name": "東京"}, "")
    console.reset_settings()
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "東京"}
    assert "東京" in console.dump_json({"name": "東京"})  # files hold the names themselves


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.labelled("error", "x") == "error: x"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert console.labelled("error", "x") == "\x1b[1;31merror:\x1b[0m x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.labelled("error", "x") == "error: x"


def test_lists_fit_narrow_terminals(ultron: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, _ = ultron("datasets", "list")
        assert code == 0
        rows = out.split("data root:")[0].splitlines()
        assert max(map(len, rows)) <= width
        assert "easy/medium/hard" in out  # no word is broken


def test_a_fork_that_is_killed_while_it_draws_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress([1], what="first"))
    killed = os.fork()
    if killed == 0:
        bar_class().get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    other = os.fork()
    if other == 0:
        signal.alarm(10)
        list(progress([1], what="other"))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7
