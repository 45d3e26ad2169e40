"""Indexes of a person's own: built, opened, searched; faults are lines of theirs."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO, assert_equal, unit_rows
from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import MemoryDescriptors, write_descriptors
from ultron_cli.retrieval.exact.index import ExactIndex
from ultron_cli.retrieval.index.building import build_user_index
from ultron_cli.retrieval.index.opening import open_index

N, DIM = 60, 8
QUERIES = unit_rows(5, 3, DIM)
INDEX = """
import numpy as np


class flat: ...


class Missing:
    def add(self, rows): ...


class Brute:
    def __init__(self, dim, first: int = 1000):
        self.rows, self.first = np.empty((0, dim), np.float32), first

    def add(self, rows):
        self.rows = np.concatenate([self.rows, rows])

    def search(self, queries, k):
        scores = queries @ self.rows[: self.first].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows = np.full((len(queries), k), -1)
        rows[:, : order.shape[1]] = order
        return np.take_along_axis(np.pad(scores, ((0, 0), (0, k))), rows, axis=1), rows

    def write(self, folder):
        np.save(folder / "rows.npy", self.rows)

    def read(self, folder):
        self.rows = np.load(folder / "rows.npy")


class Rescored(Brute):
    rescore = 1000

    def search(self, queries, k):
        scores, rows = super().search(queries, k)
        return np.zeros_like(scores), rows[:, ::-1]


class Wide(Brute):
    def search(self, queries, k):
        return np.zeros((len(queries), k)), np.zeros((len(queries), k + 1), int)


class Twice(Brute):
    def search(self, queries, k):
        return np.zeros((len(queries), k)), np.zeros((len(queries), k), int)


class Beyond(Brute):
    def search(self, queries, k):
        return np.zeros((len(queries), k)), np.full((len(queries), k), 60)


class Nothing(Brute):
    def search(self, queries, k):
        return None


class Failing(Brute):
    def search(self, queries, k):
        return queries.nothing
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(INDEX)
    return path


@pytest.fixture
def descriptors(tmp_path: Path) -> Path:
    path = tmp_path / "d.h5"
    write_descriptors(path, [str(i) for i in range(N)], [unit_rows(1, N, DIM)], DIM, INFO)
    return path


@pytest.mark.parametrize("name", ["Brute", "Rescored"])
def test_it_finds_what_exact_search_finds(code: Path, descriptors: Path, tmp_path: Path, name: str) -> None:
    exact = ExactIndex.over(MemoryDescriptors(unit_rows(1, N, DIM), [str(i) for i in range(N)], INFO), "cpu")
    built = build_user_index(descriptors, tmp_path / "a.index", f"{code}:{name}")
    reopened = open_index(tmp_path / "a.index")
    for index in (built, reopened):
        ranked = index.search(QUERIES, 10)
        np.testing.assert_array_equal(ranked.rows, exact.search(QUERIES, 10).rows)
        np.testing.assert_allclose(ranked.scores, exact.search(QUERIES, 10).scores, rtol=1e-6)
    assert_equal(reopened.search(QUERIES, 10), built.search(QUERIES, 10))
    record = reopened.record()
    assert record.is_approximate and record.kind == f"{code}:{name}" and len(str(record.settings["code_sha256"])) == 64


def test_fewer_than_k_and_settings(code: Path, descriptors: Path, tmp_path: Path) -> None:
    build_user_index(descriptors, tmp_path / "a.index", f"{code}:Brute", settings={"first": "4"})
    ranked = open_index(tmp_path / "a.index").search(QUERIES, 6)
    assert (ranked.rows[:, 4:] == -1).all() and np.isneginf(ranked.scores[:, 4:]).all()
    assert (np.sort(ranked.rows[:, :4]) == np.arange(4)).all()
    with pytest.raises(UltronError, match=r"a\.index exists already; replace it with `overwrite`"):
        build_user_index(descriptors, tmp_path / "a.index", f"{code}:Brute")


def test_its_code_is_asked_for_and_may_not_change(code: Path, descriptors: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    build_user_index(descriptors, path, f"{code}:Brute")
    copy = path / "code" / "own.py"
    user_code.forget_permissions()
    with pytest.raises(
        UltronError, match=r"code that is run only if you name it; if you trust it, add `code` "
    ) as error:
        open_index(path)
    assert str(error.value).endswith(f"add `code` {copy}")
    code.write_text(INDEX + "# changed")
    user_code.permit(str(code))
    with pytest.raises(UltronError, match=r"own\.py has changed since .*a\.index was made with it"):
        open_index(path)
    user_code.permit(str(copy))
    assert open_index(path).n == N


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("flat", 5, "flat is the name of a kind of index of ultron; give it another name"),
        (
            "Missing",
            8,
            "Missing needs the method search, see UserIndex of ultron_cli.retrieval.index.of_users; write it",
        ),
        ("Wide", 42, "Wide must give scores and whole rows, each (1, 2); found float64 (1, 2) and int64 (1, 3)"),
        ("Twice", 47, "Twice must give each row once; found a row twice for one query"),
        ("Beyond", 52, "Beyond must give rows below 60 with finite scores; found rows up to 60"),
        ("Nothing", 57, "Nothing must give scores and whole rows, each (1, 2); found NoneType"),
    ],
)
def test_wrong_ones_name_their_line(
    code: Path, descriptors: Path, tmp_path: Path, name: str, line: int, words: str
) -> None:
    with pytest.raises(UltronError) as error:
        build_user_index(descriptors, tmp_path / "a.index", f"{code}:{name}")
    assert str(error.value).startswith(f"{code}, line {line}: {words}")
    assert not (tmp_path / "a.index").exists()


def test_a_fault_in_it_and_a_setting_that_it_does_not_have(code: Path, descriptors: Path, tmp_path: Path) -> None:
    with pytest.raises(AttributeError) as fault:
        build_user_index(descriptors, tmp_path / "a.index", f"{code}:Failing")
    line = f"{code}, line 63, in search: AttributeError: 'numpy.ndarray' object has no attribute 'nothing'; mend it"
    assert user_code.fault_of_user(fault.value) == line
    with pytest.raises(UltronError, match=r"line 13: Brute: unknown setting firs; did you mean first\?"):
        build_user_index(descriptors, tmp_path / "a.index", f"{code}:Brute", settings={"firs": 1})


def test_index_json_of_a_stranger_runs_nothing(code: Path, descriptors: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    build_user_index(descriptors, path, f"{code}:Brute")
    content = json.loads((path / "index.json").read_text())
    for changes, words in (
        ({"kind": "flat"}, "kind must be an import path; found 'flat'"),
        ({"code": {"sha256": 3}}, "index description"),
        ({"n": N + 1}, f"must hold {N + 1} names, found {N}"),
    ):
        (path / "index.json").write_text(json.dumps(content | changes))
        with pytest.raises(UltronError, match=words):
            open_index(path)
