"""What a command loads before it does anything: torch, timm and torchvision take seconds of the processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

# Runs commands, one per argument, in one process. Prints each exit code, and the heavy modules loaded at the end.
PROGRAM = """
import shlex, sys
from ultron_cli.cli import main
codes = [main(shlex.split(line)) for line in sys.argv[1:]]
heavy = {"torch", "timm", "torchvision", "torch._dynamo", "scipy", "sklearn"} & set(sys.modules)
print(codes, sorted(heavy), sep="\\n", file=sys.stderr)
"""
MODEL = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")


def run_all(*lines: str) -> tuple[list[int], list[str], str]:
    """(exit codes, heavy modules, stderr) of commands in one process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    *_, codes, heavy = done.stderr.splitlines()
    return json.loads(codes), json.loads(heavy.replace("'", '"')), done.stderr


def test_stored_descriptors_are_searched_and_scored_without_torch(ultron: Run, toy: Path, tmp_path: Path) -> None:
    assert ultron("extract", toy, *MODEL)[0] == 0
    codes, heavy, err = run_all(
        f"evaluate --device cpu --out {tmp_path / 'e.json'}",
        f"search --device cpu -k 5 --out {tmp_path / 'r.h5'}",
        f"evaluate --ranks {tmp_path / 'r.h5'} --protocol hard",
        "whiten --method pca --dim 8",
        f"compare {tmp_path / 'e.json'} {tmp_path / 'e.json'}",
    )
    assert (codes, heavy) == ([0, 0, 0, 0, 0], []), err


def test_what_computes_nothing_loads_nothing(ultron: Run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("group,setting,seed,metric,value\np,a,0,mAP,0.5\np,b,0,mAP,0.6\n", encoding="utf-8")
    codes, heavy, err = run_all(
        "weights list",
        "doctor --backbones 'resnet5*'",
        "datasets list",
        "train --list",
        f"visualize ablation {table} --out {tmp_path / 'a.png'}",
    )
    assert (codes, heavy) == ([0, 0, 0, 0, 0], []), err


# Each with a word of its message.
MISTAKES = {
    "extract --precision float99": "--precision must be one of float32",
    "extract --storage f": "--storage must be one of",
    "extract --resize up": "--resize must be one of",
    "extract --scales 0": "--scales takes",
    "extract --backbone resnet5O --untrained": "did you mean resnet50",
    "extract --model gemm --untrained": "did you mean gem?",
    "extract --device gpu": "--device takes auto, cpu, cuda or cuda:N",
    "extract --batch-size 0": "--batch-size must be at least 1",
    "search nosuch.jpg --database d.h5": "nosuch.jpg: no such photo",
    "search -k 0": "-k must be at least 1",
    "search --rerank aqee": "did you mean aqe?",
    "evaluate --protocol hrd": "did you mean hard?",
    "evaluate -k -5": "-k must be at least 1; found -5",
    "evaluate --duplicates all": "--duplicates must be one of",
    "train --preset nosuch": "unknown preset",
    "train --set epochs=abc": "epochs must be a whole number",
    "train --set nosuch=1": "unknown setting nosuch",
    "visualize cam --method foo": "--method must be one of",
    "visualize ranks --protocol foo": "--protocol must be one of",
    "visualize report --maps -1": "--maps must be at least 0",
    "weights import a.pth --from dolgg --out x.pt": "did you mean dolg?",
    "whiten --method foo": "--method must be one of",
    "index --engine foo": "--engine must be one of",
    "serve --method foo": "--method must be one of",
    "serve -k 0": "-k must be at least 1",
    "bench --rounds 0": "--rounds must be at least 1",
    "datasets build-gnd . --query-rule foo": "--query-rule must be one of",
    "datasets verify toy --workers 0": "--workers must lie between 1 and 256",
    "datasets download x --jobs 0": "--jobs must be at least 1",
}


@pytest.mark.slow
def test_a_mistyped_value_is_told_before_anything_is_loaded() -> None:
    codes, heavy, err = run_all(*MISTAKES)
    assert set(codes) == {2}, err
    messages = [line for line in err.splitlines() if line.startswith("error: ")]
    for (line, words), message in zip(MISTAKES.items(), messages, strict=True):
        assert words in message, (line, message)
    assert not heavy, err
