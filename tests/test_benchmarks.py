"""Every benchmark still runs: its help answers, and its smallest form reaches its last line.

Times of so small a form mean nothing, so that an exit code of 1 (a target is missed) is as good as 0. sanitized.py
needs a GPU and compute-sanitizer; it is run by gpu_check.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NEEDS_GPU = {"gpu_check", "sanitized"}
SELDOM = {"same_as"}  # two whole commits, minutes
# name -> (arguments of the smallest form, what its output has at the end)
SMALLEST: dict[str, tuple[str, str]] = {
    "diffusion": ("--rows 300 --queries 4 --dim 32 --runs 1", "target: queries under"),
    "evaluate": ("--rows 6000 --queries 4 --repeats 1", "argsort (quicksort) and loop"),
    "extract": ("--n-photos 12 --max-side 96 --rounds 1 --workers 0 --backbone test_resnet", "share "),
    "gpu_networks": ("--device cpu --side 64 --batch-size 2 --rounds 1 --only ultron-t", "ultron-t"),
    "help": ("--rounds 1 doctor", "doctor"),
    "index_million": ("--n 3000 --dim 32 --queries 5 --kinds ivf --nprobe 4 --runs 1", "recall@100 of"),
    "kernels": ("--runs 1", "three masked convolutions"),
    "models": ("--rounds 1 --side 64 --only ultron-t", "ultron-t"),
    "reliability": ("kills --trials 1 --commands evaluate", "0 faults"),
    "rerank": ("--queries 4 --rows 300 --dim 32 --m 50 --runs 1", "target: at least"),
    "search": ("--rows 2000 --dim 32 --queries 5 -k 10 --runs 1", "torch product + topk"),
    "serve": ("--clients 4 --slow 4 --seconds 1 --passes 1", "target: no failure"),
    "train": (
        "--n-photos 8 --side 64 --photo-side 128 --rounds 1 --share-epochs 1 --share-landmarks 4",
        "waiting for photos",
    ),
}
pytestmark = pytest.mark.slow


def run(name: str, arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments.split()]
    return subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=300)


def test_every_benchmark_is_here() -> None:
    assert set(SMALLEST) | NEEDS_GPU | SELDOM == {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.mark.parametrize("name", sorted(SELDOM | {"gpu_check"}))
def test_help_answers(name: str) -> None:
    completed = run(name, "--help")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("usage:")


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_form_runs(name: str) -> None:
    arguments, last = SMALLEST[name]
    if name in ("search", "index_million"):
        pytest.importorskip("faiss")
    completed = run(name, arguments)
    assert completed.returncode in (0, 1) and "Traceback" not in completed.stderr, completed.stderr
    assert last in completed.stdout
