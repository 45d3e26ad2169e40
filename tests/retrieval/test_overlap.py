"""Queries that are in the database too, and distractors that are photos of the database: told with their number, and
queries left out of their own rankings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.console import reset_settings, start_log
from ultron_cli.datasets.photo_marks import PhotoMark, PhotoMarks
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import DescriptorProvenance
from ultron_cli.retrieval.overlap import own_rows_of
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks
from ultron_cli.retrieval.searching import SearchOptions, search_files

INFO = DescriptorInfo(
    model="m",
    weights_sha256="",
    dataset="set",
    role="database",
    crop="none",
    scales=[1.0],
    provenance=DescriptorProvenance(dataset_folder="/set"),
)
# Angles in degrees, so that the order of every ranking is seen: near angles first.
DATABASE = {"a": 0, "b": 10, "c": 30, "d": 100, "e": 115}
QUERIES = {"a": 0, "d": 100, "q": 12}
TRUTH = {
    "imlist": list(DATABASE),
    "qimlist": list(QUERIES),
    "gnd": [
        {"easy": [1], "hard": [], "junk": []},
        {"easy": [3, 4], "hard": [], "junk": []},  # d is its own positive
        {"easy": [1], "hard": [], "junk": []},
    ],
}


@pytest.fixture(autouse=True)
def log_to_this_test() -> None:
    reset_settings()
    start_log(0)


def write(path: Path, angle_of: dict[str, float], digests: list[int] | None = None, folder: str = "/set") -> Path:
    radians = np.radians(list(angle_of.values()))
    rows = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    info = replace(INFO, provenance=DescriptorProvenance(dataset_folder=folder))
    marks = digests and PhotoMarks.of([PhotoMark((i, i, i), bytes([digest] * 16)) for i, digest in enumerate(digests)])
    write_descriptors(path, list(angle_of), [rows], 2, info, marks or None)
    return path


def search(tmp_path: Path, k: int | None = None, **options: object) -> Ranking:
    return search_files(tmp_path / "q.h5", tmp_path / "d.h5", k, "cpu", options=SearchOptions(**options))  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(tmp_path / "q.h5", QUERIES)
    write(tmp_path / "d.h5", DATABASE)
    (tmp_path / "gnd_set.json").write_text(json.dumps(TRUTH))
    return tmp_path


def test_queries_in_the_database_are_counted_and_left_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranking = search(files)
    assert [ranking.names_of(query)[0] for query in range(3)] == ["a", "d", "b"]
    warning = "warning: 2 of 3 queries are in the database too"
    assert warning in capsys.readouterr().err
    scores = evaluate_ranking(ranking, files / "gnd_set.json").protocols["easy"]
    assert warning in capsys.readouterr().err
    assert scores.ap == {"a": 0.25, "d": 1.0, "q": 1.0}  # a: itself, wrong, before its positive; d: itself, right
    assert scores.mP[1] == pytest.approx(2 / 3)

    ranking = search(files, leave_out_queries=True)
    assert [ranking.names_of(query) for query in range(3)] == [
        ["b", "c", "d", "e"],
        ["e", "c", "b", "a"],
        ["b", "a", "c", "d", "e"],
    ]
    scores = evaluate_ranking(ranking, files / "gnd_set.json", leave_out_queries=True).protocols["easy"]
    assert scores.ap == {"a": 1.0, "d": 1.0, "q": 1.0}
    assert scores.mP[1] == 1.0
    assert "in the database too" not in capsys.readouterr().err


def test_k_photos_beside_the_query_are_found(files: Path) -> None:
    ranking = search(files, 2, leave_out_queries=True)
    assert [ranking.names_of(query) for query in range(3)] == [["b", "c"], ["e", "c"], ["b", "a"]]
    assert ranking.rows.shape == ranking.with_scores().shape == (3, 2)
    whole = search(files, 5, leave_out_queries=True)
    assert whole.rows[:, 4].tolist() == [-1, -1, 4]
    assert whole.with_scores()[0, 4] == -np.inf


def test_a_rank_file_is_left_out_by_name_and_says_what_was_done(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ranks(files / "r.h5", search(files))
    evaluation = evaluate_ranking(read_ranks(files / "r.h5"), files / "gnd_set.json", leave_out_queries=True)
    assert evaluation.protocols["easy"].ap == {"a": 1.0, "d": 1.0, "q": 1.0}
    assert "queries left out of their own ranking" in evaluation.origin.search_text()
    write_ranks(files / "left.h5", search(files, leave_out_queries=True))
    capsys.readouterr()
    stored = evaluate_ranking(read_ranks(files / "left.h5"), files / "gnd_set.json")
    assert stored.protocols["easy"].ap == {"a": 1.0, "d": 1.0, "q": 1.0}
    assert "in the database too" not in capsys.readouterr().err


def test_a_rank_file_tells_photos_by_their_bytes_as_the_search_does(files: Path) -> None:
    write(files / "q.h5", QUERIES, [0, 3, 9], folder="/elsewhere")
    write(files / "d.h5", DATABASE, [0, 1, 2, 3, 4])
    ranking = search(files)
    write_ranks(files / "r.h5", ranking)
    for either in (ranking, read_ranks(files / "r.h5")):
        assert {query: rows.tolist() for query, rows in own_rows_of(either).items()} == {0: [0], 1: [3]}


def test_a_query_that_is_junk_for_itself_is_no_trouble(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = json.loads((files / "gnd_set.json").read_text())
    truth["gnd"][0]["junk"] = [0]
    truth["gnd"][1] |= {"easy": [4], "junk": [3]}
    (files / "gnd_set.json").write_text(json.dumps(truth))
    ranking = search(files)
    capsys.readouterr()
    assert evaluate_ranking(ranking, files / "gnd_set.json").protocols["easy"].ap == {"a": 1.0, "d": 1.0, "q": 1.0}
    assert "in the database too" not in capsys.readouterr().err


def test_copies_are_known_by_their_bytes(files: Path) -> None:
    write(files / "q.h5", QUERIES, [1, 2, 3])
    write(files / "d.h5", DATABASE, [11, 3, 13, 3, 15], folder="/elsewhere")
    rows_of_self = search(files).own_rows
    assert rows_of_self is not None
    assert {query: rows.tolist() for query, rows in rows_of_self.items()} == {
        2: [1, 3]
    }  # names of another folder say nothing
    assert search(files, 3, leave_out_queries=True).names_of(2) == ["a", "c", "e"]


@pytest.mark.parametrize(
    ("names", "digests", "n_repeats"),
    [
        (["z", "y"], [2, 14], 2),
        (["a", "b", "c"], [90, 91, 92], 0),  # other photos of the same names
        (["jpg/a.jpg", "jpg/b.jpg", "jpg/c.jpg", "x"], None, 3),  # names alone, half the database
        (["a", "b", "x"], None, 0),  # two names may be equal by chance
    ],
)
def test_distractors_that_are_database_photos_are_counted(
    files: Path, capsys: pytest.CaptureFixture[str], names: list[str], digests: list[int] | None, n_repeats: int
) -> None:
    write(files / "d.h5", DATABASE, [11, 2, 13, 14, 15] if digests else None)
    write(files / "x.h5", {name: 200.0 + i for i, name in enumerate(names)}, digests, folder="/distractors")
    ranking = search(files, distractors=(files / "x.h5",))
    assert len(ranking.database_names) == 5 + len(names)
    message = f"warning: {n_repeats} photos of {files / 'x.h5'} are in {files / 'd.h5'} too; as distractors"
    err = capsys.readouterr().err
    assert message in err if n_repeats else "as distractors" not in err


def test_more_than_all_are_all(files: Path) -> None:
    everything = search(files, None, leave_out_queries=True)
    np.testing.assert_array_equal(search(files, 6, leave_out_queries=True).rows, everything.rows)
