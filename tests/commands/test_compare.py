"""`ultron compare` and the tables of `ultron evaluate`, from descriptors to what is printed."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli.retrieval.origin import Origin

MODEL = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")


@pytest.fixture
def results(ultron: Run, toy: Path, tmp_path: Path) -> Path:
    """A folder of three evaluations, 0.json to 2.json, and of the first one's rank file."""
    folder = tmp_path / "results"
    for seed in range(3):
        assert ultron("extract", toy, *MODEL, "--seed", seed, "--out", tmp_path / str(seed))[0] == 0
        code, out, err = ultron("evaluate", "--out", folder / f"{seed}.json")
        assert code == 0, err
        assert "95 % interval" in out and "fewer than 20 queries have positives" in err
    assert ultron("search", "--queries", tmp_path / "0/queries.h5", "--database", tmp_path / "0/database.h5",
                  "--out", tmp_path / "r.h5")[0] == 0  # fmt: skip
    return folder


def test_systems_seeds_folders_and_formats(ultron: Run, results: Path) -> None:
    code, out, err = ultron("compare", results, "--json")
    assert code == 0, err
    content = json.loads(out)
    assert [(system["letter"], system["label"]) for system in content["systems"]] == [
        ("A", "0"),
        ("B", "1"),
        ("C", "2"),
    ]
    hard = content["protocols"]["hard"]
    assert [(pair["a"], pair["b"]) for pair in hard["pairs"]] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert all(pair["p_holm"] >= pair["p_value"] for pair in hard["pairs"])
    stored = json.loads((results / "1.json").read_text())
    assert hard["systems"][1]["mAP"] == pytest.approx(stored["protocols"]["hard"]["mAP"])
    assert hard["systems"][1]["interval"] == pytest.approx(stored["protocols"]["hard"]["interval"])
    assert json.loads(ultron("compare", results, "--format", "json")[1]) == content

    code, out, err = ultron("compare", results)
    assert code == 0, err
    assert "p (Holm)" in out and "is best" in out and "the queries that differ most:" in out

    code, out, err = ultron("compare", f"{results / '0.json'},{results / '1.json'}", results / "2.json")
    assert code == 0, err
    assert "standard deviation over training seeds" in out and "A easy" in out and "over 2 seeds" in out

    for command in (("compare", results), ("evaluate",)):
        code, out, err = ultron(*command, "--format", "latex")
        assert code == 0, err
        assert out.startswith("% needs") and out.rstrip().endswith(r"\end{table}") and "fewer than 20" in out
        assert ultron(*command, "--format", "markdown")[1].startswith("| ")
        assert ultron(*command, "--format", "csv")[1].startswith("system,label,dataset,protocol,")


def test_what_cannot_be_compared_is_one_line(ultron: Run, results: Path) -> None:
    for arguments, message in (
        (("--as-reproduction", results), "holds one result against another; found 3; name two"),
        (("--as-reproduction", results, "--format", "csv"), "prints text or JSON"),
        (
            (f"{results / '0.json'},{results / '1.json'}", results / "2.json", "--as-reproduction"),
            "2 training seeds in A",
        ),
        ((results / "0.json", results / "none.json"), "does not exist"),
    ):
        code, _, err = ultron("compare", *arguments)
        assert code == 2 and message in err, err
        assert len(err.strip().splitlines()) == 1, err


def test_a_reproduction_from_scores_to_descriptors(ultron: Run, results: Path, tmp_path: Path) -> None:
    code, out, err = ultron("compare", tmp_path / "r.h5", tmp_path / "r.h5", "--as-reproduction", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["verdict"] == "reproduced: every query has the same AP, and every ranking has the same order"
    assert content["rankings"]["kendall_tau"] == content["rankings"]["kendall_tau_union"] == pytest.approx(1)
    assert content["descriptors"]["database"]["lowest"] == pytest.approx(1, abs=1e-5)
    code, out, err = ultron("compare", tmp_path / "r.h5", results / "1.json", "--as-reproduction")
    assert code == 0, err
    assert "not reproduced" in out and "The descriptors differ already" in out and "weights_sha256: A" in out
    assert "the order of photos is compared of rank files" in err


def test_a_whitening_learned_where_it_is_evaluated_is_told(ultron: Run, toy: Path, tmp_path: Path) -> None:
    assert ultron("extract", toy, *MODEL)[0] == 0
    assert ultron("whiten", "--method", "pca", "--dim", 8, "--out", tmp_path / "w.h5")[0] == 0
    told = "the whitening was learned on toy, whose landmarks are evaluated"
    code, _, err = ultron("evaluate", "--whiten", tmp_path / "w.h5", "--out", tmp_path / "e.json")
    assert code == 0 and told in err, err
    stored = json.loads((tmp_path / "e.json").read_text())
    assert any(told in warning for warning in stored["warnings"])
    assert Origin.from_json(stored["provenance"]).whitening_learned_from is not None
    assert ultron("search", "--whiten", tmp_path / "w.h5", "--out", tmp_path / "r.h5")[0] == 0
    assert told in ultron("evaluate", "--ranks", tmp_path / "r.h5")[2]
    assert told not in ultron("evaluate")[2]
