"""`ultron visualize dilation`, `attention`, `cam` and `match` of ULTRON models."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run


def test_commands_of_ultron_models(ultron: Run, toy: Path, tmp_path: Path) -> None:
    """dilation, attention, cam at a stage and match on rendered landmarks with an untrained ultron-t."""
    network = ("--model", "ultron-t", "--untrained")
    code, out, error = ultron(
        "visualize", "dilation", *network, "--dataset", toy, "--photos", 3, "--out", tmp_path / "d.svg", "--json"
    )
    assert code == 0, error
    result = json.loads(out)
    assert len(result["photos"]) == 3 and sum(result["shares"]["stage 1"].values()) == pytest.approx(1.0)
    assert Path(result["figure"]).is_file() and Path(result["csv"]).is_file()
    code, out, error = ultron(
        "visualize", "attention", *network, "--dataset", toy, "--at", "10,10", "--stage", 4, "--json"
    )
    assert code == 0, error
    result = json.loads(out)
    assert result["cell"] == [0, 0] and len(result["weights"]) == 4 and Path(result["figure"]).is_file()
    code, _, error = ultron("visualize", "attention", *network, "--dataset", toy, "--at", "10")
    assert code == 2 and "--at takes X,Y, 2 numbers with commas between" in error

    assert ultron("extract", "--dataset", toy, *network, "--scales", "1", "--workers", "0", "--max-side", "64")[0] == 0
    for options in (
        ("--method", "attention"),
        ("--method", "guided-gradcam", "--layer", "stage3"),
        ("--method", "gradcam++", "--layer", "stage2"),
    ):
        code, out, error = ultron("visualize", "cam", "-k", 1, *options, "--json")
        assert code == 0, error
        assert Path(json.loads(out)["figure"]).is_file()
    box = json.loads((toy / "gnd_toy.json").read_text())["gnd"][0]["bbx"]
    middle = f"{(box[0] + box[2]) / 2},{(box[1] + box[3]) / 2}"
    code, out, error = ultron("visualize", "match", "--at", middle, "-k", 2, "--layer", "stage3", "--json")
    assert code == 0, error
    result = json.loads(out)
    assert len(result["photos"]) == 2 and all(-1 <= photo["cosine"] <= 1 for photo in result["photos"])
    code, _, error = ultron("visualize", "match")
    assert code == 2 and "choose a place of the query with either --at" in error
    code, _, error = ultron("visualize", "match", "--at", middle, "--photo", "nothing")
    assert code == 2 and "'nothing' is not among the " in error
