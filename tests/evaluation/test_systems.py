"""Several systems side by side: an example of four by hand, Holm's correction, training seeds, files and folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import literal_statistics
from tests.evaluation.test_significance import evaluation
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.evaluation.significance import holm
from ultron_cli.evaluation.systems import System, compare_systems, letter_of, open_systems
from ultron_cli.retrieval.origin import Origin

QUERIES = [f"q{i}" for i in range(8)]


def system(letter: str, *seeds: list[float], label: str = "") -> System:
    evaluations = tuple(evaluation(dict(zip(QUERIES, ap, strict=False))) for ap in seeds)
    paths = tuple(Path(f"{letter}{i}.json") for i in range(len(seeds)))
    return System(letter=letter, label=label or letter.lower(), paths=paths, evaluations=evaluations, rankings=(None,))


def test_letters_of_four_systems_by_hand() -> None:
    """Eight queries. B is A + 0.1 everywhere, C is B in all but the first query, D is A but for exchanged pairs.

    Exact sign-flip p-values: A-B, 8 differences of one sign: 2 of 256 patterns = 0.0078. A-C: 0.3 once and 0.1 seven
    times, all of one sign: 0.0078. A-D: +0.1 four times and -0.1 four times: p 1. B-C: only one query differs: p 1.
    B-D: 0 four times and -0.2 four times: 2 of 16 = 0.125. C-D: 0.2 below in the first query and four times: 5 of one
    sign, 2 of 32 = 0.0625 (the first query of D is as B, so C - D is 0.2 there).
    Holm over six: 6 x 0.0078 = 0.0469 and 5 x 0.0078, raised to 0.0469: both below 0.05. The third: 4 x 0.0625 = 0.25,
    not. So B beats A, C beats A, and nothing else.
    """
    a = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    b = [ap + 0.1 for ap in a]
    c = [a[0] + 0.3, *b[1:]]
    d = [ap + 0.1 if i % 2 == 0 else ap - 0.1 for i, ap in enumerate(a)]
    systems = [system("A", a), system("B", b), system("C", c), system("D", d)]
    (standing,) = compare_systems(systems)
    p_values = {pair.a + pair.b: (pair.comparison.p_value, pair.p_holm) for pair in standing.pairs}
    assert p_values == {
        "AB": (2 / 256, pytest.approx(12 / 256)),
        "AC": (2 / 256, pytest.approx(12 / 256)),
        "AD": (1.0, 1.0),
        "BC": (1.0, 1.0),
        "BD": (0.125, pytest.approx(0.375)),
        "CD": (0.0625, pytest.approx(0.25)),
    }
    assert {scores.letter: scores.beats for scores in standing.systems} == {"A": (), "B": ("A",), "C": ("A",), "D": ()}
    assert standing.verdict(systems) == "C (c) is best, but chance explains its lead over B, D; it beats A"
    assert (standing.moved[0].query, standing.moved[0].ap) == (
        "q0",
        (pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.4), pytest.approx(0.2)),
    )


def test_holm_is_the_procedure_of_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # by hand
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]
    rng = np.random.default_rng(0)
    for n in (1, 3, 6, 15):
        for _ in range(50):
            p_values = (rng.random(n) ** 3).tolist()
            rejected = [p < 0.05 for p in holm(p_values)]
            assert rejected == literal_statistics.holm_rejects(p_values, 0.05)


def test_seeds_of_one_system_are_averaged_and_their_spread_stands_apart() -> None:
    a = system("A", [0.2, 0.4], [0.4, 0.6], [0.6, 0.8])
    b = system("B", [0.5, 0.7])
    (standing,) = compare_systems([a, b])
    first, second = standing.systems
    assert (first.mAP, first.n_seeds, first.seeds_sd) == (pytest.approx(0.5), 3, pytest.approx(0.2))
    assert (second.mAP, second.n_seeds, second.seeds_sd) == (pytest.approx(0.6), 1, None)
    assert standing.pairs[0].comparison.difference == pytest.approx(0.1)
    assert first.interval[0] >= 0.4 - 1e-9 and first.interval[1] <= 0.6 + 1e-9  # of queries alone


def test_one_system_stands_alone() -> None:
    (standing,) = compare_systems([system("A", [0.2, 0.4])])
    assert standing.pairs == () and standing.moved == () and standing.systems[0].mAP == pytest.approx(0.3)


def test_systems_that_do_not_belong_together_are_refused() -> None:
    a = system("A", [0.2, 0.4])
    other = replace(a, evaluations=(replace(a.evaluation, dataset="other"),))
    with pytest.raises(UltronError, match="must have the same dataset; found toy and other"):
        compare_systems([a, a, other])
    more = replace(a, evaluations=(replace(a.evaluation, n_database=99),))
    with pytest.raises(UltronError, match="use the same distractors"):
        compare_systems([a, more])
    with pytest.raises(UltronError, match="no protocol in common"):
        compare_systems([a, replace(a, evaluations=(replace(a.evaluation, protocols={}),))])


def write(path: Path, content: Evaluation) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content.to_json()))
    return path


def test_files_folders_and_seeds_are_opened(tmp_path: Path) -> None:
    result = evaluation({"q0": 0.5, "q1": 0.2})
    a, b = (write(tmp_path / "r" / name / "evaluation.json", result) for name in ("gem", "ultron"))
    (tmp_path / "r" / "latest.json").write_text("{}")  # no evaluation: left out
    comma = write(tmp_path / "x,y.json", replace(result, origin=Origin(model="m")))
    systems = open_systems([str(tmp_path / "r"), f"{a},{b}", str(comma)])
    assert [(s.letter, s.paths) for s in systems] == [("A", (a,)), ("B", (b,)), ("C", (a, b)), ("D", (comma,))]
    assert [s.label for s in open_systems([str(tmp_path / "r")])] == ["gem", "ultron"]
    with pytest.raises(UltronError, match="has no evaluation; name a folder"):
        (tmp_path / "empty").mkdir()
        open_systems([str(tmp_path / "empty")])
    with pytest.raises(UltronError, match="does not exist"):
        open_systems([str(tmp_path / "none.json")])


def test_letters_go_on_behind_z() -> None:
    assert [letter_of(i) for i in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
