"""A sweep computes every result once, whatever stops it, and goes on after a cell that fails."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.extraction import shards
from ultron_cli.sweep import steps
from ultron_cli.sweep.plan import SweepPlan, read_plan
from ultron_cli.sweep.run import CellResult, SweepOptions, run_sweep
from ultron_cli.sweep.tables import (
    draw_tables,
    failures_text,
    robustness_curves,
    robustness_table,
    sweep_content,
    sweep_tables,
    sweep_text,
)
from ultron_cli.sweep.tasks import tasks_of
from ultron_cli.workspace import Workspace

GRID = """
[model]
name = "gem"
backbone = "test_resnet"
untrained = true
[extract]
dataset = "{dataset}"
max_side_px = 64
scales = 1
[grid]
extract.crop = ["bbx", "none"]
whiten.method = ["none", "pca"]
search.rerank = ["none", "aqe"]
"""
ONE = SweepOptions(device_name="cpu", workers=1)
Sweep = Callable[..., tuple[Path, list[CellResult]]]


@pytest.fixture(autouse=True)
def few_photos_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 8)
    monkeypatch.setattr(steps, "MOST_TIMED", 1)


def plan_of(tmp_path: Path, toy: Path, *assignments: str) -> SweepPlan:
    path = tmp_path / "grid.toml"
    path.write_text(GRID.format(dataset=toy))
    return read_plan(str(path), assignments)


def journal(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def table_text(folder: Path, results: list[CellResult]) -> str:
    tables = sweep_tables(results)
    content = sweep_content(folder, results, tables)
    return "\n".join(sweep_text(content, tables, style) for style in ("markdown", "csv", "latex"))


def killed(plan: SweepPlan, workspace: Workspace, n_files: int) -> None:
    """Runs the sweep in a child, which SIGKILL ends at the n-th file that it finishes: just before it gets its name, or
    just after."""
    pid = os.fork()
    if pid == 0:
        replace, n_left = os.replace, n_files

        def last_replace(*paths: str) -> None:
            nonlocal n_left
            n_left -= 1
            if n_left == 0 and n_files % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
            if n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = last_replace
        try:
            run_sweep(plan, ONE, workspace)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_a_sweep_of_24_cells_killed_five_times_ends_with_the_same_table(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(
        tmp_path, toy, 'grid.evaluate.duplicates=["count", "first"]', 'grid.search.rerank=["none","aqe","dba"]'
    )
    assert len(plan.cells) == 24
    workspace = Workspace(root=tmp_path / "killed")
    for n_files in (4, 7, 12, 15, 20):
        killed(plan, workspace, n_files)
    folder, results = run_sweep(plan, ONE, workspace)
    plain_folder, plain_results = run_sweep(plan, ONE, Workspace(root=tmp_path / "plain"))
    assert table_text(folder, results) == table_text(plain_folder, plain_results)
    counts = Counter(entry["result"] for entry in journal(folder))
    assert set(counts.values()) == {1}
    assert Counter(str(entry["step"]) for entry in journal(plain_folder)) == {
        "extract": 3,
        "whiten": 1,
        "evaluate": 24,
    }
    assert len(list((tmp_path / "killed" / "evaluate").rglob("evaluation.json"))) == 24


def test_cells_share_what_they_have_in_common(tmp_path: Path, toy: Path) -> None:
    """Also with another sweep; and a sweep that is finished computes nothing."""
    workspace = Workspace(root=tmp_path / "runs")
    folder, results = run_sweep(plan_of(tmp_path, toy), ONE, workspace)
    assert Counter(str(entry["step"]) for entry in journal(folder)) == {"extract": 3, "whiten": 1, "evaluate": 8}
    photos = {Path(str(entry["result"])).name: entry["photos"] for entry in journal(folder) if "photos" in entry}
    assert photos == {"queries.h5": 4, "database.h5": 48}
    again, _ = run_sweep(plan_of(tmp_path, toy), ONE, workspace)
    assert again == folder and len(journal(folder)) == 12
    other = plan_of(tmp_path, toy, 'grid.search.rerank=["none", "dba"]')
    other_folder, _ = run_sweep(other, SweepOptions(device_name="cpu", workers=1, out=tmp_path / "other"), workspace)
    assert Counter(str(entry["step"]) for entry in journal(other_folder)) == {"evaluate": 4}
    assert workspace.latest("extract") is None  # the latest results stay those of commands
    assert sweep_content(folder, results, sweep_tables(results))["cells"]


def test_changed_code_is_another_sweep(tmp_path: Path, toy: Path) -> None:
    """The cell of a changed step is searched again; a fault in it is a line with its place."""
    text = (
        "from dataclasses import dataclass\n\n@dataclass(frozen=True, kw_only=True)\nclass Same:\n"
        "    n_needed: int = 1\n    def __call__(self, state): return state\n"
    )
    (tmp_path / "step.py").write_text(text)
    workspace = Workspace(root=tmp_path / "runs")
    rerank = f'grid.search.rerank=["none", "aqe,{tmp_path / "step.py"}:Same"]'
    plan = plan_of(tmp_path, toy, rerank, 'grid.extract.crop=["bbx"]', 'grid.whiten.method=["none"]')
    folder, _ = run_sweep(plan, ONE, workspace)
    n_steps = len(journal(folder))
    (tmp_path / "step.py").write_text(text + "# changed\n")
    with pytest.raises(
        UltronError, match=r"other settings: .*: code\..*step\.py:Same \(stored \w+, asked \w+\); go on"
    ):
        run_sweep(plan, ONE, workspace)
    again = SweepOptions(device_name="cpu", workers=1, overwrite=True)
    run_sweep(plan, again, workspace)
    assert [entry["step"] for entry in journal(folder)[n_steps:]] == ["evaluate"]
    (tmp_path / "step.py").write_text(text.replace("return state", "return 1 / 0"))
    _, results = run_sweep(plan, again, workspace)
    assert results[1].fault is not None and results[1].fault.message.endswith(
        "step.py, line 6, in __call__: ZeroDivisionError: division by zero; mend it"
    )


def test_changed_settings_of_a_sweep_are_refused(tmp_path: Path, toy: Path) -> None:
    workspace = Workspace(root=tmp_path / "runs")
    small = ('grid.search.rerank=["none"]', 'grid.extract.crop=["bbx"]')
    folder, _ = run_sweep(plan_of(tmp_path, toy, *small), ONE, workspace)
    changed = plan_of(tmp_path, toy, *small, "search.k=5")
    with pytest.raises(UltronError, match=r"was begun with other settings: .*search.k \(stored None, asked 5\); go on"):
        run_sweep(changed, ONE, workspace)
    assert len(list((folder / "cells").iterdir())) == 2
    _, results = run_sweep(changed, SweepOptions(device_name="cpu", workers=1, overwrite=True), workspace)
    assert [result.evaluations[0].origin.k for result in results] == [5, 5]
    assert Counter(str(entry["step"]) for entry in journal(folder)) == {"extract": 2, "whiten": 1, "evaluate": 4}


def test_a_cell_that_fails_leaves_the_others(tmp_path: Path, toy: Path) -> None:
    """Those that need the same fail with it, what it shares with others stays, and the next run tries it again."""
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"no weights")
    path = tmp_path / "grid.toml"
    path.write_text(
        f'[extract]\ndataset = "{toy}"\nscales = 1\nmax_side_px = 64\n[model]\nbackbone = "test_resnet"\n'
        'name = "gem"\n[[cell]]\nname = "good"\nmodel.untrained = true\n'
        f'[[cell]]\nname = "bad"\nmodel.weights = "{weights}"\n[[cell]]\nname = "worse"\nmodel.weights = "{weights}"\n'
        'search.k = 3\n[[cell]]\nname = "wide"\nmodel.untrained = true\nwhiten = {method = "pca", dim = 4000}\n'
    )
    plan = read_plan(str(path), [])
    workspace = Workspace(root=tmp_path / "runs")
    for _ in range(2):
        folder, results = run_sweep(plan, ONE, workspace)
        assert [result.fault is None for result in results] == [True, False, False, False]
    text = failures_text(results)
    assert text.startswith("3 of 4 cells failed: bad and 1 more: ") and str(weights) in text
    assert "wide: `dim` must be between 1 and" in text
    assert [table.systems[0].label for table in sweep_tables(results)] == ["good"]
    assert Counter(str(entry["step"]) for entry in journal(folder)) == {"extract": 2, "whiten": 1, "evaluate": 1}


def test_a_bug_in_a_step_keeps_its_traceback(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(steps, "search_files", broken)
    small = ('grid.search.rerank=["none"]', 'grid.extract.crop=["bbx"]', 'grid.whiten.method=["none"]')
    _, (result,) = run_sweep(plan_of(tmp_path, toy, *small), ONE, Workspace(root=tmp_path / "runs"))
    assert result.fault is not None and "KeyError: 'x'" in str(result.fault)
    assert 'raise KeyError("x")' in caplog.text


def test_seeds_are_one_row(tmp_path: Path, toy: Path) -> None:
    """A grid over what is untrained stands for runs, which this test has none of."""
    small = ('grid.search.rerank=["none"]', 'grid.extract.crop=["bbx"]', 'grid.whiten.method=["none"]')
    plan = plan_of(tmp_path, toy, *small, "model.seeds=[0, 1, 2]")
    _, (result,) = run_sweep(plan, ONE, Workspace(root=tmp_path / "runs"))
    assert len(result.evaluations) == 3 and len({path.name for path in result.paths}) == 3
    (table,) = sweep_tables([result])
    assert table.standings[0].systems[0].n_seeds == 3 and table.standings[0].systems[0].seeds_sd


def test_the_latest_run_of_the_beginning_is_that_of_the_whole_sweep(tmp_path: Path, toy: Path) -> None:
    plan = read_plan("protocol-worth", ["cell=[]"], {"extract": {"dataset": str(toy), "scales": 1}})
    workspace = Workspace(root=tmp_path / "runs")
    with pytest.raises(UltronError, match=r"no result of `ultron train` in the workspace .* or name a model under"):
        run_sweep(plan, ONE, workspace)
    for name in ("first", "second"):
        workspace.remember("train", workspace.result_folder("train", name))
        if name == "first":
            folder, (result,) = run_sweep(plan, ONE, workspace)
            assert result.fault is not None and "first" in (folder / "sweep.json").read_text()  # an empty folder
    with pytest.raises(UltronError, match=r"all: model\.run \(stored .*/first, asked .*/second\)"):
        run_sweep(plan, ONE, workspace)


def test_steps_that_make_the_same_are_one_task(tmp_path: Path, toy: Path) -> None:
    plan = plan_of(tmp_path, toy)
    tasks = [task for cell in plan.cells for task in tasks_of(cell.settings)]
    assert len({task.key for task in tasks}) == 2 + 1 + 1 + 8  # queries, database, whitening, evaluations
    keys = {task.key for task in tasks}
    assert all(set(task.needs.values()) <= keys for task in tasks)


def test_corrupted_queries_share_the_database_and_severity_0_is_the_plain_cell(tmp_path: Path, toy: Path) -> None:
    small = ('grid.search.rerank=["none"]', 'grid.extract.crop=["bbx"]', 'grid.whiten.method=["none"]')
    plan = plan_of(tmp_path, toy, *small, 'grid.extract.corruption=["blur", "box"]', "grid.extract.severity=[0, 5]")
    folder, results = run_sweep(plan, ONE, Workspace(root=tmp_path / "runs"))
    assert Counter(str(entry["step"]) for entry in journal(folder)) == {"extract": 4, "evaluate": 3}
    first, blurred, second, _ = (result.evaluations[0].protocols["medium"].ap for result in results)
    assert first == second != blurred
    (part,) = sweep_tables(results)
    curves = robustness_curves(part)
    assert [(curve.kind, sorted(curve.scores)) for curve in curves] == [("blur", [0, 5]), ("box", [0, 5])]
    assert curves[0].scores[0].mAP == part.standings[1].systems[0].mAP
    assert len(draw_tables([part], folder)) == 2
    assert "| blur | " in robustness_table(part)
