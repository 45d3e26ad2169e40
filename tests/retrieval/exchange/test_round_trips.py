"""What goes out comes in again as it was: names, float32 scores bit for bit, ties in their order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.exchange.rankings_for_tests import random_ranking, ranking_of
from ultron_cli.commands import choices
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange import RANK_FORMATS
from ultron_cli.retrieval.exchange.exporting import ExportRequest, export_ranking
from ultron_cli.retrieval.exchange.importing import READABLE, ImportRequest, import_ranking
from ultron_cli.retrieval.exchange.run import falling, score_texts
from ultron_cli.retrieval.rankings import Ranking, write_ranks

OF_NAMES = [name for name in READABLE if not RANK_FORMATS[name].is_pairs]


def test_choices_are_the_registry() -> None:
    assert tuple(RANK_FORMATS) == choices.RANK_FORMATS
    assert READABLE == choices.READABLE_RANKS


def there_and_back(ranking: Ranking, format_name: str, folder: Path, scores: str = "stored") -> Ranking:
    write_ranks(folder / "names.h5", ranking)
    request = ExportRequest(format=format_name, scores=scores)  # type: ignore[arg-type]
    export_ranking(ranking, folder / "run", request)
    return import_ranking(ImportRequest(path=folder / "run", format=format_name, database=folder / "names.h5"))


@pytest.mark.parametrize("format_name", READABLE)
def test_round_trips_are_exact(format_name: str, tmp_path: Path) -> None:
    ranking = random_ranking(len(format_name))
    ranking = replace(ranking, origin=replace(ranking.origin, dataset_folder=None))
    back = there_and_back(ranking, format_name, tmp_path)
    assert back.query_names == ranking.query_names and back.database_names == ranking.database_names
    np.testing.assert_array_equal(back.rows, ranking.rows)
    np.testing.assert_array_equal(back.with_scores().view(np.uint32), ranking.with_scores().view(np.uint32))
    scores = ranking.with_scores()
    assert (scores[:, 1:] == scores[:, :-1]).any()  # ties were among them


@pytest.mark.parametrize("format_name", READABLE)
def test_a_reranked_ranking_keeps_its_order_and_says_so(
    format_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ranking = ranking_of([[3, 1, 0, 2]], [[0.25, 0.25, 0.75, 0.5]])
    caplog.set_level("INFO", "ultron")
    back = there_and_back(ranking, format_name, tmp_path, "falling")
    assert back.rows.tolist() == [[3, 1, 0, 2]]
    (scores,) = back.with_scores()
    assert scores[0] == 0.25 and (np.diff(scores) < 0).all()
    assert scores[1] == np.nextafter(np.float32(0.25), np.float32(0))
    assert "3 scores equal or exceed the one before them (1 exceed)" not in caplog.text
    assert "2 scores equal or exceed the one before them (1 exceed): lowered" in caplog.text
    back = there_and_back(ranking, format_name, tmp_path, "stored")
    assert back.rows.tolist() == [[0, 2, 3, 1]]  # by score, as other tools read it, which is said
    assert "tools that order by score will show another ranking" in caplog.text
    request = ImportRequest(path=tmp_path / "run", format=format_name, database=tmp_path / "names.h5", order="file")
    back = import_ranking(request)
    assert back.rows.tolist() == [[3, 1, 0, 2]] and back.with_scores().tolist() == [[0.25, 0.25, 0.75, 0.5]]


ODD_NAMES = [
    "a b",
    "a,b",
    'q"q',
    "#a",
    " a",
    "a ",
    "a\nb",
    "caf\udce9",
    "ünï",
    "日本",
    "a\u00a0b",
    "a;b",
    "x\ty",
    "'a'",
    '"a"',
]


@pytest.mark.parametrize("format_name", OF_NAMES)
def test_odd_names_come_back_or_are_refused_by_name(format_name: str, tmp_path: Path) -> None:
    n_refused = 0
    for name in ODD_NAMES:
        ranking = ranking_of([[1, 0]], [[2, 1]], queries=[f"{name}1"], photos=[name, "b"])
        try:
            back = there_and_back(ranking, format_name, tmp_path)
        except UltronError as error:
            n_refused += 1
            assert str(error).startswith(f"{format_name} needs a name ") and " can carry it" in str(error)
            continue
        assert (back.query_names, back.database_names) == (ranking.query_names, ranking.database_names)
        np.testing.assert_array_equal(back.rows, ranking.rows)
    assert n_refused == {"trec": 7, "csv": 4}.get(format_name, 0)


def test_the_least_step_is_taken_only_where_scores_do_not_fall() -> None:
    largest = float(np.finfo(np.float32).max)
    scores = np.array(
        [
            [1.0, 1.0, 1.0, 0.5, -np.inf],
            [0.0, -0.0, 0.0, -1.0, -1.0],
            [largest, 3.0, 3.0, 2.9999998, -largest],
            [-1.0, 5.0, 4.0, 3.0, 2.0],
        ],
        np.float32,
    )
    lowered = falling(scores)
    for row, changed in zip(scores, lowered, strict=True):
        expected = [row[0]]
        for value in row[1:]:
            expected.append(value if value < expected[-1] else np.nextafter(expected[-1], np.float32(-np.inf)))
        np.testing.assert_array_equal(changed.view(np.uint32), np.array(expected, np.float32).view(np.uint32))


def test_scores_are_the_shortest_texts_that_read_back() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    texts = score_texts(values)
    back = np.array([float(text) for text in texts]).astype(np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), values.view(np.uint32))
    shown = score_texts(np.array([0.1, 16777216, -0.0], np.float32))
    assert shown in (["0.1", "1.6777216e+07", "-0.0"], ["0.1", "16777216.0", "-0.0"])  # by NumPy's version


def test_scores_that_no_text_holds_are_refused(tmp_path: Path) -> None:
    for scores, words in (([np.inf], "infinite"), ([-3.4028235e38] * 2, "the lowest of float32")):
        ranking = ranking_of([list(range(len(scores)))], [scores])
        with pytest.raises(UltronError, match=words):
            export_ranking(ranking, tmp_path / "run", ExportRequest(format="trec"))
    assert not (tmp_path / "run").exists()
