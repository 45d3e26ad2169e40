"""`ultron sweep` as people run it: table and picture, side by side, stopped and taken up, failed cells."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Run, read_json

GRID = """
[model]
name = "gem"
backbone = "test_resnet"
untrained = true
[extract]
scales = 1
max_side_px = 64
[grid]
extract.crop = ["bbx", "none"]
search.rerank = ["none", "aqe"]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_a_sweep_prints_scores_changes_and_costs(ultron: Run, toy: Path, grid: Path, tmp_path: Path) -> None:
    code, out, err = ultron("sweep", grid, "--dataset", toy, "--workers", 1)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[-2:] == [str(tmp_path / "runs/sweep/grid"), str(tmp_path / "runs/sweep/grid/pareto.png")]
    assert sum("crop=none, rerank=aqe" in line for line in lines) == 2  # scores, and what it changes
    assert "ms per query" in out and "A: queries cropped, 1 scale, longest side 64 px; the others differ" in out
    assert (tmp_path / "runs/sweep/grid/pareto.png").exists()
    assert err.count("fewer than 20 queries") == 1  # said once, not by every cell
    content = read_json(ultron("sweep", grid, "--dataset", toy, "--json"))
    assert [cell["name"] for cell in content["cells"]] == [
        "crop=bbx, rerank=none",
        "crop=bbx, rerank=aqe",
        "crop=none, rerank=none",
        "crop=none, rerank=aqe",
    ]
    assert content["cells"][0]["costs"][0]["bytes_per_photo"] == 4 * content["cells"][0]["costs"][0]["dim"]
    (table,) = content["tables"]
    assert [(pair["a"], pair["b"]) for pair in table["protocols"]["medium"]["pairs"]] == [
        (c, d) for c, d in ("AB", "AC", "AD")
    ]
    for style, words in (
        ("latex", r"\begin{tabular}{llrrr}"),
        ("csv", "system,label,dataset,protocol"),
        ("markdown", "| D |"),
    ):
        code, out, _ = ultron("sweep", grid, "--dataset", toy, "--format", style)
        assert code == 0 and words in out and "ms per query" not in out
    cells = tmp_path / "runs/sweep/grid/cells"
    code, out, err = ultron("compare", cells)  # its cells are evaluations like others
    assert code == 0 and "crop=none, rerank=aqe" in out, err


def test_changed_settings_and_wrong_values(ultron: Run, toy: Path, grid: Path) -> None:
    assert ultron("sweep", grid, "--dataset", toy, "--set", 'grid.search.rerank=["none"]', "--workers", 1)[0] == 0
    code, _, err = ultron("sweep", grid, "--dataset", toy)
    assert code == 2 and "with other settings: with crop=bbx, rerank=aqe, crop=none, rerank=aqe; go on" in err
    assert "another folder with --out, or begin anew with --overwrite" in err
    code, _, err = ultron("sweep", grid, "--dataset", toy, "--workers", 100_000)
    assert code == 2 and "--workers must not be more than" in err
    code, _, err = ultron("sweep", grid, "--set", "extract")
    assert code == 2 and "--set takes key=value (extract.scales=3)" in err
    code, _, err = ultron("sweep", "nothing")
    assert code == 2 and "a sweep is a TOML file or one of" in err


def test_failed_cells_are_told_after_the_table(ultron: Run, toy: Path, grid: Path) -> None:
    code, out, err = ultron(
        "sweep",
        grid,
        "--dataset",
        toy,
        "--workers",
        1,
        "--set",
        'grid.extract.dataset=["x", "TOY"]'.replace("TOY", str(toy)),
    )
    assert code == 1 and "of 8 cells failed" in err and "the same command tries them again" in err
    assert "dataset=" in out


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="cells side by side need two cores")
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="a process's children are told by Linux")
def test_side_by_side_and_stopped(ultron: Run, toy: Path, grid: Path, tmp_path: Path) -> None:
    """Ctrl-C says how to go on, and nothing that was computed by then is computed again."""
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "ultron_cli", "sweep", str(grid), "--dataset", str(toy), "--workers", "2"]
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored
    process = subprocess.Popen(
        [*command, "--workspace", str(runs)], stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    )
    journal = runs / "sweep/grid/steps.jsonl"
    deadline = time.monotonic() + 120
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)  # until a worker has begun: four cells of this size are done a moment after the first
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted: " in err and "of 4 cells are done and kept, the same command goes on from there" in err
    code, _, err = ultron("sweep", grid, "--dataset", toy, "--workers", 1)
    assert code == 0, err
    results = [json.loads(line)["result"] for line in journal.read_text().splitlines()]
    assert len(results) == len(set(results)) >= 4
