"""The step `geometry`: what is promoted, what stays, and that a pair is verified once."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from tests.retrieval.rerank.walls_for_tests import DIM, TURNS, wall_photos, write_local, write_search
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.local import verification
from ultron_cli.retrieval import searching
from ultron_cli.retrieval.descriptors import MemoryDescriptors, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.rerank import geometry, parse_rerank
from ultron_cli.retrieval.rerank.state import RerankState
from ultron_cli.retrieval.searching import SearchOptions, search_descriptors, search_files
from ultron_cli.retrieval.whitening import open_descriptors

N_TRUE = len(TURNS)


@pytest.fixture(scope="module")
def walls_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    write_search(folder, *wall_photos())
    return folder


@pytest.fixture
def walls(walls_folder: Path, tmp_path: Path) -> Path:
    """A copy without verified pairs."""
    shutil.copytree(walls_folder, tmp_path / "walls", ignore=shutil.ignore_patterns("*.db"))
    return tmp_path / "walls"


def searched(folder: Path, *assignments: str, steps: str | None = "geometry", **options) -> Ranking:
    how = SearchOptions(steps=parse_rerank(steps, assignments if steps else []), **options)
    return search_files(folder / "queries.h5", folder / "database.h5", None, "cpu", options=how)


def measured(ranking: Ranking) -> dict:
    assert ranking.origin.search is not None
    return dict(ranking.origin.search.steps[-1].measured)


def test_photos_of_the_querys_wall_come_first(walls: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plain, ranking = searched(walls, steps=None), searched(walls)
    assert ranking.scores is not None and plain.scores is not None
    for query in range(3):
        first = ranking.rows[query, :N_TRUE].tolist()
        assert sorted(first) == list(range(N_TRUE * query, N_TRUE * (query + 1)))
        assert ranking.rows[query, N_TRUE:].tolist() == [row for row in plain.rows[query].tolist() if row not in first]
        assert (np.diff(ranking.scores[query]) <= 0).all()
        assert ranking.scores[query, N_TRUE - 1] > 6 > 1 >= ranking.scores[query, N_TRUE]
    record = measured(ranking)
    n_chance = record["calibration"]["n_pairs"]
    assert record["n_pairs"] + record["n_known_pairs"] == n_chance + ranking.rows.size
    assert (record["n_promoted"], record["n_queries_with_promoted"]) == (9, 3)
    assert record["ms_per_pair"] > 0 and record["bytes_per_photo"] > 120 * 128
    assert 6 <= record["calibration"]["threshold"] <= 13 and record["calibration"]["most"] < 6
    assert f"{record['calibration']['threshold']} inliers promote: of {n_chance} pairs of other photos" in caplog.text
    assert "9 photos promoted in 3 of 3 queries" in caplog.text
    stored = json.loads(json.dumps(ranking.origin.to_json()))
    assert Origin.from_json(stored).search == ranking.origin.search
    assert Origin.from_json(stored).search.steps[0].measured == json.loads(json.dumps(record))
    assert "n_workers" not in stored["search"]["rerank"][0]


def test_only_the_first_m_are_verified(walls: Path) -> None:
    plain, ranking = searched(walls, steps=None), searched(walls, "geometry.m=10")
    for query in range(3):
        true = [row for row in plain.rows[query, :10].tolist() if row // N_TRUE == query]
        assert sorted(ranking.rows[query, : len(true)].tolist()) == sorted(true)
        rest = [row for row in plain.rows[query].tolist() if row not in true]
        assert ranking.rows[query, len(true) :].tolist() == rest


def test_a_pair_is_verified_once(walls: Path) -> None:
    first = searched(walls, "geometry.m=5")
    n_verified = measured(first)["n_pairs"]
    assert n_verified > 0
    unguarded = measured(searched(walls, "geometry.m=5", "geometry.guard=false"))
    assert (unguarded["n_pairs"], unguarded["calibration"]) == (0, None)
    assert unguarded["n_promoted"] >= measured(first)["n_promoted"]
    assert measured(searched(walls, "geometry.m=5", "geometry.ratio=0.8"))["n_pairs"] > 0
    larger = searched(walls, "geometry.m=12")
    assert 0 < measured(larger)["n_pairs"] <= 3 * 7
    fresh = dataclasses.replace(larger, origin=first.origin)
    (walls / "database.local.verified.db").unlink()
    again = searched(walls, "geometry.m=12")
    assert (again.rows == fresh.rows).all() and (again.scores == fresh.scores).all()
    # Other features under the same names are verified anew.
    names = [f"p{i:02d}" for i in range(len(again.database_names))]
    write_local(walls / "database.local.h5", names, wall_photos()[1][::-1], "database")
    turned = searched(walls, "geometry.m=12")
    assert measured(turned)["n_pairs"] > n_verified and (turned.rows != again.rows).any()


def test_results_do_not_depend_on_workers(walls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "PAIRS_PER_TASK", 7)
    rankings = []
    for n in (1, 2, 4):
        rankings.append(searched(walls, f"geometry.n_workers={n}"))
        (walls / "database.local.verified.db").unlink()
    for ranking in rankings[1:]:
        assert (ranking.rows == rankings[0].rows).all() and (ranking.scores == rankings[0].scores).all()
        assert measured(ranking)["calibration"] == measured(rankings[0])["calibration"]


def test_a_stopped_search_goes_on(walls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = searched(walls)
    n_pairs = measured(expected)["n_pairs"]
    (walls / "database.local.verified.db").unlink()
    monkeypatch.setattr(geometry, "PAIRS_PER_TASK", 10)
    n_calls = 0

    def stopping(*arguments) -> verification.Verification:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 60:
            raise KeyboardInterrupt
        return verification.verify(*arguments)

    monkeypatch.setattr(geometry, "verify", stopping)
    with pytest.raises(KeyboardInterrupt):
        searched(walls, "geometry.n_workers=1")
    monkeypatch.setattr(geometry, "verify", verification.verify)
    ranking = searched(walls, "geometry.n_workers=1")
    assert n_pairs - 60 <= measured(ranking)["n_pairs"] < n_pairs - 30
    assert (ranking.rows == expected.rows).all() and (ranking.scores == expected.scores).all()


def test_a_damaged_store_is_one_line(walls: Path) -> None:
    store = walls / "database.local.verified.db"
    store.write_bytes(b"no database" * 1000)
    with pytest.raises(UltronError, match=r"verified\.db is damaged \(file is not a database\); delete it"):
        searched(walls)
    store.unlink()
    searched(walls)
    content = bytearray(store.read_bytes())
    content[5000:] = b"\xff" * len(content[5000:])
    store.write_bytes(content)
    with pytest.raises(UltronError, match=r"verified\.db is damaged"):
        searched(walls)


def test_where_nothing_can_be_written_nothing_is_kept(walls: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (walls / "database.local.verified.db").mkdir()
    assert measured(searched(walls))["n_promoted"] == 9
    assert "verified pairs are not kept" in caplog.text


def test_blocks_of_queries_are_searched_alike(walls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = searched(walls)
    monkeypatch.setattr(searching, "RANKING_BYTES", 1)  # a query at a time
    options = SearchOptions(steps=parse_rerank("geometry", []))
    rows_only = search_files(walls / "queries.h5", walls / "database.h5", None, "cpu", options=options, rows_only=True)
    assert (rows_only.rows == ranking.rows).all()
    assert measured(rows_only)["n_promoted"] == 9


def test_composed_with_other_steps(walls: Path) -> None:
    ranking = searched(walls, "aqe.n=1", steps="aqe,geometry")
    assert ranking.origin.search is not None
    assert [step.name for step in ranking.origin.search.steps] == ["aqe", "geometry"]
    assert (np.sort(ranking.rows[:, :N_TRUE], axis=1) == np.arange(9).reshape(3, 3)).all()


def test_distractors_have_features_of_their_own(walls: Path) -> None:
    queries, database = wall_photos()
    rows = unit_rows(9, 2, DIM)
    rows[0] = open_descriptors(walls / "queries.h5").read()[1]
    write_descriptors(walls / "more.h5", ["d0", "d1"], [rows], DIM, INFO)
    with pytest.raises(UltronError, match=r"more\.local\.h5 is absent, and re-ranking by geometry needs local"):
        searched(walls, distractors=(walls / "more.h5",))
    write_local(walls / "more.local.h5", ["d0", "d1"], [queries[1], database[-1]], "database")
    ranking = searched(walls, distractors=(walls / "more.h5",))
    assert "distractor:d0" in [ranking.database_names[row] for row in ranking.rows[1, :4]]
    files = tuple(walls / f"{name}.local.h5" for name in ("queries", "database", "more"))
    for file in files:
        file.rename(file.with_name(f"x{file.name}"))
    moved = tuple(file.with_name(f"x{file.name}") for file in files)
    again = searched(walls, distractors=(walls / "more.h5",), local_features=moved)
    assert (again.rows == ranking.rows).all()
    with pytest.raises(
        UltronError, match=r"a file of the queries, then one of each descriptor file.* 3 in all; found 2"
    ):
        searched(walls, distractors=(walls / "more.h5",), local_features=moved[:2])


def test_a_skipped_photo_is_never_promoted(walls: Path) -> None:
    database = wall_photos()[1]
    names = [f"p{i:02d}" for i in range(1, len(database))]
    write_local(walls / "database.local.h5", names, database[1:], "database", skipped=["p00"])
    ranking = searched(walls)
    assert sorted(ranking.rows[0, :2].tolist()) == [1, 2] and measured(ranking)["n_promoted"] == 8


def test_files_that_do_not_fit(walls: Path) -> None:
    queries, database = wall_photos()
    write_local(walls / "database.local.h5", ["p00", "p01"], database[:2], "database")
    with pytest.raises(UltronError, match=r"database\.local\.h5 lacks 16 of 18 photos, such as p02; make it"):
        searched(walls)
    write_local(walls / "queries.local.h5", ["q0"], queries[:1], "query", detector="sift")
    with pytest.raises(UltronError, match="must be of the same local features; their detector are sift and rootsift"):
        searched(walls)
    (walls / "queries.local.h5").unlink()
    with pytest.raises(UltronError, match=r"queries\.local\.h5 is absent.*`ultron extract --local rootsift`"):
        searched(walls)


def test_descriptors_in_memory_have_none() -> None:
    rows = MemoryDescriptors(unit_rows(1, 4, DIM), list("abcd"), INFO)
    with pytest.raises(UltronError, match="by geometry needs the local features"):
        search_descriptors(rows, rows, 3, "cpu", steps=parse_rerank("geometry", []))


def test_chance_pairs_are_far_apart_and_the_same_again(walls: Path) -> None:
    database = unit_rows(3, 300, 16)
    state = RerankState(ranking=exact_search(database[:1], database, 3), queries=database[:1], database=database)
    first, second = geometry.chance_pairs(state, 500)
    assert (
        len(first) == 500
        and (first < second).all()
        and len({*zip(first.tolist(), second.tolist(), strict=True)}) == 500
    )
    similarities = np.einsum("nd,nd->n", database[first], database[second])
    assert similarities.max() < 0.05  # evenly drawn pairs reach 0.7
    assert all((a == b).all() for a, b in zip((first, second), geometry.chance_pairs(state, 500), strict=True))
    for n_photos in (1, 2, 5):
        few = dataclasses.replace(state, database=database[:n_photos])
        assert len(geometry.chance_pairs(few, 500)[0]) == n_photos * (n_photos - 1) // 8


def test_on_the_command_line(walls: Path, ultron: Run) -> None:
    files = ("--queries", walls / "queries.h5", "--database", walls / "database.h5")
    result = read_json(ultron("search", *files, "--rerank", "geometry", "-k", 3, "--json"))
    assert {photo["name"] for photo in result["results"][1]["photos"]} == {"p03", "p04", "p05"}
    (step,) = result["origin"]["search"]["rerank"]
    assert step["measured"]["n_promoted"] == 9 and step["model"] == "homography"
    (walls / "queries.local.h5").unlink()
    code, out, err = ultron("search", *files, "--rerank", "geometry")
    assert (code, out) == (2, "") and "queries.local.h5 is absent" in err and len(err.splitlines()) <= 2
