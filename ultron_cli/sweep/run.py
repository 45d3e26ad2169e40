"""Runs a sweep: the steps that its cells need, side by side, and a file per cell; a sweep that was stopped goes on."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ultron_cli.console import counted, dump_json, log, progress
from ultron_cli.datasets.named import default_dataset
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import percent
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.files import make_folder, write_text
from ultron_cli.locks import only_writer
from ultron_cli.machine import n_cores, resolve_device_name
from ultron_cli.schema.texts import in_file, read_json
from ultron_cli.schema.values import fit
from ultron_cli.stops import way_to_go_on
from ultron_cli.sweep.plan import Cell, SweepPlan
from ultron_cli.sweep.settings import CellSettings
from ultron_cli.sweep.steps import Place
from ultron_cli.sweep.tasks import Task, next_task, tasks_of
from ultron_cli.sweep.workers import Outcome, Performer, ThisProcess, Workers
from ultron_cli.workspace import Workspace, file_name, short_hash

PLAN_FILE = "sweep.json"
JOURNAL = "steps.jsonl"
CELLS = "cells"
MOST_WORKERS = 8
MOST_DIFFERENCES = 3  # that a message names


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a search of a cell costs."""

    ms_per_query: float  # wall clock, re-ranking included; the describing of the query photo is not
    bytes_per_photo: float  # of what is searched
    dim: int


@dataclass(frozen=True, kw_only=True)
class _StoredCell:
    """What a cell's file holds beside the evaluation."""

    cost: Cost


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A cell with its evaluations, one per training seed; or why it has none."""

    cell: Cell
    paths: tuple[Path, ...] = ()
    evaluations: tuple[Evaluation, ...] = field(default=(), repr=False)
    costs: tuple[Cost, ...] = ()
    fault: UltronError | None = None


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A cell with one training run: what one file holds."""

    cell: Cell
    settings: CellSettings
    path: Path


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep is run; none of it shapes a number."""

    device_name: str = "auto"
    workers: int | None = None  # cells side by side; None: as many as cores, up to MOST_WORKERS, one beside a GPU
    overwrite: bool = False  # begin anew in a folder with another sweep
    out: Path | None = None  # folder; None: one in the workspace


def default_workers(device_name: str) -> int:
    """Cells side by side where nothing else is said."""
    return 1 if resolve_device_name(device_name) != "cpu" else min(MOST_WORKERS, n_cores())


def run_sweep(plan: SweepPlan, options: SweepOptions, workspace: Workspace) -> tuple[Path, list[CellResult]]:
    """(folder, the cells in their order), after computing what is not there yet.

    A cell that fails does not keep the others from going on; the next run tries it again. Raises UltronError if the
    folder has a sweep of other settings.
    """
    n_workers = options.workers or default_workers(options.device_name)
    if n_workers > n_cores():
        raise UltronError(f"`workers` must not be more than the {n_cores()} cores of this machine; found {n_workers}")
    plan = _with_latest(plan, workspace)
    folder = options.out or workspace.result_path("sweep", plan.name)
    with only_writer(folder, f"another `ultron sweep` is writing {folder}"):
        _take_up(folder, plan, overwrite=options.overwrite)
        units = [unit for cell in plan.cells for unit in units_of(cell, folder)]
        left = [unit for unit in units if not unit.path.exists()]
        if len(left) < len(units):
            log.info("continuing %s: %d of %s are there", folder, len(units) - len(left), counted(len(units), "cell"))

        def what_is_kept() -> str:
            n_done = sum(unit.path.exists() for unit in units)
            return f"{n_done} of {counted(len(units), 'cell')} are done and kept, the same command goes on from there"

        place = Place(
            workspace=workspace,
            device_name=options.device_name,
            journal=folder / JOURNAL,
            n_decoding=0 if n_workers > 1 else None,
        )
        with way_to_go_on(what_is_kept), _performer(place, min(n_workers, len(left))) as performer:
            faults = _perform(left, performer)
    return folder, [_result_of(cell, folder, faults) for cell in plan.cells]


def _with_latest(plan: SweepPlan, workspace: Workspace) -> SweepPlan:
    """The plan with the dataset and the training run that it leaves out, which may be others when it goes on."""
    cells = []
    for cell in plan.cells:
        model, extract = cell.settings.model, cell.settings.extract
        if extract.descriptors is not None:
            cells.append(cell)
            continue
        if not model.names_weights:
            run = workspace.take_latest("train", "name a model under [model]")
            model = replace(model, run=str(run.resolve()))
        if extract.dataset is None:
            extract = replace(extract, dataset=default_dataset(workspace))
        cells.append(replace(cell, settings=replace(cell.settings, model=model, extract=extract)))
    return replace(plan, cells=tuple(cells))


def units_of(cell: Cell, folder: Path) -> list[Unit]:
    """The cell's files: one per training run."""
    seeds = cell.settings.of_seeds()
    # A name that no file can have, or that may be that of another cell's file, ends in a hash.
    name = file_name(cell.name)
    if name != cell.name or len(seeds) > 1:
        name = f"{file_name(cell.name[:80])}-{short_hash({'name': cell.name})}"
    ends = [""] if len(seeds) == 1 else [f"-{i}" for i in range(len(seeds))]
    return [
        Unit(cell=cell, settings=settings, path=folder / CELLS / f"{name}{end}.json")
        for settings, end in zip(seeds, ends, strict=True)
    ]


def _take_up(folder: Path, plan: SweepPlan, *, overwrite: bool) -> None:
    """Makes the folder that of the plan. Raises UltronError if it is that of another one, without overwrite."""
    path = folder / PLAN_FILE
    cells = make_folder(folder / CELLS)
    if path.exists():
        stored = read_json(path, "plan of the sweep", dict[str, object], advice=f"delete {folder} to begin anew")
        differing = plan.differences(stored)
        if differing and not overwrite:
            n_more = len(differing) - MOST_DIFFERENCES
            more = f" and {n_more} more" if n_more > 0 else ""
            raise UltronError(
                f"{folder} was begun with other settings: {'; '.join(differing[:MOST_DIFFERENCES])}{more}; go on with "
                "the same, name another folder with `out`, or begin anew with `overwrite` (what is computed already is "
                "used again)"
            )
        if not differing and not overwrite:
            return
    for file in cells.glob("*.json"):
        file.unlink()
    write_text(path, dump_json(plan.to_plain()))


@contextlib.contextmanager
def _performer(place: Place, n_workers: int) -> Iterator[Performer]:
    if n_workers <= 1:
        yield ThisProcess(place)
        return
    workers = Workers(place, n_workers)
    with contextlib.closing(workers):
        yield workers


def _perform(units: Sequence[Unit], performer: Performer) -> dict[Path, UltronError]:
    """Computes what the units need and writes their files. Returns why some have none, by their file."""
    tasks_of_unit = {unit.path: tasks_of(unit.settings) for unit in units}
    waiting = {task.key: task for tasks in tasks_of_unit.values() for task in tasks}
    units_of_key: dict[str, list[Unit]] = {}
    for unit in units:
        units_of_key.setdefault(tasks_of_unit[unit.path][-1].key, []).append(unit)
    results: dict[str, Path] = {}
    faults: dict[str, UltronError] = {}
    n_begun = 0
    with progress(total=len(units), what="sweep", unit="cell") as bar:
        while True:
            while performer.n_idle and (task := next_task(list(waiting.values()), results.keys() | set())) is not None:
                del waiting[task.key]
                performer.begin(task, results)
                n_begun += 1
            if not n_begun:
                break
            outcome = performer.outcome()
            n_begun -= 1
            key, result = outcome.task.key, outcome.result
            if isinstance(result, UltronError):
                _fail(outcome, result, waiting, faults)
                continue
            results[key] = result
            for unit in units_of_key.get(key, []):
                _write_cell(unit, result)
                bar.update(1)
    return {
        unit.path: next(faults[task.key] for task in tasks if task.key in faults)
        for unit in units
        for tasks in [tasks_of_unit[unit.path]]
        if any(task.key in faults for task in tasks)
    }


def _fail(outcome: Outcome, fault: UltronError, waiting: dict[str, Task], faults: dict[str, UltronError]) -> None:
    """Notes a failed task, and takes out those that wait for it."""
    failed_keys = {outcome.task.key}
    while failed_keys:
        faults |= dict.fromkeys(failed_keys, fault)
        failed_keys = {key for key, task in waiting.items() if failed_keys & set(task.needs.values())}
        for key in failed_keys:
            del waiting[key]
    if outcome.trace:
        for line in outcome.trace.rstrip().splitlines():
            log.error("%s", line)
    log.warning("a step (%s) failed: %s", outcome.task.step, fault)


def _write_cell(unit: Unit, evaluation: Path) -> None:
    """The evaluation with the cell's settings, as a file of its own."""
    content = read_json(evaluation, "evaluation", dict[str, object], advice="delete it and run the same command again")
    cell = {"name": unit.cell.name, "settings": asdict(unit.settings), "evaluation": str(evaluation)}
    write_text(unit.path, dump_json(content | {"cell": cell}))
    scores = Evaluation.from_json(content).protocols
    shown = ", ".join(f"{name} {percent(part.mAP)}" for name, part in scores.items())
    log.info("%s: mAP %s", unit.cell.name, shown)


def _result_of(cell: Cell, folder: Path, faults: Mapping[Path, UltronError]) -> CellResult:
    units = units_of(cell, folder)
    fault = next((faults[unit.path] for unit in units if unit.path in faults), None)
    if fault is not None:
        return CellResult(cell=cell, fault=fault)
    evaluations, costs = [], []
    for unit in units:
        advice = f"delete {unit.path} and run the same command again"
        content = read_json(unit.path, "evaluation of a cell", advice=advice)
        with in_file(unit.path, "evaluation of a cell", advice):
            evaluations.append(Evaluation.from_json(content))
            costs.append(fit(content, _StoredCell).cost)
    return CellResult(
        cell=cell,
        paths=tuple(unit.path for unit in units),
        evaluations=tuple(evaluations),
        costs=tuple(costs),
    )
