"""Loading descriptors into Milvus: in batches, continued after a kill, nothing of others touched."""

import numpy as np
import pytest

from tests.prepared_python import run_python
from tests.retrieval.milvus.builds_for_tests import DIM, N, build, write
from tests.retrieval.rows_for_tests import INFO, assert_equal, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.milvus import client
from ultron_cli.retrieval.milvus.client import Milvus

pytestmark = pytest.mark.slow

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_batches_do_not_show_and_a_second_run_writes_nothing(descriptors, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("ultron_cli.retrieval.milvus.building.BATCH_BYTES", 300 * DIM * 4)
    monkeypatch.setattr(client, "MESSAGE_BYTES", 3 * DIM * 4)
    assert build(descriptors, tmp_path / "m.index").n_written == N
    queries = unit_rows(5, 7, DIM)
    assert_equal(open_index(tmp_path / "m.index").search(queries, 20), exact_search(queries, rows, 20))
    with pytest.raises(UltronError, match="exists already; replace it with `overwrite`"):
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
    killed = run_python(["-c", KILLED, descriptors, out])
    assert killed.returncode == -9, killed.stderr
    assert not out.exists() and (tmp_path / "milvus.db").is_dir()
    monkeypatch.setattr("ultron_cli.retrieval.milvus.building.BATCH_BYTES", 300 * DIM * 4)
    assert build(descriptors, out).n_written == N - 900
    queries = unit_rows(6, 4, DIM)
    assert_equal(open_index(out).search(queries, 30), exact_search(queries, rows, 30))


def test_rows_lost_in_the_middle_are_written_again(descriptors, rows, tmp_path):
    out = tmp_path / "m.index"
    place = build(descriptors, out).place
    with Milvus(place) as connection:
        connection.load()
        connection.call("delete", place.collection, ids=[5, 700])
        assert connection.count() == N - 2
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
        match=r"collection photos at .* holds other descriptors or another type; replace it with `overwrite`",
    ):
        build(descriptors, tmp_path / "m.index", uri=uri, collection="photos")
    with pytest.raises(
        UltronError, match="holds other descriptors"
    ):  # the index folder may be replaced, the collection not
        build(descriptors, tmp_path / "o.index", uri=uri, collection="photos", overwrite=True)
    with Milvus(place) as connection:
        connection.client.create_collection("theirs", dimension=8)
    with pytest.raises(
        UltronError,
        match=r"collection theirs at .* was not made by ultron and stays as it is; name another with `collection`",
    ):
        build(descriptors, tmp_path / "m.index", uri=uri, collection="theirs", replace=True)
    assert open_index(tmp_path / "o.index").n == 50
    build(descriptors, tmp_path / "m.index", uri=uri, collection="photos", replace=True)
    with pytest.raises(UltronError, match=r"collection photos at .* is stale: it was made anew from other descriptors"):
        open_index(tmp_path / "o.index")
    with Milvus(place) as connection:
        connection.drop()
    with pytest.raises(UltronError, match=r"collection photos at .* is gone; run `ultron index"):
        open_index(tmp_path / "m.index")


def test_bad_input_is_refused(descriptors, tmp_path):
    with pytest.raises(UltronError, match="at least one descriptor"):
        build(write(tmp_path / "empty.h5", np.zeros((0, DIM), np.float32)), tmp_path / "m.index")
    write_descriptors(tmp_path / "long.h5", ["x" * 5000], [unit_rows(1, 1, DIM)], DIM, INFO)
    with pytest.raises(UltronError, match="names of at most 4096 bytes, row 0 has 5000"):
        build(tmp_path / "long.h5", tmp_path / "m.index")
    build(descriptors, tmp_path / "m.index")
    with pytest.raises(UltronError, match="k must be between 1 and the 2000 rows"):
        open_index(tmp_path / "m.index").search(unit_rows(1, 1, DIM), N + 1)
