"""Heads over one frozen network in a sweep: its photos are described once, and every head is trained on, and applied
to, what is stored."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.errors import UltronError
from ultron_cli.machine import resolve_device
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.adapted import adapt_descriptors
from ultron_cli.sweep.plan import read_plan
from ultron_cli.sweep.tasks import tasks_of

PLAN = """
[model]
name = "gem"
backbone = "test_resnet"
untrained = true
[extract]
dataset = "{dataset}"
max_side_px = 64
scales = 1
[head]
source = "{dataset}/train"
[head.train]
batch_size = 16
epochs = 1
validation.share = 0.0
model.descriptor_dim = 16
[grid]
head.name = ["none", "linear", "own.py:Folded"]
"""
OWN = """
from torch import nn


class Folded(nn.Module):
    def __init__(self, n_inputs: int, descriptor_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_inputs, descriptor_dim)

    def forward(self, descriptors):
        return self.layer(descriptors).relu() + 0.01
"""


@pytest.fixture
def plan_file(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    path = tmp_path / "heads.toml"
    path.write_text(PLAN.format(dataset=toy))
    return path


def test_every_photo_is_described_once_whatever_heads_there_are(plan_file: Path) -> None:
    tasks = {task.key: task for cell in read_plan(str(plan_file), ()).cells for task in tasks_of(cell.settings)}
    steps = sorted(task.step for task in tasks.values())
    assert steps == sorted(3 * ["extract"] + 2 * ["head"] + 4 * ["adapt"] + 3 * ["evaluate"])
    whitened = read_plan(str(plan_file), ("whiten.method=pca", "whiten.source=elsewhere", 'grid.head.name=["mlp"]'))
    steps = sorted(task.step for task in tasks_of(whitened.cells[0].settings))
    assert steps == sorted(4 * ["extract"] + ["head"] + 3 * ["adapt"] + ["whiten", "evaluate"])


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("head.name=lineal", "`head.name` must be one of none, linear, mlp; found 'lineal'; did you mean linear?"),
        ("head.train.lr=much", "lr must be a number; found 'much'"),
        ("head.train.epoch=3", "unknown setting epoch; did you mean epochs"),
        ("head.preset=autola", "autola"),
        ("head.sauce=x", "unknown setting head.sauce; did you mean source"),
    ],
)
def test_wrong_settings(plan_file: Path, assignment: str, words: str) -> None:
    text = plan_file.read_text().partition("[grid]")[0]
    plan_file.write_text(text.replace("[head]", '[head]\nname = "linear"'))
    with pytest.raises(UltronError) as error:
        read_plan(str(plan_file), (assignment,))
    assert words in str(error.value)
    plan_file.write_text(text.replace("source =", "name = 'mlp' #"))
    with pytest.raises(UltronError, match=r"head\.source names the landmarks that heads are trained on; add it"):
        read_plan(str(plan_file), ())


def test_heads_in_one_command_are_what_extraction_with_each_gives(plan_file: Path, toy: Path, ultron: Run) -> None:
    code, out, err = ultron("sweep", plan_file, "--workers", 1, "--out", "heads", "--json")
    assert code == 0, err
    assert all(name in out for name in ("head=none", "head=linear", "head=own.py:Folded"))
    entries = [json.loads(line) for line in Path("heads/steps.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries].count("extract") == 3
    results = {
        step: [Path(entry["result"]) for entry in entries if entry["step"] == step] for step in ("head", "adapt")
    }
    assert len(results["head"]) == 2 and (results["head"][1].parent / "code" / "own.py").read_text() == OWN
    described = [path for path in results["adapt"] if path.name == "database.h5"]
    for head, path in zip(results["head"], described, strict=True):
        options = ("--max-side", 64, "--scales", 1, "--code", "own.py", "--overwrite")
        code, _, err = ultron("extract", toy, "--run", head.parent, "--out", "again", *options)
        assert code == 0, err
        with DescriptorFile(path) as adapted, DescriptorFile(Path("again/database.h5")) as again:
            assert adapted.names == again.names and adapted.info.model == again.info.model
            np.testing.assert_allclose(adapted.read(), again.read(), atol=1e-6)
            assert not adapted.info.extraction.differences(again.info.extraction)
            assert adapted.info.weights_sha256 == again.info.weights_sha256
    code, _, err = ultron("sweep", plan_file, "--workers", 1, "--out", "heads")  # goes on: nothing is computed again
    assert code == 0 and len(Path("heads/steps.jsonl").read_text().splitlines()) == len(entries), err


def test_a_head_over_another_network(plan_file: Path, toy: Path, ultron: Run, tmp_path: Path) -> None:
    described = ("--untrained", "--max-side", 64, "--scales", 1)
    for model, out in (("test_resnet", "a"), ("test_vit", "b")):
        assert ultron("extract", toy / "train", "--backbone", model, *described, "--out", out)[0] == 0
    small = ("--set", "batch_size=16", "--set", "epochs=1", "--set", "validation.share=0")
    assert ultron("train", "--descriptors", "a/database.h5", *small, "--out", "run")[0] == 0
    with pytest.raises(UltronError, match=r"checkpoint\.pt is a head over gem-test_resnet, .* with gem-test_vit"):
        adapt_descriptors(Path("b/database.h5"), Path("run/checkpoint.pt"), tmp_path / "c.h5", resolve_device("cpu"))
