"""Shared by the tests of Milvus: descriptors, and no database left open."""

import sys

import pytest

from tests.retrieval.milvus.builds_for_tests import DIM, N, write
from tests.retrieval.rows_for_tests import unit_rows


@pytest.fixture(autouse=True)
def databases_closed():
    # Where Milvus is absent, the tests that need it are skipped by their files.
    yield
    if "milvus_lite" in sys.modules:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_all()


@pytest.fixture(scope="module")
def rows():
    return unit_rows(1, N, DIM)


@pytest.fixture
def descriptors(tmp_path, rows):
    return write(tmp_path / "database.h5", rows)


@pytest.fixture
def waits():
    return []
