"""Milvus servers that stay away, come and go, or cannot be had, and packages that are absent."""

import socket
import subprocess
import sys

import pytest

from tests.conftest import free_port
from tests.retrieval.milvus.builds_for_tests import DIM, N, build
from tests.retrieval.rows_for_tests import assert_equal, unit_rows
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.milvus import client
from ultron_cli.retrieval.milvus.client import Milvus

pytestmark = pytest.mark.slow

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_an_unreachable_server_is_tried_a_few_times(descriptors, tmp_path, waits):
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        WorkFailed, match=rf"Milvus at {uri} cannot be reached, tried 6 times .*start it, then .*check `uri`"
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
    index, queries = open_index(tmp_path / "m.index"), unit_rows(9, 3, DIM)
    assert_equal(index.search(queries, 15), exact_search(queries, rows, 15))
    index.milvus.close()
    stop()


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
