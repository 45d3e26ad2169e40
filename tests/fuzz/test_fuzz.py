"""Every reader of the table takes some damaged files; and the harness sees what it is for."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as with_values
from hypothesis import strategies as st

from tests.fuzz import running
from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS
from tests.fuzz.running import Limits, fuzz, problem_of
from ultron_cli.errors import UltronError


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str) -> None:
    outcome = fuzz(READERS[name], 50, seed=1)
    assert (outcome.n_inputs, outcome.failures) == (50, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if mutate_json in reader.mutations])
def test_any_json_is_read_or_refused_in_one_line(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    reader = READERS[name]
    reader.seeds[0](folder)
    keys = list(json.loads((folder / reader.file).read_text()))[:8] or [""]
    known = st.dictionaries(st.sampled_from([str(key) for key in keys]), JSON, max_size=8)

    @settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @with_values(value=JSON | known)
    def check(value: object) -> None:
        (folder / reader.file).write_text(json.dumps(value))
        assert not problem_of(reader.read, folder)

    check()


def sound(folder: Path) -> None:
    (folder / "x").write_bytes(b"abc")


def outcome_of(read: object, n: int = 6, **limits: float) -> dict[str, bytes]:
    reader = Reader(file="x", seeds=(sound,), read=read, mutations=(mutate_bytes,))  # type: ignore[arg-type]
    return fuzz(reader, n, limits=Limits(**limits)).failures  # type: ignore[arg-type]


def unless_sound(act: object) -> object:
    return lambda folder: None if (folder / "x").read_bytes() == b"abc" else act()  # type: ignore[operator]


def raise_(error: Exception) -> None:
    raise error


class Long(UltronError):
    """One that is shown as it is."""

    def __str__(self) -> str:
        return str(self.args[0])


def hang() -> None:
    while True:
        pass


def test_the_harness_sees_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SHRINKING_TRIES", 4)  # a process each
    assert outcome_of(unless_sound(lambda: raise_(UltronError("one line")))) == {}
    (problem,) = outcome_of(unless_sound(lambda: raise_(KeyError("x"))))
    assert problem.startswith("KeyError at test_fuzz.py:")
    assert list(outcome_of(unless_sound(lambda: raise_(Long("two\nlines"))))) == ["a message of several lines"]
    assert list(outcome_of(unless_sound(lambda: raise_(Long("\ud800"))))) == ["a message that cannot be printed"]
    assert list(outcome_of(unless_sound(lambda: raise_(Long("x" * 2001))))) == ["a message of over 2000 characters"]
    assert list(outcome_of(unless_sound(os.abort), 3)) == ["killed by SIGABRT"]
    assert list(outcome_of(unless_sound(hang), 2, cpu_s=0.1)) == ["over 0.1 s"]
    assert list(outcome_of(unless_sound(lambda: time.sleep(60)), 1, wall_s=0.2)) == ["no end within 0 s"]
    (problem,) = outcome_of(unless_sound(lambda: bytearray(1 << 30)), 2, memory_mib=64)
    assert problem.startswith("MemoryError at ")


def test_the_smallest_file_is_kept_and_every_file_can_be_made_again() -> None:
    def read(folder: Path) -> None:
        if b"b" not in (folder / "x").read_bytes():
            raise KeyError

    reader = Reader(file="x", seeds=(sound,), read=read)
    first, again = (fuzz(reader, 100, seed=3) for _ in range(2))
    assert list(first.failures.values()) == [b""] and first == again
