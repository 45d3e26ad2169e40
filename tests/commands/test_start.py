"""What a command loads before it does anything: torch, timm and torchvision take seconds of the processor."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ultron_cli.cli import main

# Runs commands, one per argument, in one process. Prints each exit code, and the heavy modules loaded at the end.
PROGRAM = """
import shlex, sys
from ultron_cli.cli import main
codes = [main(shlex.split(line)) for line in sys.argv[1:]]
heavy = {"torch", "timm", "torchvision", "torch._dynamo", "scipy", "sklearn", "matplotlib", "PIL", "faiss", "cv2"}
heavy &= set(sys.modules)
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


# What commands load of that -> the commands; FOLDER is one with queries.h5, database.h5 and r.h5.
COMMANDS_OF = {
    (): (
        "search -k 5 --out FOLDER/r.h5",
        "search -k 5 --rerank superglobal --json",
        "search --rerank aqe,dba -q",
        "evaluate --out FOLDER/e.json",
        "evaluate --ranks FOLDER/r.h5 --protocol hard",
        "evaluate --whiten FOLDER/w.h5 --dim 4",
        "compare FOLDER/e.json FOLDER/e.json",
        "whiten --method pca --dim 8",
        "whiten --method lw --gnd GND",
        "ranks info FOLDER/r.h5",
        "weights list",
        "doctor --backbones 'resnet5*'",
        "train --list",
        "bench --compare FOLDER/m.json FOLDER/m.json",
    ),
    ("faiss",): (
        "index --out FOLDER/i.index",
        "index --type ivf --out FOLDER/ivf.index",
        "search --index FOLDER/i.index -k 5 --out FOLDER/r2.h5",
        "evaluate --index FOLDER/ivf.index --nprobe 2",
    ),
    ("scipy",): ("search --rerank diffusion -k 5", "evaluate --rerank kreciprocal"),
    ("PIL",): (
        "datasets list",
        "datasets info TOY",
        "ranks export FOLDER/r.h5 --format trec --protocol hard --out FOLDER/r.trec",
        "ranks import FOLDER/r.trec --onto FOLDER/r.h5 --out FOLDER/i.h5",
    ),
    ("PIL", "matplotlib"): (
        "visualize ranks --ranks FOLDER/r.h5 --out FOLDER/r.png",
        "visualize report --ranks FOLDER/r.h5 --out FOLDER/r.html",
        "visualize precision-recall --ranks FOLDER/r.h5 --out FOLDER/p.svg",
        "visualize ablation FOLDER/t.csv --out FOLDER/a.png",
    ),
    ("PIL", "faiss", "matplotlib"): (
        "index --report --queries FOLDER/queries.h5 --out FOLDER/s.index",
        "visualize recall-speed FOLDER/s.report.json --out FOLDER/s.png",
    ),
    ("PIL", "matplotlib", "scipy", "sklearn"): ("visualize tsne --out FOLDER/t.png",),
    ("PIL", "torch"): (
        "extract TOY --untrained --model ultron-t --scales 1 --max-side 64 --workers 0 --out FOLDER/ultron",
    ),
}


@pytest.fixture(scope="module")
def described(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with descriptors of `toy`, a ranking, a whitening, and the workspace in which they are the latest."""
    folder = tmp_path_factory.mktemp("described")
    workspace = ("--workspace", str(folder / "runs"), "-q")
    assert main(["extract", str(toy), *MODEL, "--out", str(folder), *workspace]) == 0
    assert main(["search", "-k", "5", "--out", str(folder / "r.h5"), *workspace]) == 0
    assert main(["whiten", "--method", "pca", "--dim", "8", "--out", str(folder / "w.h5"), *workspace]) == 0
    table = "group,setting,seed,metric,value\np,a,0,mAP,0.5\np,b,0,mAP,0.6\n"
    (folder / "t.csv").write_text(table, encoding="utf-8")
    (folder / "m.json").write_text('{"results": {}}', encoding="utf-8")
    return folder


@pytest.mark.parametrize("libraries", COMMANDS_OF, ids=lambda libraries: " ".join(libraries) or "none")
def test_commands_load_what_they_use(
    libraries: tuple[str, ...], described: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "faiss" in libraries:
        pytest.importorskip("faiss")
    monkeypatch.setenv("ULTRON_WORKSPACE", str(described / "runs"))
    names = {"FOLDER": str(described), "GND": str(toy / "gnd_toy.json"), "TOY": str(toy)}
    lines = [re.sub("|".join(names), lambda match: names[match[0]], line) for line in COMMANDS_OF[libraries]]
    codes, heavy, err = run_all(*lines)
    assert (codes, tuple(heavy)) == ([0] * len(lines), libraries), err


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
    assert heavy == ["PIL"], err  # a photo that is named is looked for
