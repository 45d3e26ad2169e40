"""Milvus on the command line."""

from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_bad_input import MODEL, expect_error
from tests.conftest import Run, read_json
from tests.retrieval.rows_for_tests import assert_equal
from ultron_cli.retrieval.rankings import read_ranks

pytestmark = pytest.mark.slow

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_index_search_and_evaluate_on_rendered_landmarks(ultron: Run, toy: Path, tmp_path: Path) -> None:
    read_json(ultron("extract", toy, *MODEL, "--out", tmp_path / "d", "--json", "-q"))
    files = ("--queries", tmp_path / "d" / "queries.h5", "--database", tmp_path / "d" / "database.h5")
    built = read_json(ultron("index", tmp_path / "d" / "database.h5", "--engine", "milvus", "--json"))
    assert (built["engine"], built["type"], built["n_written"]) == ("milvus", "flat", built["n"])
    flat = read_json(ultron("index", tmp_path / "d" / "database.h5", "--json"))
    rankings = {}
    for name, flags in (("milvus", ("--index", built["index"])), ("faiss", ("--index", flat["index"])), ("exact", ())):
        read_json(ultron("search", *files, *flags, "-k", 8, "--out", tmp_path / f"{name}.h5", "--json"))
        rankings[name] = read_ranks(tmp_path / f"{name}.h5")
    assert_equal(rankings["milvus"], rankings["exact"])
    np.testing.assert_array_equal(rankings["milvus"].rows, rankings["faiss"].rows)
    assert rankings["milvus"].database_names == rankings["faiss"].database_names
    steps = ("--rerank", "aqe,superglobal,diffusion")
    by_milvus, exactly = (
        read_json(ultron("evaluate", *files, *flags, *steps, "--json")) for flags in (("--index", built["index"]), ())
    )
    assert by_milvus["protocols"] == exactly["protocols"]
    assert read_json(ultron("evaluate", "--ranks", tmp_path / "milvus.h5", "--json"))["n_queries"] == 4
    read_json(ultron("whiten", tmp_path / "d" / "database.h5", "--dim", 8, "--out", tmp_path / "w.h5", "--json"))
    white = read_json(
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
        read_json(ultron("evaluate", *files, *flags, "--json"))
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
