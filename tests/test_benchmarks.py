"""Every benchmark still runs: its smallest form reaches its last line, has checked equality, and keeps its rows.

Times of so small a form mean nothing, so that an exit code of 1 (a target is missed) is as good as 0.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.prepared_python import run_python

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED_BY_ALL = {"rows", "limits", "performance"}
# name -> (arguments of the smallest form, what its output has at the end). TOY is a rendered dataset, PHOTOS a folder
# of some of its photos.
MEASURING: dict[str, tuple[str, str]] = {
    "commands": ("--rounds 1 --rows 200 --dim 16 --queries 3 --only search whiten", "whiten"),
    "descriptors": ("--n 3000 --dim 32", "target: over 100 MB/s"),
    "diffusion": ("--rows 300 --queries 4 --dim 32 --runs 1", "target: queries under"),
    "evaluate": ("--rows 6000 --queries 4 --repeats 1", "argsort (quicksort) and loop"),
    "extract": ("--photos PHOTOS --max-side 96 --rounds 1 --workers 0 --backbone test_resnet", "share "),
    "gpu_networks": ("--device cpu --side 64 --batch-size 2 --rounds 1 --only ultron-t", "ultron-t"),
    "index_million": ("--n 3000 --dim 32 --queries 5 --kinds ivf --nprobe 4 --runs 1", "recall@100 of"),
    "kernels": ("--runs 1", "three masked convolutions"),
    "local": ("--landmarks 1 --side 160 --pairs 4 --runs 1", "target: under"),
    "models": ("--rounds 1 --side 64 --only ultron-t", "ultron-t"),
    "rerank": ("--queries 4 --rows 300 --dim 32 --m 50 --runs 1", "target: at least"),
    "runtimes": ("--rounds 1 --size 64x64 --only ultron-t", "own operators, which the runtime does not have"),
    "search": ("--rows 2000 --dim 32 --queries 5 -k 10 --runs 1 --large 3000", "reading the file alone"),
    "train": (
        "--n-photos 8 --side 64 --photo-side 128 --rounds 1 --share-epochs 1 --share-landmarks 4",
        "waiting for photos",
    ),
}
WITHOUT_LIMITS = {"descriptors", "gpu_networks", "index_million", "models"}
# Those that compare and check, and measure no speed.
CHECKING: dict[str, tuple[str, str]] = {
    "gpu_check": ("--steps build", "no CUDA device here: nothing was checked"),
    "reliability": ("kills --trials 1 --commands evaluate", "0 faults"),
    "same_as": ("HEAD HEAD --first 2", " equal, "),
    "sanitized": ("--device cpu", "all kernels ran"),
    "serve": ("--photos TOY --clients 4 --slow 4 --seconds 1 --passes 1", "target: no failure"),
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos of 96 px."""
    folder = tmp_path_factory.mktemp("benchmarks") / "photos"
    folder.mkdir()
    for photo in sorted((toy / "jpg").glob("*.jpg"))[:12]:
        shutil.copy(photo, folder)
    return folder


def run(name: str, arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_python([BENCHMARKS / f"{name}.py", *arguments.split()], BENCHMARKS.parent)


def test_every_benchmark_is_here() -> None:
    assert set(MEASURING) | set(CHECKING) | SHARED_BY_ALL == {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.mark.parametrize("name", MEASURING)
def test_the_smallest_form_measures(name: str, tmp_path: Path, photos: Path) -> None:
    if name in ("search", "index_million"):
        pytest.importorskip("faiss")
    arguments, last = MEASURING[name]
    completed = run(name, f"{arguments.replace('PHOTOS', str(photos))} --save {tmp_path}")
    assert completed.returncode in (0, 1) and "Traceback" not in completed.stderr, completed.stderr
    assert last in completed.stdout
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["machine"]["cpu"] and content["results"]
    for title, row in content["results"].items():
        assert row["benchmark"] == name and row["equality"] and row["value"] > 0, title
        assert ("limits" in row) == (name not in WITHOUT_LIMITS), title
    if name == "search":  # a measurement that was stopped goes on with what it has not
        completed = run("performance", f"--measure --short --only search --results {tmp_path}")
        assert f"is in {path} already" in completed.stderr, completed.stderr
        assert "| exact search of a file: 2,000 x 32 from a file" in completed.stdout


@pytest.mark.parametrize("name", CHECKING)
def test_the_smallest_form_checks(name: str, toy: Path) -> None:
    if name == "same_as" and not (shutil.which("git") and (BENCHMARKS.parent / ".git").exists()):
        pytest.skip("compares commits, and this is no checkout of any")
    if name == "gpu_check":
        import torch

        if torch.cuda.is_available():
            pytest.skip("builds and tests on the GPU that is here: make gpu-check")
    arguments, last = CHECKING[name]
    completed = run(name, arguments.replace("TOY", str(toy)))
    assert completed.returncode in (0, 1) and "Traceback" not in completed.stderr, completed.stderr
    assert last in completed.stdout + completed.stderr


def result(folder: Path, name: str, **machine: object) -> Path:
    """A file of measurements."""
    side = {"value": 10.0, "lowest": 9.0, "highest": 11.0, "rounds": 5}
    row = {
        **side,
        "unit": "ms",
        "of": "200,000 x 512",
        "benchmark": "kernels" if machine else "search",
        "others": {"Faiss flat": {**side, "value": 30.0}},
        "limits": {"product alone": {**side, "value": 5.0}},
        "equality": "the literal product",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"results": {name: row}, "machine": {"cpu": "X", "cores": 2, **machine}}))
    return path


def test_the_table_of_the_documentation_is_made_of_kept_rows(tmp_path: Path) -> None:
    files = result(tmp_path, "search"), result(tmp_path, "SCALA", gpu="Y", packages={"torch": "2", "numpy": "1"})
    document = tmp_path / "performance.md"
    shutil.copy(BENCHMARKS.parent / "docs/performance.md", document)
    completed = run("performance", f"{' '.join(map(str, files))} --write {document}")
    assert completed.returncode == 0, completed.stderr
    text = document.read_text(encoding="utf-8")
    row = "10.00 (9.00 to 11.00) ms | Faiss flat 30.00: 3.00x | product alone 5.00: 50% | the literal product |"
    assert f"| search: 200,000 x 512 | {row}" in text
    assert "| SCALA on a GPU: 200,000 x 512 |" in text and "| `extract.py` | not measured |" in text
    assert text.count("| search: ") == 1 and "commit none" in text
