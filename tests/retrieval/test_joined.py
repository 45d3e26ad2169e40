"""A database with distractors is one database, read in any part and order."""

import dataclasses

import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.origin import ExtractionRecord

DIM = 8


@pytest.fixture
def parts(tmp_path):
    written = []
    for i, n in enumerate((40, 7, 100)):
        rows, path = unit_rows(i, n, DIM), tmp_path / f"part{i}.h5"
        write_descriptors(path, [f"photo{j}" for j in range(n)], [rows], DIM, INFO)
        written.append((path, rows))
    return written


def test_equals_the_rows_in_a_row(parts):
    every = np.concatenate([rows for _, rows in parts])
    with JoinedFiles(parts[0][0], [path for path, _ in parts[1:]]) as joined:
        assert (joined.n, joined.dim) == (147, DIM)
        assert joined.names[39:42] == ["photo39", "distractor:photo0", "distractor:photo1"]
        for start, stop in ((0, None), (0, 40), (39, 48), (47, 147), (41, 41)):
            np.testing.assert_array_equal(joined.read(start, stop), every[start:stop])
        places = np.array([146, 0, 41, 39, 0, 47])
        np.testing.assert_array_equal(joined.take(places), every[places])
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in joined.blocks(13)]), every)
        queries = unit_rows(9, 3, DIM)
        ranking, expected = exact_search(queries, joined, 147), exact_search(queries, every, 147)
        np.testing.assert_array_equal(ranking.rows, expected.rows)
        np.testing.assert_array_equal(ranking.scores, expected.scores)
        assert [part.n for part in joined.distractors] == [7, 100]


def test_files_of_float16_and_float32_are_searched_together(tmp_path):
    rows, paths = [], [tmp_path / "halves.h5", tmp_path / "whole.h5"]
    for i, (path, storage) in enumerate(zip(paths, ("float16", "float32"), strict=True)):
        rows.append(unit_rows(i, 60, DIM).astype(storage))
        info = dataclasses.replace(INFO, extraction=ExtractionRecord(stored={"storage": storage}))
        write_descriptors(path, [str(row) for row in range(60)], [rows[-1]], DIM, info)
    every, queries = np.concatenate([part.astype(np.float32) for part in rows]), unit_rows(9, 3, DIM)
    expected = exact_search(queries, every, 20)
    with JoinedFiles(paths[0], paths[1:]) as joined:
        for max_memory_mib in (0.1, 768):
            ranking = exact_search(queries, joined, 20, max_memory_mib=max_memory_mib)
            np.testing.assert_array_equal(ranking.rows, expected.rows)
            np.testing.assert_array_equal(ranking.scores, expected.scores)


@pytest.mark.parametrize(
    ("change", "dim", "words"),
    [
        ({}, 9, "holds 9-d descriptors"),
        ({"weights_sha256": "other"}, DIM, "were made by different models"),
        ({"scales": [1.0, 2.0]}, DIM, "were extracted differently: scales .*extract the distractors as the database"),
        ({"whitening": {"method": "pca", "dim": DIM, "sha256": "x"}}, DIM, "must be whitened alike"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(parts, tmp_path, change, dim, words):
    info = dataclasses.replace(INFO, extraction=ExtractionRecord(stored={**INFO.extraction.stored, **change}))
    write_descriptors(tmp_path / "other.h5", ["a"], [unit_rows(5, 1, dim)], dim, info)
    with pytest.raises(UltronError, match=words):
        JoinedFiles(parts[0][0], [parts[1][0], tmp_path / "other.h5"])
