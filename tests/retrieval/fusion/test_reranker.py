"""A re-ranker's scores mixed with those of the search that it re-ranked."""

from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.exchange.rankings_for_tests import ranking_of
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.fusion.rankings import same_for_all, write_fusion
from ultron_cli.retrieval.fusion.reranker import RerankerMix
from ultron_cli.retrieval.origin import ImportRecord, Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks

PHOTOS = list("abcdef")


def mixed(folder: Path, scores: Ranking, settings: tuple[float, float], base: Ranking | None = None) -> Ranking:
    """The ranking a (0.9), b ... f (0.4), mixed."""
    plain = ranking_of([[0, 1, 2, 3, 4, 5]], [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], photos=PHOTOS)
    write_ranks(folder / "base.h5", base or plain)
    write_ranks(folder / "scores.h5", scores)
    with JoinedParts([folder / "base.h5", folder / "scores.h5"]) as joined:
        write_fusion(folder / "out.h5", RerankerMix(joined), same_for_all(settings, joined.n_queries))
    return read_ranks(folder / "out.h5")


def test_the_formula_of_ames(tmp_path: Path) -> None:
    """Names may stand in another order; the rest stays behind."""
    record = ImportRecord(path="s.csv", sha256="0" * 64, format="csv")
    scores = ranking_of([[0, 1]], [[4, -2]], photos=["c", "a"], origin=Origin(imported=(record,)))
    ranking = mixed(tmp_path, scores, (0.25, 0.5))
    right = {
        "c": 0.25 * 0.7 + 0.75 / (1 + np.exp(-0.5 * 4)),
        "a": 0.25 * 0.9 + 0.75 / (1 + np.exp(-0.5 * -2)),
        **{"b": 0.8, "d": 0.6, "e": 0.5, "f": 0.4},
    }
    assert [photo["name"] for photo in ranking.ranked_photos(0)] == list(right)
    assert [photo["score"] for photo in ranking.ranked_photos(0)] == pytest.approx(list(right.values()), abs=1e-6)
    origin = ranking.origin
    assert origin.fusion is not None and origin.fusion.settings == {"lambda": 0.25, "temperature": 0.5}
    assert origin.imported[0].n_first == 2 and origin.is_search
    assert "; ordered anew by s.csv; fused by mix, lambda 0.25, temperature 0.5 in" in origin.search_text()


def test_lambda_1_is_the_search_and_0_the_re_ranker(tmp_path: Path) -> None:
    scores = ranking_of([[3, 1, 0]], [[2, 1, 0]], photos=PHOTOS)
    assert mixed(tmp_path, scores, (1.0, 1.0)).rows.tolist() == [[0, 1, 3, 2, 4, 5]]
    assert mixed(tmp_path, scores, (0.0, 1.0)).rows.tolist() == [[3, 1, 0, 2, 4, 5]]
    huge = ranking_of([[3, 1, 0]], [[1e30, 1e30, -1e30]], photos=PHOTOS)
    assert mixed(tmp_path, huge, (0.0, 5.0)).rows.tolist() == [[1, 3, 0, 2, 4, 5]]  # equal ones by row


def test_a_query_without_scores_stays_as_it_was(tmp_path: Path) -> None:
    base = ranking_of([[0, 1], [1, 0], []], [[2, 1], [2, 1], []], photos=["a", "b"])
    ranking = mixed(tmp_path, ranking_of([[1, 0], [], []], [[9, 1], [], []], photos=["a", "b"]), (0.0, 1.0), base)
    assert ranking.rows.tolist() == [[1, 0], [1, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (ranking_of([[0, 1]], [[2, 1]], photos=["a", "z"]), r"scores photos that .*base\.h5 has not"),
        (
            ranking_of(
                [[0]],
                [[1]],
                photos=PHOTOS,
                origin=Origin(imported=(ImportRecord(path="s", sha256="", format="csv", n_first=1),)),
            ),
            r"cannot be told apart; import them alone: ultron ranks import FILE --database .*base\.h5 --out",
        ),
    ],
)
def test_scores_that_cannot_be_mixed(tmp_path: Path, scores: Ranking, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        mixed(tmp_path, scores, (0.5, 1.0))


def test_scores_of_photos_that_are_not_ranked(tmp_path: Path) -> None:
    base = ranking_of([[0, 1]], [[2, 1]], photos=PHOTOS)
    with pytest.raises(UltronError, match=r"scores\.h5 scores d for query0, whose ranking in .* is without it"):
        mixed(tmp_path, ranking_of([[3]], [[1]], photos=PHOTOS), (0.5, 1.0), base)
