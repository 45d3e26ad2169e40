"""Plain data as types: what fits, and the place that a message names where it does not."""

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from ultron_cli.memory import OverBudget, set_memory_budget
from ultron_cli.schema.texts import parse_json, parse_toml, read_json
from ultron_cli.schema.values import MOST_LEVELS, Misfit, fit, shown


@dataclass(frozen=True, kw_only=True)
class Entry:
    easy: list[int] | None
    bbx: tuple[float, float, float, float] | None = None
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Content:
    imlist: list[str]
    gnd: list[Entry]
    scores: dict[str, dict[str, Annotated[float, Meta(ge=0, le=1)] | None]] = field(default_factory=dict)
    cuts: dict[int, float] = field(default_factory=dict)


SOUND = {"imlist": ["a"], "gnd": [{"easy": [0]}]}


def test_what_fits_is_read() -> None:
    content = fit({**SOUND, "cuts": {"10": 1}, "newer": {"x": 1}}, Content)
    assert content == Content(imlist=["a"], gnd=[Entry(easy=[0])], cuts={10: 1.0})
    assert fit({**SOUND, "gnd": ({"easy": (1, 2), "bbx": (1, 2, 3, 4.5)},)}, Content).gnd[0].bbx == (1.0, 2.0, 3.0, 4.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gnd": None}, "gnd must be a list, found nothing"),
        ({"gnd": [{"easy": [0]}, 7]}, "gnd[1] must be an object, found a whole number"),
        ({"gnd": [{"easy": 7}]}, "gnd[0].easy must be a list or nothing, found a whole number"),
        ({"gnd": [{"easy": [0, 0.5]}]}, "gnd[0].easy[1] must be a whole number, found a number with a fraction"),
        ({"gnd": [{"easy": [True]}]}, "gnd[0].easy[0] must be a whole number, found true or false"),
        ({"gnd": [{}]}, "gnd[0] lacks easy"),
        ({"gnd": [{"easy": [], "bbx": [1, 2]}]}, "gnd[0].bbx must be a list of length 4, found 2"),
        ({"gnd": [{"easy": [], "kind": "c"}]}, "gnd[0].kind holds 'c', which is no known value"),
        ({"imlist": [3]}, "imlist[0] must be text, found a whole number"),
        ({"cuts": {"x": 1}}, "a key of cuts must be a whole number, found text"),
        ({"cuts": {"1": 1, "2": None}}, "cuts.2 must be a number, found nothing"),
        ({"scores": {"a": {"x": 0, "y": 1}, "b.c[": {"p": 1, "q.": 1.5}}}, "scores.b.c[.q. must be a number <= 1.0"),
        ({"scores": {"a\nb": {"x": []}}}, "scores.a\\nb.x must be a number or nothing, found a list"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(change: dict[str, object], words: str) -> None:
    with pytest.raises(Misfit) as raised:
        fit({**SOUND, **change}, Content)
    assert str(raised.value) == words


def test_a_key_that_is_no_text_is_said() -> None:
    with pytest.raises(Misfit, match="a key of the whole holds half a character"):
        fit(parse_json(b'{"\\ud800": []}'), Content)


def test_the_top_level_is_named_too() -> None:
    with pytest.raises(Misfit, match=r"^the whole must be an object, found a list$"):
        fit([], Content)
    with pytest.raises(Misfit, match=r"^the whole lacks imlist$"):
        fit({}, Content)


def test_a_key_is_found_among_many_in_no_time() -> None:
    scores = {f"q{i}": 0.5 for i in range(20_000)} | {"wrong": 7.0} | {f"r{i}": 0.5 for i in range(20_000)}
    with pytest.raises(Misfit, match=r"^scores.all.wrong must be a number <= 1.0$"):
        fit({**SOUND, "scores": {"all": scores}}, Content)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"a": 1,\n "b": ,}', "line 2, column 7: invalid character"),
        (b'{"a": 1', "it ends too early"),
        (b'{"a": NaN}', "line 1, column 7: invalid character"),
        (b'{"a": "\xff"}', "line 1 is not UTF-8"),
        (b'{"a":\n"\xed\xa0\x80"}', "line 2 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "line 1 is not UTF-8"),
        (b'{"a": ["b\\u0000"]}', "a[0] holds a NUL character"),
        (b'{"b\\u0000": 1}', "a key of the whole holds a NUL character"),
        (b'{"a": [1, 123456789012345678901]}', "a[1] must be a number of 64 bits, found a number of 67 bits"),
        (b'{"a": 1e999}', "out of range"),
        (b"[" * 100_000, f"lists and objects may lie {MOST_LEVELS} deep at most"),
        (b'{"a": ["x", "\\ud800"]}', "a[1] holds half a character"),
        (b'{"\\udfff": 1}', "a key of the whole holds half a character"),
        (b'{"a":' * 100_000, f"lists and objects may lie {MOST_LEVELS} deep at most"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "deep"),
    ],
)
def test_text_that_is_no_sound_json_is_said_with_its_place(text: bytes, words: str) -> None:
    with pytest.raises(Misfit) as raised:
        parse_json(text)
    assert words in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) <= 400


def test_json_that_would_take_more_memory_than_may_be_taken_is_refused_before(tmp_path: Path) -> None:
    """Small lists and objects take forty times the room of their text."""
    path = tmp_path / "run.json"
    path.write_bytes(b"[" + b",".join([b'{"a": [[]]}'] * 100_000) + b"]")
    set_memory_budget(16 << 20)
    try:
        with pytest.raises(OverBudget, match=r"run .*run\.json: JSON of 1,200,001 bytes would take .* MiB of memory"):
            read_json(path, "run")
    finally:
        set_memory_budget(None)
    assert len(read_json(path, "run", list)) == 100_000
    assert gc.isenabled()


def test_numbers_and_texts_that_only_look_odd_are_read() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": "\\\\u0000", "b": 0.12345678901234567890123, "c": 9007199254740993}') == {
        "a": "\\u0000",
        "b": 0.12345678901234568,
        "c": 9007199254740993,
    }
    assert parse_json(b'"\\udc80 \\u00e9"') == "\udc80 \u00e9"  # of a file whose name is not UTF-8
    assert parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
    many = b"[" + b",".join([b'{"a": [1]}'] * 1000) + b"]"
    assert len(parse_json(many)) == 1000


def test_toml_of_many_points_is_read() -> None:
    """Only a key is deep: numbers and texts have points too."""
    numbers, words = [0.5] * 1000, ".".join("word" * 300)
    assert parse_toml(f"a.b = {numbers}\nc = '{words}'\nd = \"{words}\"") == {
        "a": {"b": numbers},
        "c": words,
        "d": words,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\na = 2", "Cannot overwrite a value"),
        ("a = nan", "a must be a finite number, found nan"),
        ("[t]\nb = [[inf]]", "t.b[0][0] must be a finite number, found inf"),
        ("a = " + "9" * 30, "a must be a number of 64 bits"),
        ("a = " + "9" * 5000, "limit"),
        ("a = " + "[" * 100_000, "deep"),
        ("a." * 300_000 + "a = 1", "tables may lie 64 deep at most"),
        ("[" + '"a" . ' * 100_000 + "a]", "tables may lie 64 deep at most"),
        ('a = "\\u0000"', "a holds a NUL character"),
    ],
)
def test_text_that_is_no_sound_toml_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(Misfit) as raised:
        parse_toml(text)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_values_are_quoted_in_bounded_length_and_time() -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested] * 10
    for value in (nested, "a" * 10**6, 10**5000, {"a\n": nested}, [[["b"]]] * 10**5):
        assert len(shown(value)) <= 60 and "\n" not in shown(value)
    assert shown("x") == "'x'" and shown([1, 2]) == "[1, 2]"
