"""`ultron compare` and the tables of `ultron evaluate`, from descriptors to what is printed."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, Origin

N_LANDMARKS, DIM = 6, 16


def described(folder: Path, gnd: Path, seed: int) -> Path:
    """queries.h5 and database.h5 of a made-up network: six landmarks, four photos each, half of them easy."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    landmarks = rng.standard_normal((N_LANDMARKS, DIM))
    roles: tuple[tuple[Literal["query", "database"], str, int], ...] = (
        ("query", "queries", 1),
        ("database", "database", 4),
    )
    for role, stem, n_each in roles:
        rows = np.repeat(landmarks, n_each, axis=0) + 1.2 * rng.standard_normal((N_LANDMARKS * n_each, DIM))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        info = DescriptorInfo(
            model="made-up",
            weights_sha256=str(seed),
            dataset="made",
            role=role,
            crop="bbx",
            scales=[1.0],
            extraction=ExtractionRecord(stored={"role": role, "crop": "bbx", "scales": [1.0], "max_side_px": 64}),
            provenance=DescriptorProvenance(dataset_folder="/made", ground_truth=str(gnd)),
        )
        write_descriptors(folder / f"{stem}.h5", [f"{stem}{i}" for i in range(len(rows))], [rows], DIM, info)
    return folder


@pytest.fixture
def results(ultron: Run, tmp_path: Path) -> Path:
    """A folder of three evaluations, 0.json to 2.json; beside it the descriptors 0 to 2 and the rank file of 0."""
    folder = tmp_path / "results"
    gnd = tmp_path / "gnd_made.json"
    labels = [{"easy": [4 * i, 4 * i + 1], "hard": [4 * i + 2, 4 * i + 3], "junk": []} for i in range(N_LANDMARKS)]
    truth = {
        "imlist": [f"database{i}" for i in range(4 * N_LANDMARKS)],
        "qimlist": [f"queries{i}" for i in range(N_LANDMARKS)],
        "gnd": labels,
    }
    gnd.write_text(json.dumps(truth))
    for seed in range(3):
        files = described(tmp_path / str(seed), gnd, seed)
        names = ("--queries", files / "queries.h5", "--database", files / "database.h5")
        code, out, err = ultron("evaluate", *names, "--out", folder / f"{seed}.json")
        assert code == 0, err
        assert "95 % interval" in out and "fewer than 20 queries have positives" in err
        if seed == 0:
            assert ultron("search", *names, "--out", tmp_path / "r.h5")[0] == 0
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

    for command in (("compare", results), ("evaluate", "--ranks", results.parent / "r.h5")):
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
    assert "not reproduced" in out and "The descriptors differ already" in out and "weights (SHA-256): A" in out
    assert "the order of photos is compared of rank files" in err


def test_a_whitening_learned_where_it_is_evaluated_is_told(ultron: Run, results: Path, tmp_path: Path) -> None:
    database, whitening = tmp_path / "0/database.h5", tmp_path / "w.h5"
    names = ("--queries", tmp_path / "0/queries.h5", "--database", database)
    assert ultron("whiten", database, "--method", "pca", "--dim", 8, "--out", whitening)[0] == 0
    warned = "the whitening was learned on made, whose landmarks are evaluated"
    code, _, err = ultron("evaluate", *names, "--whiten", whitening, "--out", tmp_path / "e.json")
    assert code == 0 and warned in err, err
    stored = json.loads((tmp_path / "e.json").read_text())
    assert any(warned in warning for warning in stored["warnings"])
    assert Origin.from_json(stored["provenance"]).whitening_learned_from is not None
    assert ultron("search", *names, "--whiten", whitening, "--out", tmp_path / "w-ranks.h5")[0] == 0
    assert warned in ultron("evaluate", "--ranks", tmp_path / "w-ranks.h5")[2]
    assert warned not in ultron("evaluate", *names)[2]
