"""The commands as a person uses them, through main()."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, shared_or_skip

MODEL = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")


def test_the_pipeline_step_by_step(ultron: Run, toy: Path, tmp_path: Path) -> None:
    settings = ("model.name=gem", "model.backbone=test_resnet", "epochs=1", "batch_size=8", "side_px=64", "workers=0")
    code, out, err = ultron(
        "train", "--dataset", toy, *(part for setting in settings for part in ("--set", setting)), "--json"
    )
    assert code == 0, err
    run = json.loads(out)
    assert (run["n_photos"], run["n_landmarks"]) == (36, 6)
    assert {path.name for path in Path(run["run"]).iterdir()} >= {
        "config.json",
        "metrics.jsonl",
        "steps.jsonl",
        "split.json",
        "checkpoint.pt",
    }

    code, out, err = ultron("extract", "--dataset", toy, "--scales", "1", "--workers", "0", "--json")
    assert code == 0, err
    assert "taking the latest train result" in err
    extracted = json.loads(out)
    assert extracted["files"]["query"]["n"] == 4

    code, out, err = ultron("index", "--json")
    assert code == 0, err
    index = json.loads(out)["index"]

    code, out, err = ultron(
        "search", "--out", tmp_path / "ranks.h5", "-k", extracted["files"]["database"]["n"], "--json"
    )
    assert code == 0, err
    exact = json.loads(out)["results"]
    code, out, err = ultron("search", "--index", index, "-k", 5, "--json")
    assert code == 0, err
    assert [[photo["name"] for photo in result["photos"]] for result in json.loads(out)["results"]] == [
        [photo["name"] for photo in result["photos"][:5]] for result in exact
    ]

    code, out, err = ultron("evaluate", "--protocol", "all", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert set(report["protocols"]) == {"easy", "medium", "hard"}
    code, out, err = ultron("evaluate", "--ranks", tmp_path / "ranks.h5", "--json")
    assert code == 0, err
    assert json.loads(out)["protocols"] == report["protocols"]

    for command in (("visualize-cam", "-k", 2), ("visualize", "ranks", "-k", 4)):
        code, out, err = ultron(*command, "--json")
        assert code == 0, err
        with Image.open(json.loads(out)["figure"]) as figure:
            assert figure.format == "PNG"


def test_searching_for_a_photo_finds_itself(ultron: Run, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = ultron("extract", toy, *MODEL)
    assert code == 0, err
    photo = sorted((toy / "jpg").glob("*.jpg"))[0]
    names = json.loads((toy / "gnd_toy.json").read_text())
    photo = toy / "jpg" / f"{names['imlist'][3]}.jpg"
    code, out, err = ultron("search", photo, "-k", 3, "--json")
    assert code == 0, err
    best = json.loads(out)["results"][0]["photos"][0]
    assert best["name"] == names["imlist"][3]
    assert best["score"] == pytest.approx(1.0, abs=1e-5)
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = ultron("search", photo, photo, "-k", 3)
    first, second = out.split("\n\n")
    assert (first.splitlines()[0], second.splitlines()[0]) == (str(photo), str(photo))  # whole, to be copied
    assert first.splitlines()[1].split() == ["rank", "photo", "score"]
    assert names["imlist"][3] in first


def test_a_query_photo_with_its_box_equals_the_stored_query(ultron: Run, toy: Path) -> None:
    ultron("extract", toy, *MODEL)
    truth = json.loads((toy / "gnd_toy.json").read_text())
    box = ",".join(str(side) for side in truth["gnd"][0]["bbx"])
    stored = json.loads(ultron("search", "-k", 5, "--json")[1])["results"][0]["photos"]
    code, out, err = ultron("search", toy / "jpg" / f"{truth['qimlist'][0]}.jpg", "--bbx", box, "-k", 5, "--json")
    assert code == 0, err
    by_path = json.loads(out)["results"][0]["photos"]
    assert [photo["name"] for photo in by_path] == [photo["name"] for photo in stored]
    np.testing.assert_allclose([photo["score"] for photo in by_path], [photo["score"] for photo in stored], atol=1e-5)


def test_no_crop_is_recorded_and_printed_with_the_score(ultron: Run, toy: Path) -> None:
    code, out, _ = ultron("extract", toy, *MODEL, "--no-crop")
    assert code == 0
    assert "NOT cropped" in out
    code, out, _ = ultron("evaluate")
    assert code == 0
    assert "NOT cropped" in out
    assert "hard" in out


def test_scores_stand_in_percent_and_files_hold_fractions(ultron: Run, toy: Path, tmp_path: Path) -> None:
    ultron("extract", toy, *MODEL)
    code, out, _ = ultron("evaluate", "--protocol", "medium", "--out", tmp_path / "e.json")
    assert code == 0
    stored = json.loads((tmp_path / "e.json").read_text())
    assert set(stored["protocols"]) == {"medium"}
    score = stored["protocols"]["medium"]["mAP"]
    assert 0 < score <= 1
    assert f"{100 * score:.2f}" in out
    assert stored["provenance"]["config"]["crop"] == "bbx"
    assert stored["n_database"] == 48


def test_compare_two_evaluations(ultron: Run, toy: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        ultron("extract", toy, *MODEL, "--seed", seed, "--out", tmp_path / str(seed))
        ultron("evaluate", "--out", tmp_path / f"{seed}.json")
    code, out, err = ultron("compare", tmp_path / "0.json", tmp_path / "1.json", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert 0 <= result["protocols"]["medium"]["p_value"] <= 1
    assert any("weights (SHA-256)" in entry for entry in result["settings_that_differ"])


def test_compare_tells_what_differs_in_words(ultron: Run, toy: Path, tmp_path: Path) -> None:
    ultron("extract", toy, *MODEL)
    assert ultron("evaluate", "--out", tmp_path / "a.json")[0] == 0
    code, out, _ = ultron("evaluate", "--rerank", "aqe", "-k", 5, "--out", tmp_path / "b.json")
    assert "only the 5 best photos of each query are ranked" in out
    code, out, err = ultron("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0, err
    assert "re-ranking: A none, B aqe" in out
    assert "photos ranked per query: A 48, B 5" in out
    assert "paired randomisation test over 4 queries" in out
    assert "p 0.000" not in out
    assert "which chance may explain" in out
    out = ultron("compare", tmp_path / "a.json", tmp_path / "a.json")[1]
    assert "equal on every query" in out and "differing: nothing that is recorded" in out


def test_photos_of_ones_own_as_the_readme_has_it(ultron: Run, toy: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((toy / "jpg").glob("*.jpg"))[:17]:
        (photos / path.name).write_bytes(path.read_bytes())
    holiday = tmp_path / "holiday.jpg"
    holiday.write_bytes(next(photos.iterdir()).read_bytes())
    code, out, err = ultron("extract", "--dataset", photos, *MODEL)
    assert code == 0, err
    assert "cropped" not in out  # there are no queries
    code, out, err = ultron("search", holiday, "-k", 20)
    assert code == 0, err
    assert "the database has 17 photos" in err and "\n17 " in out
    assert ultron("index", "--type", "flat")[0] == 0
    for command in (
        ("visualize", "ranks", "-k", 10),
        ("visualize", "match", "--at", "10,10"),
        ("visualize", "report"),
    ):
        code, out, err = ultron(*command)
        assert code == 0, err
        assert "taking the latest search result" in err
        assert Path(out.splitlines()[-1]).is_file()
    words = ("no queries.h5", "--queries")
    code, _, err = ultron("evaluate")
    assert code == 2 and all(word in err for word in words)


def test_who_names_a_file_gets_no_rows(ultron: Run, toy: Path, tmp_path: Path) -> None:
    ultron("extract", toy, *MODEL)
    ranks = tmp_path / "r.h5"
    assert ultron("search", "--out", ranks)[1] == f"{ranks}\n"
    assert "rank" in ultron("search")[1]
    assert len(json.loads(ultron("search", "--out", ranks, "--json")[1])["results"]) == 4


def test_doctor_tells_what_is_there(ultron: Run, tmp_path: Path) -> None:
    code, out, _ = ultron("doctor", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["workspace"] == str(tmp_path / "runs")
    assert facts["data root"] == str(tmp_path / "data")
    assert {"torch", "timm", "numpy"} <= set(facts["packages"])
    assert facts["faiss"]
    assert facts["operators"]
    assert "test_resnet" in ultron("doctor", "--backbones", "test_res*")[1]


def test_weights_inspect(ultron: Run, toy: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"a.weight": torch.zeros(2, 3)}, tmp_path / "w.pth")
    code, out, _ = ultron("weights", "inspect", tmp_path / "w.pth", "--json")
    assert code == 0
    assert json.loads(out)["tensors"] == [{"name": "a.weight", "shape": [2, 3], "dtype": "float32"}]


def test_datasets_info_counts_labels(ultron: Run, toy: Path) -> None:
    code, out, _ = ultron("datasets", "info", toy, "--json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["database"], facts["queries"], facts["missing_photos"]) == (48, 4, 0)
    assert facts["protocols"]["medium"]["queries_used"] == 4


def test_global_flags_stand_before_or_after_the_command(ultron: Run) -> None:
    assert json.loads(ultron("--json", "datasets", "list")[1]) == json.loads(ultron("datasets", "list", "--json")[1])


def test_quiet_prints_nothing_but_errors(ultron: Run, toy: Path, tmp_path: Path) -> None:
    ranks = tmp_path / "r.h5"
    assert ultron("extract", toy, *MODEL, "-q") == (0, "", "")
    assert ultron("search", "-q", "-k", 3, "--out", ranks) == (0, "", "") and ranks.is_file()
    assert ultron("evaluate", "--quiet") == (0, "", "")
    assert ultron("weights", "list", "-q") == (0, "", "")
    assert len(json.loads(ultron("search", "-q", "--json", "-k", 3)[1])["results"]) == 4
    assert ultron("search", "-q", "-k", 0) == (2, "", "error: -k must be at least 1; found 0\n")


def test_real_photographs_give_the_measured_baseline(ultron: Run) -> None:
    """The figures of shared/minidev/README.txt, within half a point, by the fastest runtime that is installed."""
    shared = shared_or_skip("real photographs and trained weights give the measured mAP, within half a point")
    weights = shared / "weights" / "tf_efficientnet_lite0.pth"
    code, _, err = ultron(
        "extract",
        "--dataset",
        shared / "minidev",
        "--model",
        "gem",
        "--backbone",
        "tf_efficientnet_lite0",
        "--weights",
        weights,
        "--scales",
        "3",
        "--max-side",
        "640",
        "--runtime",
        "auto",
    )
    assert code == 0, err
    assert "left over, the classifier head" in err
    code, out, err = ultron("evaluate", "--protocol", "all", "--json")
    assert code == 0, err
    scores = {name: 100 * part["mAP"] for name, part in json.loads(out)["protocols"].items()}
    assert scores == pytest.approx({"easy": 86.46, "medium": 70.35, "hard": 62.26}, abs=0.5)
