"""What is printed: tables that fit, names that an encoding lacks, colours, JSON."""

import io
import json
import sys

import pytest

from tests.conftest import Run
from ultron_cli import console
from ultron_cli.console import table

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


def test_no_rows_and_no_columns() -> None:
    assert table(("a", "b"), []).split()[:2] == ["a", "b"]
    assert table(("", ""), [("key", "value")], left=2) == "key   value"


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
