"""The step `asmk`: the database by the words of its local features, and the words that are kept beside them."""

import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import Run
from tests.retrieval.rerank.walls_for_tests import TURNS, wall_photos, write_local, write_search
from ultron_cli.errors import UltronError
from ultron_cli.local import asmk as kernels
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files

pytest.importorskip("asmk", reason="asmk is not installed")
N_TRUE = len(TURNS)


@pytest.fixture(scope="module")
def walls_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    write_search(folder, *wall_photos())
    return folder


@pytest.fixture
def walls(walls_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(walls_folder, tmp_path / "walls"))


def searched(folder: Path, *assignments: str, steps: str | None = "asmk", k: int | None = None) -> Ranking:
    search_options = SearchOptions(steps=parse_rerank(steps, assignments if steps else []))
    return search_files(folder / "queries.h5", folder / "database.h5", k, "cpu", options=search_options)


def measured(ranking: Ranking) -> dict:
    assert ranking.origin.search is not None
    return dict(ranking.origin.search.steps[-1].measured)


def stored_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.asmk-*.h5"))


def test_the_database_is_ordered_by_its_local_features(walls: Path) -> None:
    ranking = searched(walls, "asmk.words=60")
    assert ranking.scores is not None
    record = measured(ranking)
    assert (record["n_words"], record["words_of"]) == (60, "the searched photos")
    assert 20 < record["vectors_per_photo"] <= 60 and record["bytes_per_photo"] > 20 * 24
    queries, database = wall_photos()
    words = kernels.learn_words(np.concatenate([kernels.unit_rows(photo.descriptors) for photo in database]), 60)
    literal = kernels.Asmk(words, kernels.AsmkSettings())
    literal.fill(literal.vectors_of((i, photo.descriptors) for i, photo in enumerate(database)), len(database))
    for query, photo in enumerate(queries):
        expected = literal.scores(photo.descriptors)
        assert ranking.rows[query].tolist() == np.lexsort((np.arange(len(expected)), -expected)).tolist()
        np.testing.assert_allclose(ranking.scores[query], np.sort(expected)[::-1], rtol=1e-6)
        assert ranking.rows[query, 0] // N_TRUE == query
    short = searched(walls, "asmk.words=60", k=4)
    assert (short.rows == ranking.rows[:, :4]).all()


def test_words_are_kept_and_made_anew_where_they_are_of_something_else(
    walls: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    first = searched(walls, "asmk.words=30")
    assert "30 words learned in" in caplog.text and len(stored_files(walls)) == 1
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "learn_words", None)
        again = searched(walls, "asmk.words=30", "asmk.alpha=3.0")
    assert "learned" not in caplog.text
    assert (again.rows == first.rows).all() and (again.scores == first.scores).all()
    other = searched(walls, "asmk.words=30", "asmk.binary=false")
    assert len(stored_files(walls)) == 2 and (other.scores != first.scores).any()
    (path,) = [path for path in stored_files(walls) if "uint32" in str(h5py.File(path)["vectors"].dtype)]
    with h5py.File(path, "r+") as handle:
        handle["word_of_vector"][0] = 30
    assert (searched(walls, "asmk.words=30").scores == first.scores).all()
    path.write_bytes(path.read_bytes()[:2000])
    assert (searched(walls, "asmk.words=30").scores == first.scores).all() and str(path) in caplog.text
    _, database = wall_photos()
    names = [f"p{i:02d}" for i in range(len(database))]
    write_local(walls / "database.local.h5", names, database[::-1], "database")
    assert (searched(walls, "asmk.words=30").rows != first.rows).any()


def test_only_the_first_m_are_ordered_and_skipped_photos_come_last_of_them(walls: Path) -> None:
    plain, ranking = searched(walls, steps=None), searched(walls, "asmk.m=6", "asmk.words=40")
    assert (np.sort(plain.rows[:, :6]) == np.sort(ranking.rows[:, :6])).all()
    assert (plain.rows[:, 6:] == ranking.rows[:, 6:]).all() and (plain.rows != ranking.rows).any()
    queries, database = wall_photos()
    names = [f"p{i:02d}" for i in range(len(database))]
    write_local(walls / "database.local.h5", names[1:], database[1:], "database", skipped=names[:1])
    write_local(walls / "queries.local.h5", ["q1", "q2"], queries[1:], "query", skipped=["q0"])
    ranking = searched(walls, "asmk.words=40")
    assert ranking.scores is not None and (ranking.scores[0] == 0).all()
    assert ranking.scores[1, ranking.rows[1] == 0].tolist() == [0] and ranking.scores[1, 0] > 0


def test_words_of_other_photos(walls: Path) -> None:
    queries, _ = wall_photos()
    write_local(walls / "others.local.h5", ["q0", "q1", "q2"], queries, "database")
    ranking = searched(walls, "asmk.words=30", f"asmk.words_of={walls / 'others.local.h5'}")
    assert measured(ranking)["words_of"] == str(walls / "others.local.h5")
    assert (ranking.scores != searched(walls, "asmk.words=30").scores).any()
    write_local(walls / "others.local.h5", ["q0", "q1", "q2"], queries, "database", detector="sift")
    with pytest.raises(UltronError, match="must be of the same local features; their detector are sift and rootsift"):
        searched(walls, "asmk.words=30", f"asmk.words_of={walls / 'others.local.h5'}")


def test_it_is_a_step_of_commands_and_needs_local_features(walls: Path, ultron: Run) -> None:
    files = ("--queries", walls / "queries.h5", "--database", walls / "database.h5", "--rerank", "asmk")
    code, _, err = ultron("search", *files, "--rerank-set", "asmk.words=40", "--out", walls / "r.h5")
    assert code == 0, err
    code, _, err = ultron("search", *files, "--rerank-set", "asmk.words=100000", "--out", walls / "r.h5")
    assert code == 2 and "visual words are centres of local features" in err
    (walls / "queries.local.h5").unlink()
    code, _, err = ultron("search", *files)
    assert (
        code == 2
        and "queries.local.h5 is absent, and re-ranking by asmk needs" in err
        and "ultron extract --local rootsift" in err
    )
