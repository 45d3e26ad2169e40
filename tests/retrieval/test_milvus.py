"""Descriptors in Milvus, against milvus-lite itself: the ranks of exact search and of Faiss, loads that broke, servers
that stay away."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_bad_input import MODEL, expect_error
from tests.conftest import Run
from tests.retrieval.test_ranks import INFO, assert_equal, unit_rows, with_ties
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.index.kinds import n_cells
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.index.report import recall_at
from ultron_cli.retrieval.milvus import client, index
from ultron_cli.retrieval.milvus.building import MilvusRequest, build_milvus_index
from ultron_cli.retrieval.milvus.client import Milvus
from ultron_cli.retrieval.milvus.kinds import MILVUS_KINDS, milvus_plan, search_params
from ultron_cli.retrieval.milvus.place import Place
from ultron_cli.retrieval.rankings import read_ranks

pytest.importorskip("pymilvus")
server_manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
N, DIM = 2000, 64


@pytest.fixture(autouse=True)
def databases_closed():
    yield
    server_manager.release_all()


def write(path: Path, rows: np.ndarray) -> Path:
    write_descriptors(
        path, [f"photo{i}.jpg" for i in range(len(rows))], [rows] if len(rows) else [], rows.shape[1], INFO
    )
    return path


@pytest.fixture(scope="module")
def rows():
    return unit_rows(1, N, DIM)


@pytest.fixture
def descriptors(tmp_path, rows):
    return write(tmp_path / "database.h5", rows)


def build(descriptors: Path, out: Path, kind: str = "flat", *, overwrite: bool = False, sleep=pytest.fail, **request):
    return build_milvus_index(descriptors, out, kind, MilvusRequest(**request), overwrite=overwrite, sleep=sleep)


@pytest.fixture
def waits():
    return []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_flat_ranks_as_exact_search_and_faiss_flat_do(descriptors, rows, tmp_path):
    built = build(descriptors, tmp_path / "m.index")
    assert (built.n, built.dim, built.n_written, built.index_type) == (N, DIM, N, "FLAT")
    opened, queries = open_index(tmp_path / "m.index"), unit_rows(2, 5, DIM)
    faiss = build_index(descriptors, tmp_path / "f.index")
    for k in (1, 10, 300):
        found = opened.search(queries, k)
        assert_equal(found, exact_search(queries, rows, k))
        np.testing.assert_array_equal(found.rows, faiss.search(queries, k).rows)
    assert_equal(opened.search(queries[:2], N), exact_search(queries[:2], rows, N))


def test_equal_photos_are_ordered_by_row(tmp_path):
    rows, queries = with_ties(3, 600, 16), unit_rows(4, 6, 16)
    queries[0] = rows[7]
    build(write(tmp_path / "d.h5", rows), tmp_path / "d.index")
    opened = open_index(tmp_path / "d.index")
    for k in (1, 5, 40):
        assert_equal(opened.search(queries, k), exact_search(queries, rows, k))
    same = np.zeros((300, 4), np.float32)  # a group of equal scores larger than what is fetched at first
    same[:, 0], same[::2, 0], same[::2, 1] = 1, 0, 1
    build(write(tmp_path / "same.h5", same), tmp_path / "same.index")
    found = open_index(tmp_path / "same.index").search(np.eye(4, dtype=np.float32)[:1], 20)
    assert found.rows[0].tolist() == list(range(1, 40, 2))


@pytest.mark.parametrize("kind", ["ivf", "ivf-sq8", "hnsw"])
def test_approximate_kinds(descriptors, rows, tmp_path, kind):
    build(descriptors, tmp_path / "a.index", kind)
    opened, expected = open_index(tmp_path / "a.index"), exact_search(rows[:20], rows, 10)
    found = opened.search(rows[:20], 10)
    assert (found.rows[:, 0] == np.arange(20)).all()
    same = found.rows == expected.rows
    np.testing.assert_array_equal(found.scores[same], expected.scores[same])  # re-scored
    settings = opened.settings
    few, many = (type(settings)(nprobe=nprobe, ef_search=512, rescore=10) for nprobe in (1, 64))
    wide = recall_at(opened.search(rows[:20], 10, many).rows, expected.rows, 10)
    assert wide > 0.98
    if kind == "ivf":
        narrow = opened.search(rows[:20], 60, few)  # random rows: a cell of 51 has fewer than 60
        assert recall_at(narrow.rows, expected.rows, 10) < wide
        assert (narrow.rows == -1).any() and (narrow.scores[narrow.rows == -1] == -np.inf).all()


def test_kinds_and_parameters():
    assert milvus_plan("ivf", 1_000_000, 512, is_lite=False).build == {"nlist": n_cells(1_000_000, 512)}
    assert milvus_plan("ivfpq", 1_000_000, 512, is_lite=False).build == {
        "nlist": n_cells(1_000_000, 512),
        "m": 64,
        "nbits": 8,
    }
    hnsw = milvus_plan("hnsw", 1000, 64, is_lite=True)
    assert search_params("HNSW", hnsw.settings, 10) == {"ef": 128} and search_params("HNSW", hnsw.settings, 400) == {
        "ef": 400
    }
    assert search_params("FLAT", hnsw.settings, 10) == {}
    with pytest.raises(
        UltronError, match="must be one of flat, ivf, ivf-sq8, hnsw, found 'ivfpq', which milvus-lite has not"
    ):
        milvus_plan("ivfpq", 1000, 64, is_lite=True)
    with pytest.raises(UltronError, match=r"found 'sq8', which Milvus has not; did you mean ivf-sq8\?"):
        milvus_plan("sq8", 1000, 64, is_lite=False)
    assert all(kind.rescore for kind in MILVUS_KINDS.values())


def test_batches_do_not_show_and_a_second_run_writes_nothing(descriptors, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("ultron_cli.retrieval.milvus.building.BATCH_BYTES", 300 * DIM * 4)
    monkeypatch.setattr(client, "MESSAGE_BYTES", 3 * DIM * 4)
    assert build(descriptors, tmp_path / "m.index").n_written == N
    queries = unit_rows(5, 7, DIM)
    assert_equal(open_index(tmp_path / "m.index").search(queries, 20), exact_search(queries, rows, 20))
    with pytest.raises(UltronError, match="exists already; replace it with --overwrite"):
        build(descriptors, tmp_path / "m.index")
    assert build(descriptors, tmp_path / "m.index", overwrite=True).n_written == 0
    assert (
        build(descriptors, tmp_path / "second.index").n_written == 0
    )  # the same database beside it, the same contents


KILLED = """
import os, signal, sys
from pathlib import Path
from ultron_cli.retrieval.milvus import building, client
from ultron_cli.retrieval.milvus.building import MilvusRequest, build_milvus_index
building.BATCH_BYTES = 300 * 64 * 4
write, calls = client.Milvus.write, []
def write_then_die(self, *arguments):
    write(self, *arguments)
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
client.Milvus.write = write_then_die
build_milvus_index(Path(sys.argv[1]), Path(sys.argv[2]), "flat", MilvusRequest())
"""


def test_a_killed_load_is_continued(descriptors, rows, tmp_path, monkeypatch):
    out = tmp_path / "m.index"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(descriptors), str(out)], capture_output=True, timeout=100
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not out.exists() and (tmp_path / "milvus.db").is_dir()
    monkeypatch.setattr("ultron_cli.retrieval.milvus.building.BATCH_BYTES", 300 * DIM * 4)
    assert build(descriptors, out).n_written == N - 900
    queries = unit_rows(6, 4, DIM)
    assert_equal(open_index(out).search(queries, 30), exact_search(queries, rows, 30))


def test_rows_lost_in_the_middle_are_written_again(descriptors, rows, tmp_path):
    out = tmp_path / "m.index"
    place = build(descriptors, out).place
    with Milvus(place) as opened:
        opened.load()
        opened.call("delete", place.collection, ids=[5, 700])
        assert opened.count() == N - 2
    with pytest.raises(
        UltronError,
        match=r"must hold 2000 rows, found 1998: it was not loaded to the end; run `ultron index .* --engine milvus",
    ):
        open_index(out)
    build(descriptors, out, overwrite=True)
    assert_equal(open_index(out).search(rows[[5, 700]], 3), exact_search(rows[[5, 700]], rows, 3))


def test_a_collection_of_something_else_is_not_touched(descriptors, rows, tmp_path):
    uri, other = str(tmp_path / "shared.db"), write(tmp_path / "other.h5", unit_rows(7, 50, DIM))
    place = build(other, tmp_path / "o.index", uri=uri, collection="photos").place
    with pytest.raises(
        UltronError,
        match=r"collection photos at .* holds other descriptors or another type; replace it with --overwrite",
    ):
        build(descriptors, tmp_path / "m.index", uri=uri, collection="photos")
    with pytest.raises(
        UltronError, match="holds other descriptors"
    ):  # the index folder may be replaced, the collection not
        build(descriptors, tmp_path / "o.index", uri=uri, collection="photos", overwrite=True)
    with Milvus(place) as opened:
        opened.client.create_collection("theirs", dimension=8)
    with pytest.raises(
        UltronError,
        match=r"collection theirs at .* was not made by ultron and stays as it is; name another with --collection",
    ):
        build(descriptors, tmp_path / "m.index", uri=uri, collection="theirs", replace=True)
    assert open_index(tmp_path / "o.index").n == 50
    build(descriptors, tmp_path / "m.index", uri=uri, collection="photos", replace=True)
    with pytest.raises(UltronError, match=r"collection photos at .* is stale: it was made anew from other descriptors"):
        open_index(tmp_path / "o.index")
    with Milvus(place) as opened:
        opened.drop()
    with pytest.raises(UltronError, match=r"collection photos at .* is gone; run `ultron index"):
        open_index(tmp_path / "m.index")


def test_stale_moved_and_damaged_indexes(descriptors, rows, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    build(descriptors, folder / "m.index")
    shutil.move(folder, tmp_path / "b")  # index and database together
    index = tmp_path / "b" / "m.index"
    opened = open_index(index)
    assert (opened.n, opened.dim, opened.names[:2]) == (N, DIM, ["photo0.jpg", "photo1.jpg"])
    opened.milvus.close()
    description = json.loads((index / "index.json").read_text())
    assert (description["uri"], description["consistency"], description["engine"]) == ("milvus.db", "Strong", "milvus")
    (index / "index.json").write_text(json.dumps(description | {"version": 2}))
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1"):
        open_index(index)
    (index / "index.json").write_text(json.dumps({key: value for key, value in description.items() if key != "record"}))
    with pytest.raises(UltronError, match="lacks a part"):
        open_index(index)
    (index / "index.json").write_text(json.dumps(description))
    shutil.move(tmp_path / "b" / "milvus.db", tmp_path / "gone.db")
    with pytest.raises(UltronError, match=r"the Milvus database .*milvus\.db of index .* is gone; run"):
        open_index(index)
    assert not (tmp_path / "b" / "milvus.db").exists()
    write(descriptors, unit_rows(8, N, DIM))
    with pytest.raises(
        UltronError,
        match=r"is stale: .* has changed since it was built; rebuild it: ultron index .* --engine milvus --uri",
    ):
        open_index(index)


def test_an_unreachable_server_is_tried_a_few_times(descriptors, tmp_path, waits):
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        WorkFailed, match=rf"Milvus at {uri} cannot be reached, tried 6 times .*start it or check --uri"
    ):
        build(descriptors, tmp_path / "m.index", uri=uri, sleep=waits.append)
    assert waits == [0.5, 1, 2, 4, 8]
    assert not (tmp_path / "m.index").exists()


def test_a_server_that_takes_calls_and_never_answers(descriptors, tmp_path, waits, monkeypatch):
    monkeypatch.setattr(client, "CONNECT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(WorkFailed, match="cannot be reached, tried 6 times"),
    ):
        build(descriptors, tmp_path / "m.index", uri=f"http://127.0.0.1:{silent.getsockname()[1]}", sleep=waits.append)
    assert len(waits) == 5


def test_a_server_that_comes_and_goes(descriptors, rows, tmp_path, monkeypatch):
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    port, running, events = free_port(), [], []
    monkeypatch.setattr("ultron_cli.retrieval.milvus.building.BATCH_BYTES", 300 * DIM * 4)

    def start(wait_s: float) -> None:
        events.append(wait_s)
        if len(events) in (3, 5) and not running:
            running.append(start_server_in_thread(str(tmp_path / "server"), port=port))

    def stop() -> None:
        server, database, _ = running.pop()
        server.stop(0).wait()
        database.close()

    write_rows = Milvus.write

    def write_until_it_stops(self, first_row, *rest):
        if first_row == 900 and len(events) == 3:
            stop()
        write_rows(self, first_row, *rest)

    monkeypatch.setattr(Milvus, "write", write_until_it_stops)
    built = build(descriptors, tmp_path / "m.index", uri=f"http://127.0.0.1:{port}", collection="here", sleep=start)
    assert events == [0.5, 1, 2, 0.5, 1]  # away at the start, and again in the middle of the load
    assert built.n_written == N
    opened, queries = open_index(tmp_path / "m.index"), unit_rows(9, 3, DIM)
    assert_equal(opened.search(queries, 15), exact_search(queries, rows, 15))
    opened.milvus.close()
    stop()


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "../x", "é", "x" * 256])
def test_collection_names(name):
    with pytest.raises(UltronError, match="--collection must be up to 255 letters, digits and _"):
        Place(uri="http://h:1", collection=name)


def test_places_and_secrets(monkeypatch):
    for uri, words in (
        ("https://me:secret@h:1", "must hold no user or password"),
        ("ftp://h", "must be http://HOST:PORT"),
        ("http://", "must be http://HOST:PORT"),
        ("milvus", "a file that ends in .db"),
    ):
        with pytest.raises(UltronError, match=words) as caught:
            Place(uri=uri, collection="c")
        assert "secret" not in str(caught.value)
    with pytest.raises(UltronError, match="with MILVUS in its name"):
        Place(uri="http://h:1", collection="c", token_env="HOME")
    place = Place(uri="http://h:1", collection="c", token_env="MILVUS_TOKEN")
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    with pytest.raises(
        UltronError, match="variable MILVUS_TOKEN of --token-env must hold the token of http://h:1, it is not set"
    ):
        place.token()
    monkeypatch.setenv("MILVUS_TOKEN", "root:pass")
    assert place.token() == "root:pass" and "pass" not in repr(place)


def test_a_local_database_that_cannot_be_opened(descriptors, tmp_path):
    from milvus_lite import MilvusLite

    with (
        MilvusLite(str(tmp_path / "milvus.db")),
        pytest.raises(WorkFailed, match=r"did not connect \(does another process use it\? DataDirLockedError"),
    ):
        build(descriptors, tmp_path / "m.index")
    (tmp_path / "old.db").write_bytes(b"SQLite format 3")
    with pytest.raises(UltronError, match="must be a folder of milvus-lite 3 or absent, found a file"):
        build(descriptors, tmp_path / "m.index", uri=str(tmp_path / "old.db"))


def test_more_photos_than_milvus_ranks(descriptors, rows, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(index, "MOST_RANKED", 100)
    monkeypatch.setattr(index.log, "warning", lambda text, *values: said.append(text % values))
    build(descriptors, tmp_path / "m.index")
    opened, queries = open_index(tmp_path / "m.index"), unit_rows(10, 3, DIM)
    assert_equal(opened.search(queries, 95), exact_search(queries, rows, 95))
    assert not said
    assert_equal(opened.search(queries, 101), exact_search(queries, rows, 101))
    assert "ranks at most 100 photos per query, 101 are asked for: searching exactly" in said[0]
    descriptors.unlink()
    alone = open_index(tmp_path / "m.index")
    with pytest.raises(
        UltronError, match=r"Milvus ranks at most 100 photos per query, found 101, and .* is gone; choose a smaller -k"
    ):
        alone.search(queries, 101)
    found = alone.search(queries, 10)  # Milvus's own scores
    np.testing.assert_array_equal(found.rows, exact_search(queries, rows, 10).rows)


def test_bad_input_is_refused(descriptors, tmp_path):
    with pytest.raises(UltronError, match="at least one descriptor"):
        build(write(tmp_path / "empty.h5", np.zeros((0, DIM), np.float32)), tmp_path / "m.index")
    write_descriptors(tmp_path / "long.h5", ["x" * 5000], [unit_rows(1, 1, DIM)], DIM, INFO)
    with pytest.raises(UltronError, match="names of at most 4096 bytes, row 0 has 5000"):
        build(tmp_path / "long.h5", tmp_path / "m.index")
    build(descriptors, tmp_path / "m.index")
    with pytest.raises(UltronError, match="k must be between 1 and the 2000 rows"):
        open_index(tmp_path / "m.index").search(unit_rows(1, 1, DIM), N + 1)


@pytest.mark.parametrize(
    ("module", "words"), [("pymilvus", "Milvus needs pymilvus"), ("milvus_lite", "needs milvus-lite")]
)
def test_without_the_packages_the_error_says_how_to_install_them(descriptors, tmp_path, monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UltronError, match=rf'{words}.*pip install "ultron\[milvus\]"'):
        build(descriptors, tmp_path / "m.index")


def test_imports_stay_where_they_are_used():
    modules = "ultron_cli.retrieval.index.faiss_index, ultron_cli.retrieval.milvus.building"
    code = f"import sys, {modules}; assert not {{'pymilvus', 'torch', 'faiss'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def done(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_index_search_and_evaluate_on_rendered_landmarks(ultron: Run, toy: Path, tmp_path: Path) -> None:
    done(ultron("extract", toy, *MODEL, "--out", tmp_path / "d", "--json", "-q"))
    files = ("--queries", tmp_path / "d" / "queries.h5", "--database", tmp_path / "d" / "database.h5")
    built = done(ultron("index", tmp_path / "d" / "database.h5", "--engine", "milvus", "--json"))
    assert (built["engine"], built["type"], built["n_written"]) == ("milvus", "flat", built["n"])
    flat = done(ultron("index", tmp_path / "d" / "database.h5", "--json"))
    rankings = {}
    for name, flags in (("milvus", ("--index", built["index"])), ("faiss", ("--index", flat["index"])), ("exact", ())):
        done(ultron("search", *files, *flags, "-k", 8, "--out", tmp_path / f"{name}.h5", "--json"))
        rankings[name] = read_ranks(tmp_path / f"{name}.h5")
    assert_equal(rankings["milvus"], rankings["exact"])
    np.testing.assert_array_equal(rankings["milvus"].rows, rankings["faiss"].rows)
    assert rankings["milvus"].database_names == rankings["faiss"].database_names
    steps = ("--rerank", "aqe,superglobal,diffusion")
    by_milvus, exactly = (
        done(ultron("evaluate", *files, *flags, *steps, "--json")) for flags in (("--index", built["index"]), ())
    )
    assert by_milvus["protocols"] == exactly["protocols"]
    assert done(ultron("evaluate", "--ranks", tmp_path / "milvus.h5", "--json"))["n_queries"] == 4
    done(ultron("whiten", tmp_path / "d" / "database.h5", "--dim", 8, "--out", tmp_path / "w.h5", "--json"))
    white = done(
        ultron(
            "index",
            tmp_path / "d" / "database.h5",
            "--engine",
            "milvus",
            "--whiten",
            tmp_path / "w.h5",
            "--out",
            tmp_path / "w.index",
            "--json",
        )
    )
    assert white["dim"] == 8
    by_milvus, exactly = (
        done(ultron("evaluate", *files, *flags, "--json"))
        for flags in (("--index", white["index"]), ("--whiten", tmp_path / "w.h5"))
    )
    assert by_milvus["protocols"] == exactly["protocols"]


def test_flags_that_do_not_fit_get_one_line(ultron: Run, descriptors: Path) -> None:
    expect_error(
        ultron("index", descriptors, "--engine", "milvs"),
        "--engine must be one of faiss, milvus",
        "did you mean milvus?",
    )
    expect_error(ultron("index", descriptors, "--uri", "x.db"), "--uri belongs to Milvus; add --engine milvus")
    expect_error(ultron("index", descriptors, "--engine", "milvus", "--report"), "--report measures Faiss indexes")
    expect_error(
        ultron("index", descriptors, "--engine", "milvus", "--type", "opq-ivfpq"),
        "--type with --engine milvus must be one of flat",
    )
    expect_error(
        ultron("index", descriptors, "--engine", "milvus", "--collection", "a-b"), "--collection must be up to 255"
    )
