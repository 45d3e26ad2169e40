"""Re-ranking, whitening, distractors and kinds of index as a person uses them, through main()."""

import json
import shutil
from pathlib import Path

import h5py
import pytest

from tests.commands.test_bad_input import MODEL, expect_error
from tests.conftest import Run, read_json


@pytest.fixture(scope="module")
def stored(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Descriptors of the rendered set, extracted once."""
    from ultron_cli.cli import main

    folder = tmp_path_factory.mktemp("descriptors")
    assert main(["extract", str(toy), *MODEL, "--out", str(folder), "--workspace", str(folder / "runs"), "-q"]) == 0
    return folder


@pytest.fixture
def extracted(stored: Path, tmp_path: Path) -> tuple[str, ...]:
    """--queries and --database of a copy."""
    for name in ("queries.h5", "database.h5"):
        shutil.copy(stored / name, tmp_path / name)
    return "--queries", str(tmp_path / "queries.h5"), "--database", str(tmp_path / "database.h5")


def test_reranking_is_timed_recorded_and_printed(ultron: Run, extracted: tuple[str, ...], tmp_path: Path) -> None:
    chain = ("--rerank", "aqe,superglobal", "--rerank-set", "superglobal.beta=0.2", "--rerank-set", "aqe.n=2")
    code, out, err = ultron("evaluate", *extracted, *chain, "--out", tmp_path / "e.json")
    assert code == 0, err
    assert "re-ranked by aqe (" in out and "superglobal (" in out
    assert "ms per query" in err
    steps = json.loads((tmp_path / "e.json").read_text())["provenance"]["search"]["rerank"]
    assert [(step["name"], step.get("beta"), step.get("n")) for step in steps] == [
        ("aqe", None, 2),
        ("superglobal", 0.2, None),
    ]
    # What search writes, cut to k after re-ranking, evaluates to the same as re-ranking in evaluate.
    answer = read_json(ultron("search", *extracted, *chain, "-k", 5, "--out", tmp_path / "r.h5", "--json"))
    assert [len(result["photos"]) for result in answer["results"]] == [5] * 4
    assert [step["name"] for step in answer["origin"]["search"]["rerank"]] == ["aqe", "superglobal"]
    short = read_json(ultron("evaluate", "--ranks", tmp_path / "r.h5", "--json"))
    cut = read_json(ultron("evaluate", *extracted, *chain, "-k", 5, "--json"))
    assert short["protocols"] == cut["protocols"]


def test_bad_reranking_is_refused(ultron: Run, extracted: tuple[str, ...], tmp_path: Path) -> None:
    expect_error(
        ultron("evaluate", *extracted, "--rerank", "superglobl"), "--rerank must be one of", "did you mean superglobal?"
    )
    expect_error(ultron("search", *extracted, "--rerank-set", "aqe.n=3"), "add aqe to --rerank, found no re-ranking")
    expect_error(ultron("evaluate", "--ranks", tmp_path / "r.h5", "--rerank", "aqe"), "leave out")
    expect_error(ultron("search", *extracted, "--nprobe", 3), "--nprobe belongs to an index; name one with --index")


def test_whitening_in_extract_index_search_and_evaluate(
    ultron: Run, toy: Path, extracted: tuple[str, ...], tmp_path: Path
) -> None:
    white = tmp_path / "w.h5"
    learned = read_json(ultron("whiten", tmp_path / "database.h5", "--dim", 16, "--out", white, "--json"))
    assert (learned["method"], learned["n"], learned["from_dim"], learned["dim"]) == ("pca-whitening", 48, 96, 16)
    flags = ("--whiten", white, "--dim", 8)

    at_use = read_json(ultron("evaluate", *extracted, *flags, "--json"))
    assert at_use["provenance"]["config"]["whitening"]["dim"] == 8
    assert "pca-whitening to 8-d" in ultron("evaluate", *extracted, *flags)[1]

    made = read_json(ultron("extract", toy, *MODEL, *flags, "--out", tmp_path / "x", "--json"))
    assert (made["dim"], made["config"]["whitening"]["method"]) == (8, "pca-whitening")
    with h5py.File(tmp_path / "x" / "database.h5") as file, h5py.File(tmp_path / "x" / "raw" / "database.h5") as raw:
        assert (file["descriptors"].shape, raw["descriptors"].shape) == ((48, 8), (48, 96))
        assert json.loads(file.attrs["config"])["whitening"]["dim"] == 8
    assert (
        read_json(ultron("evaluate", "--json"))["protocols"] == at_use["protocols"]
    )  # the latest extraction is the whitened one

    index = tmp_path / "i.index"
    read_json(ultron("index", tmp_path / "database.h5", *flags, "--type", "sq8", "--out", index, "--json"))
    by_index = read_json(ultron("evaluate", *extracted, "--index", index, "--json"))
    assert by_index["protocols"]["medium"]["mAP"] == pytest.approx(at_use["protocols"]["medium"]["mAP"], abs=1e-6)

    photo = toy / "jpg" / f"{json.loads((toy / 'gnd_toy.json').read_text())['imlist'][3]}.jpg"
    for base in (
        (*extracted[2:], *flags),
        ("--database", tmp_path / "x" / "database.h5"),
        (*extracted[2:], "--index", index),
    ):
        best = read_json(ultron("search", photo, *base, "-k", 1, "--json"))["results"][0]["photos"][0]
        assert best["name"] == photo.stem
        assert best["score"] == pytest.approx(1, abs=1e-4)

    expect_error(
        ultron("evaluate", "--queries", tmp_path / "queries.h5", "--database", tmp_path / "x" / "database.h5"),
        "8-d",
        "96-d",
    )
    assert (
        read_json(ultron("evaluate", *flags, "--json"))["protocols"] == at_use["protocols"]
    )  # whitened with the same already: not twice
    assert read_json(ultron("evaluate", "--index", index, "--json"))["protocols"] == by_index["protocols"]
    expect_error(ultron("evaluate", "--whiten", white, "--dim", 7), "is whitened already")
    expect_error(ultron("search", *extracted, "--dim", 8), "name one with --whiten")
    expect_error(
        ultron("extract", toy, *MODEL, "--set", "model.descriptor_dim=32", "--whiten", white),
        "whitens 96-d descriptors",
        "gives 32-d",
    )
    expect_error(ultron("whiten", tmp_path / "database.h5", "--method", "pcaw"), "did you mean pca")
    expect_error(ultron("whiten", tmp_path / "database.h5", "--labels", "x.csv"), "give pairs to --method lw")


def test_lw_from_a_ground_truth(ultron: Run, toy: Path, extracted: tuple[str, ...], tmp_path: Path) -> None:
    learned = read_json(
        ultron(
            "whiten",
            tmp_path / "database.h5",
            "--method",
            "lw",
            "--gnd",
            toy / "gnd_toy.json",
            "--out",
            tmp_path / "w.h5",
            "--json",
        )
    )
    assert learned["pairs"] > 0
    assert (
        read_json(ultron("evaluate", *extracted, "--whiten", tmp_path / "w.h5", "--json"))["provenance"]["config"][
            "whitening"
        ]["method"]
        == "lw"
    )


def test_distractors_lower_the_score_and_are_counted(ultron: Run, extracted: tuple[str, ...], tmp_path: Path) -> None:
    plain = read_json(ultron("evaluate", *extracted, "--json"))
    shutil.copy(
        tmp_path / "database.h5", tmp_path / "d.h5"
    )  # the worst of distractors: the same photos, none of them right
    joined = read_json(
        ultron("evaluate", *extracted, "--distractors", tmp_path / "d.h5", "--distractors", tmp_path / "d.h5", "--json")
    )
    assert joined["n_database"] == 3 * plain["n_database"]
    assert [part["n"] for part in joined["provenance"]["distractors"]] == [48, 48]
    assert 0 < joined["protocols"]["medium"]["mAP"] < plain["protocols"]["medium"]["mAP"]
    assert (
        "96 of them distractors"
        in ultron("evaluate", *extracted, "--distractors", tmp_path / "d.h5", "--distractors", tmp_path / "d.h5")[1]
    )
    read_json(
        ultron(
            "evaluate",
            *extracted,
            "--distractors",
            tmp_path / "d.h5",
            "--rerank",
            "superglobal,dba,diffusion,kreciprocal",
            "--json",
        )
    )
    expect_error(ultron("evaluate", *extracted, "--distractors", tmp_path / "none.h5"), "does not exist")


def test_blocks_of_queries_give_the_same_evaluation(
    ultron: Run, extracted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_json(ultron("evaluate", *extracted, "--rerank", "superglobal", "--json"))
    monkeypatch.setattr("ultron_cli.retrieval.searching.RANKING_BYTES", 12 * 48)
    assert (
        read_json(ultron("evaluate", *extracted, "--rerank", "superglobal", "--json"))["protocols"]
        == whole["protocols"]
    )


def test_index_report_on_the_command_line(ultron: Run, extracted: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = ultron(
        "index", tmp_path / "database.h5", "--type", "ivf", "--report", "--out", tmp_path / "ivf.index"
    )
    assert code == 0, err
    assert "building the index needs " in err
    assert "recall@1" in out and "queries/s" in out and str(tmp_path / "ivf.report.png") in out
    assert (tmp_path / "ivf.report.png").read_bytes()[:4] == b"\x89PNG"
    code, out, err = ultron("evaluate", *extracted, "--index", tmp_path / "ivf.index", "--nprobe", 1, "--rescore", 0)
    assert code == 0, err
    assert "approximate index ivf" in out
