"""Matches against a literal, slow version: every kind of descriptor, ties, few and no features."""

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.local.matching import Comparable, mutual_matches


def literal_matches(query: np.ndarray, photo: np.ndarray, ratio: float, *, is_binary: bool) -> list[tuple[int, int]]:
    """The definition, one pair of features after the other, in whole numbers where they are whole."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        if is_binary:
            return sum(int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True))
        kind = int if a.dtype == np.uint8 else float
        return sum((kind(x) - kind(y)) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))

    table = [[distance(a, b) for b in photo] for a in query]
    factor = ratio if is_binary else ratio * ratio
    pairs = []
    for i, row in enumerate(table):
        if len(row) < 2:
            continue
        j = min(range(len(row)), key=lambda column: row[column])
        next_nearest = min(row[column] for column in range(len(row)) if column != j)
        back = min(range(len(table)), key=lambda other: table[other][j])
        if back == i and row[j] < np.float32(factor) * next_nearest:
            pairs.append((i, j))
    return pairs


def drawn(kind: str, n: int, dim: int, seed: int, near: np.ndarray | None = None) -> np.ndarray:
    """Descriptors of which half lie close to rows of `near`."""
    draws = np.random.default_rng(seed)
    if kind in ("uint8", "binary"):
        rows = draws.integers(0, 256, (n, dim)).astype(np.uint8)
    else:
        rows = draws.standard_normal((n, dim)).astype(kind)
    if near is not None and len(near):
        for i in range(0, n, 2):
            rows[i] = near[i % len(near)]
            rows[i, : dim // 4] = draws.permutation(rows[i, : dim // 4])
    return rows


@pytest.fixture(params=["auto", "off"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled library, where it is there, and without."""
    monkeypatch.setenv("ULTRON_KERNELS", request.param)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "binary"])
@pytest.mark.parametrize(("n_query", "n_photo"), [(40, 60), (1, 2), (7, 1), (0, 5), (5, 0), (33, 33)])
@pytest.mark.parametrize("ratio", [0.85, 1.0])
def test_matches_are_those_of_the_definition(kind: str, n_query: int, n_photo: int, ratio: float) -> None:
    dim = 32 if kind == "binary" else 64
    query = drawn(kind, n_query, dim, 1)
    photo = drawn(kind, n_photo, dim, 2, near=query)
    is_binary = kind == "binary"
    matches = mutual_matches(
        Comparable.of(query, is_binary=is_binary), Comparable.of(photo, is_binary=is_binary), ratio
    )
    assert matches.tolist() == [list(pair) for pair in literal_matches(query, photo, ratio, is_binary=is_binary)]
    assert matches.dtype == np.int64
    assert n_query < 20 or len(matches) > 4


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dim", [128, 129, 1024])
def test_descriptors_of_the_largest_numbers_are_compared_exactly(dim: int) -> None:
    """128 values of 255: every sum stays below 2^23, where float32 holds halves."""
    query = np.full((3, dim), 255, np.uint8)
    query[1, 0], query[2, :2] = 254, 253
    photo = np.full((3, dim), 255, np.uint8)
    photo[0, 0], photo[1, :2] = 254, 252
    expected = literal_matches(query, photo, 0.999, is_binary=False)
    assert mutual_matches(Comparable.of(query), Comparable.of(photo), 0.999).tolist() == [list(p) for p in expected]
    assert len(expected) >= 2


def test_two_types_of_one_length_are_compared() -> None:
    query, photo = drawn("uint8", 30, 64, 5), drawn("uint8", 30, 64, 6)
    photo[:20] = query[5:25]
    matches = mutual_matches(Comparable.of(query), Comparable.of(photo.astype(np.float32)), 0.85)
    assert matches.tolist() == [[row + 5, row] for row in range(20)]


def test_equal_descriptors_match_no_one() -> None:
    """Windows that are alike: the nearest is no nearer than the next."""
    query = np.repeat(drawn("uint8", 4, 128, 3), 3, axis=0)
    assert len(mutual_matches(Comparable.of(query), Comparable.of(query), 0.85)) == 0


def test_descriptors_of_different_kinds() -> None:
    bits = Comparable.of(drawn("binary", 4, 16, 1), is_binary=True)
    values = Comparable.of(drawn("uint8", 4, 128, 1))
    with pytest.raises(UltronError, match="of one kind; found 128 bits and 128 values"):
        mutual_matches(bits, values, 0.85)
