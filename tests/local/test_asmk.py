"""ASMK against the package's own pipeline, and against the equations, photo by photo."""

import sys

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.local import asmk
from ultron_cli.local.asmk import Asmk, AsmkSettings, PhotoVectors, learn_words, number_of_words, unit_rows

pytest.importorskip("asmk", reason="asmk is not installed")
DIM, N_WORDS = 40, 6


def drawn(seed: int, counts: tuple[int, ...]) -> list[np.ndarray]:
    """uint8 descriptors of photos."""
    draws = np.random.default_rng(seed)
    return [draws.integers(0, 120, (n, DIM)).astype(np.uint8) for n in counts]


PHOTOS = drawn(0, (30, 0, 7, 55, 1))
QUERIES = drawn(1, (12, 3))
WORDS = learn_words(np.concatenate([unit_rows(photo) for photo in PHOTOS]), N_WORDS)


def scores_of(settings: AsmkSettings) -> np.ndarray:
    search = Asmk(WORDS, settings)
    search.fill(search.vectors_of(enumerate(PHOTOS)), len(PHOTOS))
    return np.stack([search.scores(query) for query in QUERIES])


def literal_scores(settings: AsmkSettings) -> np.ndarray:
    """Equations of Tolias et al., IJCV 2016, by loops."""

    def vectors(descriptors: np.ndarray, n_assigned: int) -> dict[int, np.ndarray]:
        sums: dict[int, np.ndarray] = {}
        for row in unit_rows(descriptors).astype(np.float64):
            nearest = np.argsort(((WORDS - row) ** 2).sum(axis=1))[:n_assigned]
            for word in nearest.tolist():
                sums[word] = sums.get(word, 0) + row - WORDS[word]
        return sums

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        if settings.binary:
            # The package fills up to whole numbers of 32 bits, which agree.
            n_bits = 32 * -(-DIM // 32)
            value = 1 - 2 * ((a > 0) != (b > 0)).sum() / n_bits
        else:
            value = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return value**settings.alpha if value >= settings.threshold else 0.0

    scores = np.zeros((len(QUERIES), len(PHOTOS)))
    for i, query in enumerate(QUERIES):
        of_query = vectors(query, settings.assigned)
        for j, photo in enumerate(PHOTOS):
            of_photo = vectors(photo, 1)
            total = sum(similarity(of_query[word], of_photo[word]) for word in of_query.keys() & of_photo.keys())
            scores[i, j] = total / np.sqrt(len(of_query) * max(1, len(of_photo)))
    return scores


@pytest.mark.parametrize(
    "settings",
    [
        AsmkSettings(),
        AsmkSettings(binary=False),
        AsmkSettings(binary=False, alpha=2.0, threshold=0.2, assigned=1),
        AsmkSettings(alpha=1.0, threshold=-1.0, assigned=3),
    ],
)
def test_scores_are_those_of_the_package_and_of_the_equations(settings: AsmkSettings) -> None:
    from asmk.asmk_method import ASMKMethod

    scores = scores_of(settings)
    np.testing.assert_allclose(scores, literal_scores(settings), atol=2e-6)
    steps = {
        "index": {"gpu_id": None},
        "train_codebook": {"codebook": {"size": N_WORDS}},
        "build_ivf": {
            "kernel": {"binary": settings.binary},
            "ivf": {"use_idf": False},
            "quantize": {"multiple_assignment": 1},
            "aggregate": {},
        },
        "query_ivf": {
            "quantize": {"multiple_assignment": settings.assigned},
            "aggregate": {},
            "search": {"topk": len(PHOTOS)},
            "similarity": {"similarity_threshold": settings.threshold, "alpha": settings.alpha},
        },
    }
    features = np.concatenate([unit_rows(photo) for photo in PHOTOS])
    numbers = np.repeat(np.arange(len(PHOTOS)), [len(photo) for photo in PHOTOS])
    theirs = ASMKMethod.initialize_untrained(steps).train_codebook(features).build_ivf(features, numbers)
    queries = np.concatenate([unit_rows(query) for query in QUERIES])
    of_queries = np.repeat(np.arange(len(QUERIES)), [len(query) for query in QUERIES])
    _, _, photos, falling = theirs.query_ivf(queries, of_queries)
    for ours, rows, values in zip(scores, photos, falling, strict=True):
        np.testing.assert_array_equal(ours[rows], values)


def test_photos_and_queries_without_features_count_nothing() -> None:
    scores = scores_of(AsmkSettings())
    assert (scores[:, 1] == 0).all() and (scores[:, [0, 2, 3]] > 0).all()
    search = Asmk(WORDS, AsmkSettings())
    with pytest.raises(UltronError, match="no photo of the database has local features"):
        search.vectors_of([(0, PHOTOS[1])])
    search.fill(PhotoVectors(*(np.array(part) for part in ([[3, 0]], [2], [1]))), 3)
    assert search.scores(PHOTOS[1]).tolist() == [0, 0, 0]
    assert unit_rows(np.zeros((1, 4), np.uint8)).tolist() == [[0, 0, 0, 0]]


def test_words_are_as_many_as_features_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [number_of_words(n) for n in (1, 400, 10**9)] == [1, 10, 65536]
    assert number_of_words(10, 10) == 10
    with pytest.raises(UltronError, match="visual words are centres of local features: found 11 words for 10"):
        number_of_words(10, 11)
    monkeypatch.setitem(sys.modules, "asmk", None)
    with pytest.raises(UltronError, match=r'asmk, which cannot be imported .*: pip install "ultron\[asmk\]"'):
        asmk.asmk_package()
