"""Whitening against literal NumPy forms, its file, and descriptors read through it."""

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.console import start_log
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.whitening import (
    WhitenedFile,
    chosen_whitening,
    open_descriptors,
    read_whitening,
    require_same_whitening,
    stored_whitening,
    write_whitening,
)
from ultron_cli.retrieval.whitening_learning import (
    learn_whitening,
    matching_pairs,
    pairs_of_ground_truth,
    pairs_of_labels,
    whitening_method,
)

N, DIM = 300, 12


def literal_pca(x: np.ndarray, whiten: bool) -> tuple[np.ndarray, np.ndarray]:
    """cirtorch's pcawhitenlearn, columns as rows. x: (N, D) float64."""
    m = x.mean(axis=0)
    covariance = (x - m).T @ (x - m) / len(x)
    values, vectors = np.linalg.eig(covariance)
    order = values.argsort()[::-1]
    projection = vectors[:, order].T
    return m, np.diag(1 / np.sqrt(values[order])) @ projection if whiten else projection


def literal_lw(x: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cirtorch's whitenlearn. x: (N, D) float64."""
    columns, qidxs, pidxs = x.T, pairs[:, 0], pairs[:, 1]
    m = columns[:, qidxs].mean(axis=1, keepdims=True)
    df = columns[:, qidxs] - columns[:, pidxs]
    covariance = np.dot(df, df.T) / df.shape[1]
    p = np.linalg.inv(np.linalg.cholesky(covariance))
    df = np.dot(p, columns - m)
    values, vectors = np.linalg.eig(np.dot(df, df.T))
    return m[:, 0], np.dot(vectors[:, values.argsort()[::-1]].T, p)


def literal_apply(x: np.ndarray, m: np.ndarray, p: np.ndarray, dim: int) -> np.ndarray:
    y = (x - m) @ p[:dim].T
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def assert_same_up_to_signs(output: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.abs(output), np.abs(expected), atol=2e-5)
    np.testing.assert_allclose(output @ output.T, expected @ expected.T, atol=2e-5)


@pytest.fixture
def rows():
    skewed = unit_rows(1, N, DIM) * np.linspace(1, 3, DIM, dtype=np.float32) + 0.3
    return (skewed / np.linalg.norm(skewed, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def path(tmp_path, rows):
    write_descriptors(tmp_path / "d.h5", [f"place{i % 20}/photo{i}.jpg" for i in range(N)], [rows], DIM, INFO)
    return tmp_path / "d.h5"


@pytest.mark.parametrize("method", ["pca", "pca-whitening"])
@pytest.mark.parametrize("dim", [None, 5])
def test_pca_equals_the_literal_form_whatever_the_blocks(path, rows, method, dim, monkeypatch):
    learned = learn_whitening(path, method, dim=dim)
    mean, projection = literal_pca(rows.astype(np.float64), method == "pca-whitening")
    np.testing.assert_allclose(learned.mean, mean, atol=1e-9)
    assert learned.dim == (dim or DIM)
    assert (np.diff(learned.eigenvalues) <= 0).all()
    assert_same_up_to_signs(learned.apply(rows), literal_apply(rows, mean, projection, dim or DIM))
    monkeypatch.setattr("ultron_cli.retrieval.whitening_learning.BLOCK_ROWS", 17)
    np.testing.assert_allclose(learn_whitening(path, method, dim=dim).projection, learned.projection, atol=1e-7)


def test_lw_equals_cirtorch(path, rows, monkeypatch):
    pairs = pairs_of_labels(None, [f"place{i % 20}/photo{i}.jpg" for i in range(N)], 100_000, 0)
    learned = learn_whitening(path, "lw", pairs=pairs)
    mean, projection = literal_lw(rows.astype(np.float64), pairs)
    np.testing.assert_allclose(learned.mean, mean, atol=1e-9)
    assert_same_up_to_signs(learned.apply(rows), literal_apply(rows, mean, projection, DIM))
    assert_same_up_to_signs(learned.reduced(4).apply(rows), literal_apply(rows, mean, projection, 4))
    monkeypatch.setattr("ultron_cli.retrieval.whitening_learning.BLOCK_ROWS", 17)
    np.testing.assert_allclose(learn_whitening(path, "lw", pairs=pairs).projection, learned.projection, atol=1e-6)


def test_few_rows_or_pairs_determine_few_dimensions(tmp_path):
    write_descriptors(tmp_path / "few.h5", [str(i) for i in range(5)], [unit_rows(2, 5, DIM)], DIM, INFO)
    assert learn_whitening(tmp_path / "few.h5", "pca-whitening").dim == 4
    with pytest.raises(
        UltronError, match=r"`dim` must be between 1 and 4, all that 5 descriptors in .* determine; found 5"
    ):
        learn_whitening(tmp_path / "few.h5", "pca-whitening", dim=5)
    assert (
        learn_whitening(tmp_path / "few.h5", "lw", pairs=np.array([[0, 1], [2, 3]])).dim >= 1
    )  # regularised, as cirtorch does
    write_descriptors(tmp_path / "equal.h5", ["a", "b"], [np.repeat(unit_rows(3, 1, DIM), 2, axis=0)], DIM, INFO)
    with pytest.raises(UltronError, match="found all equal"):
        learn_whitening(tmp_path / "equal.h5", "pca")
    write_descriptors(tmp_path / "one.h5", ["a"], [unit_rows(3, 1, DIM)], DIM, INFO)
    with pytest.raises(UltronError, match="at least 2 descriptors"):
        learn_whitening(tmp_path / "one.h5", "pca")


def test_pairs_are_within_groups_each_once_and_bounded():
    groups = [list(range(0, 6)), [7], list(range(10, 50)), [60, 60]]
    every = matching_pairs(groups, 10_000, 0, "none")
    assert len(every) == 15 + 780
    limited = matching_pairs(groups, 100, 0, "none")
    assert len(limited) == 15 + 50
    for pairs in (every, limited):
        assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
        assert all(any(a in group and b in group for group in groups) for a, b in pairs.tolist())
    np.testing.assert_array_equal(limited, matching_pairs(groups, 100, 0, "none"))
    assert not np.array_equal(limited, matching_pairs(groups, 100, 1, "none"))
    with pytest.raises(UltronError, match="none; name others with `gnd` or `labels`"):
        matching_pairs([[1], []], 10, 0, "none")


def test_pairs_of_a_table_and_of_a_ground_truth(tmp_path):
    (tmp_path / "labels.csv").write_text("photo,landmark\na.jpg,x\nb.jpg,y\nc.jpg,x\nd.jpg,\ne.jpg,\n")
    assert pairs_of_labels(tmp_path / "labels.csv", ["c", "b.jpg", "a.jpg", "d", "e"], 100, 0).tolist() == [[0, 2]]
    (tmp_path / "gnd_t.json").write_text(
        '{"imlist": ["a", "b", "c", "d"], "qimlist": ["q"], "gnd": [{"easy": [0], "hard": [3, 2], "junk": [1]}]}'
    )
    assert pairs_of_ground_truth(tmp_path / "gnd_t.json", ["d", "a", "b"], 100, 0).tolist() == [[0, 1]]


def test_a_file_keeps_the_whitening_and_its_origin(path, tmp_path):
    learned = learn_whitening(path, "pca-whitening")
    write_whitening(tmp_path / "w.h5", learned)
    whitening = read_whitening(tmp_path / "w.h5", 5)
    np.testing.assert_array_equal(whitening.projection, learned.projection[:5])
    assert (whitening.method, whitening.dim, len(whitening.sha256)) == ("pca-whitening", 5, 64)
    assert whitening.provenance["descriptors"] == str(path)
    assert (whitening.provenance["n"], whitening.provenance["model"]) == (N, "m")
    with pytest.raises(UltronError, match=r"`dim` must be between 1 and the 12 dimensions of .*w\.h5; found 13"):
        read_whitening(tmp_path / "w.h5", 13)
    with pytest.raises(UltronError, match="is not a whitening file"):
        read_whitening(path)
    with h5py.File(tmp_path / "w.h5", "r+") as handle:
        handle["mean"][0] = np.nan
    with pytest.raises(UltronError, match="must be finite and fit"):
        read_whitening(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as handle:
        del handle["mean"]
    with pytest.raises(UltronError, match="lacks a part of a whitening file"):
        read_whitening(tmp_path / "w.h5")


def test_descriptors_are_whitened_as_they_are_read_and_say_so(path, rows, tmp_path):
    write_whitening(tmp_path / "w.h5", learn_whitening(path, "pca-whitening"))
    whitening = chosen_whitening(tmp_path / "w.h5", 6)
    expected = whitening.apply(rows)
    with open_descriptors(path, whitening) as file:
        assert (file.n, file.dim) == (N, 6)
        np.testing.assert_allclose(file.read(), expected, atol=1e-6)
        np.testing.assert_allclose(file.read(7, 9), expected[7:9], atol=1e-6)
        np.testing.assert_allclose(file.take(np.array([5, 2, 5])), expected[[5, 2, 5]], atol=1e-6)
        info = file.info
    assert info.extraction.stored["whitening"] == {"method": "pca-whitening", "dim": 6, "sha256": whitening.sha256}
    assert stored_whitening(info, None).record() == info.extraction.whitening == whitening.record()
    assert stored_whitening(INFO, None) is None
    gone = dataclasses.replace(info.provenance, whitening=str(tmp_path / "gone.h5"))
    with pytest.raises(UltronError, match=r"which is gone; .* give it with `whiten`"):
        stored_whitening(dataclasses.replace(info, provenance=gone), None)
    with pytest.raises(UltronError, match=r"must be whitened alike; found pca-whitening to 6-d and no whitening"):
        require_same_whitening(info.extraction, INFO.extraction, "a and b")
    whitened = dataclasses.replace(INFO, extraction=info.extraction)
    write_descriptors(tmp_path / "white.h5", [str(i) for i in range(N)], [expected], 6, whitened)
    for action in (
        lambda: WhitenedFile(tmp_path / "white.h5", whitening),
        lambda: learn_whitening(tmp_path / "white.h5", "pca"),
    ):
        with pytest.raises(UltronError, match="is whitened already"):
            action()
    write_descriptors(tmp_path / "other.h5", ["a"], [unit_rows(5, 1, 8)], 8, INFO)
    with pytest.raises(UltronError, match=r"whitens 12-d descriptors, .* has 8-d; learn one from these: ultron whiten"):
        WhitenedFile(tmp_path / "other.h5", whitening)
    with pytest.raises(UltronError, match="`dim` cuts the dimensions of a whitening; name one with `whiten`"):
        chosen_whitening(None, 6)
    with DescriptorFile(path) as raw:
        assert "whitening" not in raw.info.extraction.stored


def test_a_whitening_whose_source_has_changed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_log(0)
    write_descriptors(tmp_path / "d.h5", [str(i) for i in range(20)], [unit_rows(1, 20, DIM)], DIM, INFO)
    write_whitening(tmp_path / "w.h5", learn_whitening(tmp_path / "d.h5", "pca"))
    os.utime(tmp_path / "d.h5", ns=(1, 1))
    read_whitening(tmp_path / "w.h5")
    assert capsys.readouterr().err == ""
    write_descriptors(tmp_path / "d.h5", [str(i) for i in range(20)], [unit_rows(2, 20, DIM)], DIM, INFO)
    read_whitening(tmp_path / "w.h5")
    message = (
        f"warning: {tmp_path / 'w.h5'} was learned from {tmp_path / 'd.h5'}, which has changed since; learn it again"
    )
    assert message in capsys.readouterr().err
    (tmp_path / "d.h5").unlink()
    read_whitening(tmp_path / "w.h5")
    assert capsys.readouterr().err == ""


def test_a_file_without_rows_is_not_searched(tmp_path):
    write_descriptors(tmp_path / "empty.h5", [], [], 8, INFO)
    with DescriptorFile(tmp_path / "empty.h5") as part:  # parts of an extraction may be empty
        assert (part.n, part.dim, part.names) == (0, 8, [])
    with pytest.raises(UltronError, match=r"empty\.h5 must hold at least one descriptor"):
        open_descriptors(tmp_path / "empty.h5")


OWN = """
import numpy as np


class pca: ...


class NoCall: ...


class Plain:
    needs_pairs = True

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, descriptors, pairs):
        mean = sum(rows.sum(0, dtype=np.float64) for _, rows in descriptors.blocks(7)) / descriptors.n
        return mean + len(pairs), self.scale * np.eye(descriptors.dim)


class Rows:
    def __call__(self, descriptors, pairs):
        return descriptors.read(0, 3)


class Endless:
    def __call__(self, descriptors, pairs):
        return np.zeros(descriptors.dim), np.full((2, descriptors.dim), np.inf)
"""


def test_a_whitening_of_a_persons_own(path, rows, tmp_path):
    code = tmp_path / "own.py"
    code.write_text(OWN)
    settings = {"scale": "2"}
    assert whitening_method(f"{code}:Plain").needs_pairs
    learned = learn_whitening(path, f"{code}:Plain", pairs=np.zeros((3, 2), np.int64), dim=4, settings=settings)
    write_whitening(tmp_path / "w.h5", learned)
    stored = read_whitening(tmp_path / "w.h5")
    np.testing.assert_allclose(stored.mean, rows.astype(np.float64).mean(0) + 3)
    np.testing.assert_array_equal(stored.projection, 2 * np.eye(DIM)[:4])
    assert stored.method == f"{code}:Plain" and stored.provenance["settings"] == settings
    assert len(str(stored.provenance["code_sha256"])) == 64
    for name, line, words in (
        ("pca", 5, "pca is the name of a whitening of ultron; give it another name"),
        ("NoCall", 8, "NoCall needs the method __call__(descriptors, pairs), see UserWhitening of ultron_cli."),
        ("Rows", 23, f"Rows must give a mean ({DIM},) and a projection (D', {DIM}) of finite numbers; found ndarray"),
        ("Endless", 28, f"Endless must give a mean ({DIM},) and a projection (D', {DIM}) of finite numbers; found (("),
    ):
        with pytest.raises(UltronError) as error:
            learn_whitening(path, f"{code}:{name}")
        assert str(error.value).startswith(f"{code}, line {line}: {words}")
    with pytest.raises(UltronError, match=r"line 14: Plain: unknown setting scal; did you mean scale\?"):
        learn_whitening(path, f"{code}:Plain", settings={"scal": 1})
    with pytest.raises(UltronError, match="settings are of a method by import path, found method pca; leave out `set`"):
        learn_whitening(path, "pca", settings=settings)
