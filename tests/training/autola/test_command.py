"""AutoLA's search as a run of `ultron train`, and training with the attention that it found."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import Run
from ultron_cli.models.attentions.genotype import OPERATIONS, load_genotype

SEARCH = [
    f"--set={text}"
    for text in (
        "backbone=cifar_resnet8",
        "width=8",
        "batch_size=8",
        "epochs=2",
        "architecture_lr=0.05",
        "workers=0",
        "threads=1",
    )
]


def test_search_writes_everything_and_its_genotype_trains(ultron: Run, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    code, out, err = ultron("train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--out", folder)
    assert code == 0, err
    genotype = load_genotype(folder / "genotype.txt")
    assert "seed 0" in (folder / "genotype.txt").read_text() and genotype.text in out
    assert Image.open(folder / "genotype.png").size[0] > 500 and (folder / "curves.png").stat().st_size > 4000
    lines = list(csv.DictReader((folder / "edge_weights.csv").open(newline="")))
    assert len(lines) == 90 and {line["operation"] for line in lines} == set(OPERATIONS)
    for line in lines[:9]:
        assert f"{float(line['weight']):.3f}" in out  # the printed table
    stored = json.loads((folder / "config.json").read_text())["config"]
    assert (
        stored["task"] == "search" and stored["seed"] == 0 and stored["epochs"] == 2 and stored["dataset"] == str(toy)
    )
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    code, _, err = ultron("train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--out", folder)
    assert code == 2 and "holds a finished run; replace it with --overwrite" in err
    code, _, err = ultron("train", "--resume", "--out", folder)
    assert code == 2 and "there is nothing to resume" in err
    network = (
        f"model.genotype={genotype.text}",
        "model.attention=hoga",
        "model.name=gem",
        "model.backbone=cifar_resnet8",
    )
    trained = [
        f"--set={text}"
        for text in (*network, "side_px=32", "batch_size=32", "epochs=1", "workers=0", "validation.share=0")
    ]
    code, out, err = ultron("train", "--dataset", toy, *trained, "--out", tmp_path / "trained")
    assert code == 0, err
    assert "gem-cifar_resnet8-hoga" in out
    blocks = torch.load(tmp_path / "trained" / "checkpoint.pt", weights_only=True)
    assert blocks["model"]["settings"]["genotype"] == genotype.text and any(
        ".se.operations." in name for name in blocks["state_dict"]
    )


def test_runs_are_listed_and_a_search_is_not_taken_for_a_model(ultron: Run, toy: Path) -> None:
    code, out, err = ultron(
        "--json", "train", "--preset", "autola-search", "--dataset", toy, *SEARCH, "--set", "epochs=1"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert len(summary["edges"]) == 10 and sum(summary["edges"][0]["weights"]) == pytest.approx(1.0, abs=1e-4)
    (listed,) = json.loads(ultron("--json", "train", "--list")[1])["runs"]
    assert listed["state"] == "finished" and listed["model"] == "search-cifar_resnet8" and listed["epochs_done"] == 1
    code, _, err = ultron("extract", "--dataset", toy)
    assert code == 2 and "no result of `ultron train` in the workspace" in err
