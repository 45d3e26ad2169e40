"""docs/conformance: the files are those of the program that makes them, the scores are right, and ultron has them."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.metrics import PRECISION_AT, revisited_map
from ultron_cli.evaluation.result import read_evaluation
from ultron_cli.retrieval.exchange.importing import ImportRequest, import_ranking

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT / "docs/conformance"
GND = PACK / "gnd_conformance.json"
PROTOCOLS = ("easy", "medium", "hard")
EXPECTED = json.loads((PACK / "expected.json").read_text())


def test_the_files_are_those_of_their_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import conformance

    files = conformance.files_of(conformance.all_cases())
    assert {path.name for path in PACK.iterdir()} == {*files, "README.md"}
    for name, text in files.items():
        assert (PACK / name).read_text(encoding="utf-8") == text, name
    n_by_hand = len(conformance.BY_HAND)
    assert f"{n_by_hand + 100} small rankings" in (PACK / "README.md").read_text()
    assert f"{n_by_hand} are written by hand" in (PACK / "README.md").read_text()


# Worked out on paper: protocol -> query -> (AP, P@1, P@5, P@10); None: no positives.
BY_HAND: dict[str, dict[str, tuple[str, ...] | None]] = {
    "easy": {
        "one_junk_above": ("19/24", "1", "2/3", "2/3"),
        "second": ("1/4", "0", "1/2", "1/2"),
        "last": ("1/8", "0", "1/4", "1/4"),
        "all_on_top": ("1", "1", "1", "1"),
        "first_and_third": ("19/24", "1", "2/3", "2/3"),
        "junk_on_top": ("1", "1", "1", "1"),
        "no_labels": None,
        "hard_alone": None,
        "hard_above_easy": ("1", "1", "1", "1"),
        "third_alone": ("1/6", "0", "1/3", "1/3"),
        "eleventh": ("1/22", "0", "0", "0"),
        "junk_moves_up": ("1/10", "0", "1/5", "1/5"),
        "tied_positive_first": ("1", "1", "1", "1"),
        "tied_positive_second": ("1/4", "0", "1/2", "1/2"),
        "nothing_ranked": ("0", "0", "0", "0"),
        "nothing_ranked_nothing_right": None,
        "photos_that_nobody_labelled": ("1/6", "0", "1/3", "1/3"),
    },
    "medium": {
        "one_within_the_cut": ("1/4", "1", "1", "1"),
        "none_within_the_cut": ("0", "0", "0", "0"),
        "hard_above_easy": ("1", "1", "1", "1"),
        "junk_alone": None,
        "tied_with_junk": ("1", "1", "1", "1"),
        "mixed": ("1753/2100", "1", "4/5", "5/7"),
    },
    "hard": {"hard_alone": ("19/24", "1", "2/3", "2/3"), "easy_alone": None, "easy_above_hard": ("1", "1", "1", "1")},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_that_were_worked_out_by_hand(protocol: str) -> None:
    for query, values in BY_HAND[protocol].items():
        scores = EXPECTED[protocol]["queries"][query]
        assert (scores is None) == (values is None), query
        if values is not None:
            expected = [float(Fraction(value)) for value in values]
            assert list(scores.values()) == pytest.approx(expected, abs=1e-12), query


def assert_right(protocols: dict[str, dict[str, float | None]], mean_aps: dict[str, float | None]) -> None:
    for protocol in PROTOCOLS:
        of_queries = EXPECTED[protocol]["queries"]
        assert protocols[protocol].keys() == of_queries.keys()
        for query, ap in protocols[protocol].items():
            right = of_queries[query] and of_queries[query]["AP"]
            assert ap == (right if right is None else pytest.approx(right, abs=1e-12)), (protocol, query)
        assert mean_aps[protocol] == pytest.approx(EXPECTED[protocol]["mAP"], abs=1e-12)


def test_rankings_give_the_scores() -> None:
    truth = load_ground_truth(GND)
    row_of = {name: row for row, name in enumerate(truth.database_names)}
    rankings = json.loads((PACK / "rankings.json").read_text())
    assert list(rankings) == truth.query_names
    rows = np.full((len(rankings), 40), -1)
    for query, photos in enumerate(rankings.values()):
        rows[query, : len(photos)] = [row_of.get(photo, 100 + i) for i, photo in enumerate(photos)]
    for protocol in PROTOCOLS:
        result = revisited_map(rows, truth, protocol)  # type: ignore[arg-type]
        means = EXPECTED[protocol]
        assert result.queries_used == means["queries_used"]
        assert [result.mAP, *result.mP.values()] == pytest.approx(
            [means["mAP"], *(means[f"mP@{k}"] for k in PRECISION_AT)], abs=1e-12
        )
        for name, ap, precision in zip(truth.query_names, result.ap, result.precision, strict=True):
            if means["queries"][name] is not None:
                assert [ap, *precision] == pytest.approx(list(means["queries"][name].values()), abs=1e-12), name


def test_runs_of_every_form_give_the_scores() -> None:
    for name, format_name in (("scores.json", "ranx"), ("run.trec", "trec")):
        ranking = import_ranking(ImportRequest(path=PACK / name, format=format_name, gnd=GND))
        evaluation = evaluate_ranking(ranking, GND)
        assert_right(
            {protocol: dict(scores.ap) for protocol, scores in evaluation.protocols.items()},
            {protocol: scores.mAP for protocol, scores in evaluation.protocols.items()},
        )


def test_the_commands_give_the_scores(ultron: Run, tmp_path: Path) -> None:
    code, out, err = ultron("ranks", "import", PACK / "scores.json", "--gnd", GND, "--out", tmp_path / "r.h5")
    assert code == 0 and "135 queries, up to 30 of 32 photos each" in out, err
    assert "other0, other1): ranked as photos that answer no query" in err
    code, _, err = ultron("evaluate", "--ranks", tmp_path / "r.h5", "--out", tmp_path / "e.json")
    assert code == 0, err
    evaluation = read_evaluation(tmp_path / "e.json")
    assert_right(
        {protocol: dict(scores.ap) for protocol, scores in evaluation.protocols.items()},
        {protocol: scores.mAP for protocol, scores in evaluation.protocols.items()},
    )
    for protocol in PROTOCOLS:
        out_file = tmp_path / protocol
        arguments = ("ranks", "export", tmp_path / "r.h5", "--protocol", protocol, "--out", out_file)
        assert ultron(*arguments, "--format", "qrels")[0] == 0
        theirs = (PACK / f"{protocol}.qrels").read_text().splitlines()
        assert sorted(out_file.read_text().splitlines()) == sorted(theirs)
        assert ultron(*arguments, "--format", "trec")[0] == 0
        ours = [line.split()[:4] for line in out_file.read_text().splitlines()]
        assert ours == [line.split()[:4] for line in (PACK / f"{protocol}.trec").read_text().splitlines()]


def test_three_numbers_from_one_ranking() -> None:
    """What the README tells, by the program that computes it."""
    ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    query = "one_junk_above"

    def of_trec(run: str) -> float:
        lines = [line for line in ir_measures.read_trec_run(str(PACK / run)) if line.query_id == query]
        judgements = [
            line for line in ir_measures.read_trec_qrels(str(PACK / "medium.qrels")) if line.query_id == query
        ]
        return ir_measures.calc_aggregate([ir_measures.AP], judgements, lines)[ir_measures.AP]

    assert round(of_trec("run.trec"), 3) == 0.750
    assert round(of_trec("medium.trec"), 3) == 0.833
    assert round(EXPECTED["medium"]["queries"][query]["AP"], 3) == 0.792
