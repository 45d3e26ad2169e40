"""Run folders: a new one, the one to resume, the table of all."""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ultron_cli.configs import read_run
from ultron_cli.console import log, table
from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder
from ultron_cli.schema.texts import fit_file
from ultron_cli.user_code import FOLDER, CodeRecord
from ultron_cli.workspace import Workspace

RESULT_FILE = "checkpoint.pt"  # what a training ends with
WHITENING_FILE = "whitening.h5"  # of a linear head, beside it
EARLIER_RESULT = "checkpoint-{epochs}-epochs.pt"  # what it ended with before it went on with more epochs
CONFIG_FILE = "config.json"
# What a run writes beside it; only these are removed when a folder is used again.
FILES = (
    RESULT_FILE,
    WHITENING_FILE,
    "steps.jsonl",
    "metrics.jsonl",
    "curves.png",
    "split.json",
    "environment.json",
    "hard_examples.npy",
    "edge_weights.csv",
    "search.json",
    "genotype.png",
    "genotype.txt",
)
FOLDERS = ("checkpoints", "events", FOLDER)
GENOTYPE_FILE = "genotype.txt"  # what a search ends with, as a training with checkpoint.pt


def refuse_foreign_folder(folder: Path) -> None:
    """Raises UltronError if a folder holds files that are no run's: a run would write among them, and clears what bears
    the names of its own files."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if names and not _is_run(folder):
        raise UltronError(
            f"{folder} is no run's folder, it holds {', '.join(sorted(names)[:3])}; name a new or empty one with `out`"
        )


def _is_run(folder: Path) -> bool:
    """Whether config.json in a folder is a run's."""
    try:
        return bool(read_run(folder).provenance)
    except UltronError:
        return False


def clear_folder(folder: Path, torn_only: bool) -> None:
    """Removes an older run's files from a folder, or (torn_only) only what a kill left half written."""
    for pattern in ("checkpoints/.*.tmp.pt", ".*.tmp.*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if not torn_only:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for path in folder.glob(EARLIER_RESULT.format(epochs="*")):
            path.unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # last, as it tells a run's folder from any other


def new_run_folder(preset: str, out: Path | None, overwrite: bool, workspace: Workspace) -> Path:
    """--out, or a folder named by time and preset. Raises UltronError if --out holds a run that is not to be
    replaced."""
    if out is not None:
        if is_finished(out) and not overwrite:
            raise UltronError(f"{out} holds a finished run; replace it with `overwrite`, or name another `out`")
        if is_unfinished(out) and not overwrite:
            raise UltronError(
                f"{out} holds an unfinished run; go on with `resume`, replace it with `overwrite`, or name "
                "another `out`"
            )
        return out
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}"
    root = make_folder(workspace.root / "train")
    for n in range(1, 1000):
        folder = root / (stem if n == 1 else f"{stem}-{n}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()  # made here, so that no other process takes the name
            return folder
    raise UltronError(f"{root} holds 999 runs of this second; name the folder with `out`")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds what a run ends with."""
    return (folder / RESULT_FILE).exists() or (folder / GENOTYPE_FILE).exists()


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that can be resumed."""
    from ultron_cli.training.run.checkpoints import saved_steps

    return (folder / CONFIG_FILE).is_file() and not is_finished(folder) and bool(saved_steps(folder))


def run_to_resume(out: Path | None, workspace: Workspace, finished_too: bool = False) -> Path:
    """--out, or the latest unfinished run in the workspace, said on stderr. Raises UltronError if there is none.

    finished_too: `out` may be a finished run whose last state is there, to go on with more epochs.
    """
    from ultron_cli.training.run.checkpoints import saved_steps

    root = workspace.root / "train"
    if out is not None:
        if is_unfinished(out) or (finished_too and is_finished(out) and saved_steps(out)):
            return out
        reason = "is finished, and keeps no state to go on from" if is_finished(out) else "holds no checkpoint of a run"
        raise UltronError(
            f"{out} {reason}, there is nothing to resume; leave out `resume` (with `overwrite` to train it again)"
        )
    unfinished = [path for path in root.iterdir() if is_unfinished(path)] if root.is_dir() else []
    if not unfinished:
        raise UltronError(
            f"no unfinished run in {root}; start one with `ultron train`, or name a run with `out` (a finished one, to "
            "go on with more epochs)"
        )
    latest = max(unfinished, key=lambda path: (path / "checkpoints").stat().st_mtime_ns)
    log.info("resuming the latest unfinished run: %s", latest)
    return latest


def continued(folder: Path, epochs: int) -> dict[str, object]:
    """What the provenance of a resumed run says of going on with more epochs: {"continued": [...]}, an entry each time
    with the `epochs` until then and when the run of these was started; empty if it never did."""
    stored = read_run(folder)
    earlier = stored.provenance.get("continued", [])
    if stored.config.get("epochs") != epochs:
        earlier = [*earlier, {"epochs": stored.config.get("epochs"), "created": stored.provenance.get("created")}]
    return {"continued": earlier} if earlier else {}


def code_of_run(folder: Path) -> dict[str, CodeRecord]:
    """The code that a run was started with, by import path. Raises UltronError if its config.json is unsound."""
    stored = read_run(folder).provenance.get("code", {})
    return fit_file(
        stored, dict[str, CodeRecord], folder / CONFIG_FILE, "configuration of the run", "put the file back"
    )


def set_result_aside(folder: Path) -> None:
    """Gives the model of a finished run that goes on another name, as checkpoint.pt says that a run is finished.

    Before config.json has the new number of epochs: a run that is killed in between is resumed as it was.
    """
    if (folder / RESULT_FILE).exists():
        epochs = read_run(folder).config.get("epochs")
        (folder / RESULT_FILE).replace(folder / EARLIER_RESULT.format(epochs=epochs))


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run in the table; None where it is not known yet, or not measured."""

    run: str  # name of the folder
    folder: str
    state: str
    created: str | None  # ISO 8601, UTC
    model: str
    loss_name: str
    dataset: str
    epochs: int
    epochs_done: int
    loss: float | None  # of the last epoch
    accuracy: float | None  # of the last epoch, 0..1
    validation_mAP: float | None  # the last that was measured, 0..1
    validation_top1: float | None  # the last that was measured, 0..1
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The settings that the table shows, of a training or a search."""

    dataset: str
    epochs: int
    model: dict[str, object] = field(default_factory=dict)
    loss: dict[str, object] = field(default_factory=dict)
    task: str | None = None  # of a search
    backbone: str | None = None  # of a search


def describe_run(folder: Path) -> RunFacts:
    """Facts of a run for the table. Raises UltronError if its config.json cannot be read."""
    from ultron_cli.training.run.checkpoints import saved_steps
    from ultron_cli.training.run.journal import METRICS_FILE, read_lines

    stored = read_run(folder)
    config = fit_file(stored.config, _Settings, folder / CONFIG_FILE, "configuration of the run", "put back the file")
    metrics = read_lines(folder / METRICS_FILE)
    if is_finished(folder):
        state = "finished"
    else:
        steps = saved_steps(folder)
        state = f"stopped, saved at step {steps[-1]}" if steps else "stopped, nothing saved"
    model = {"name": config.task, "backbone": config.backbone} if config.task else config.model
    return RunFacts(
        run=folder.name,
        folder=str(folder),
        state=state,
        created=str(stored.provenance["created"]) if "created" in stored.provenance else None,
        model="-".join(str(part) for part in (model.get("name"), model.get("backbone")) if part),
        loss_name=str(config.loss.get("name", "linear")),
        dataset=config.dataset,
        epochs=config.epochs,
        epochs_done=len(metrics),
        loss=metrics[-1].get("loss") if metrics else None,
        accuracy=metrics[-1].get("accuracy") if metrics else None,
        validation_mAP=_last(metrics, "validation_mAP"),
        validation_top1=_last(metrics, "validation_top1"),
        seconds=sum(entry.get("seconds") or 0.0 for entry in metrics),
    )


def _last(metrics: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    """The last measured value of a key."""
    values = [value for entry in metrics if (value := entry.get(key)) is not None]
    return values[-1] if values else None


def list_runs(workspace: Workspace) -> list[RunFacts]:
    """All runs of the workspace, oldest first; folders that are no runs are left out."""
    root = workspace.root / "train"
    runs: list[RunFacts] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if (folder / CONFIG_FILE).is_file():
            try:
                runs.append(describe_run(folder))
            except UltronError as error:
                log.warning("%s is no readable run (%s)", folder, error)
    return runs


def runs_table(runs: list[RunFacts]) -> str:
    """The table of `ultron train --list`."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [
        (
            run.run,
            run.model,
            run.loss_name,
            run.dataset,
            f"{run.epochs_done}/{run.epochs}",
            "-" if run.loss is None else f"{run.loss:.3f}",
            percent(run.accuracy),
            percent(run.validation_mAP),
            percent(run.validation_top1),
            f"{run.seconds:.0f}",
            run.state,
        )
        for run in runs
    ]
    return table(
        ("run", "model", "loss", "dataset", "epochs", "loss", "accuracy %", "held-out mAP %", "top-1 %", "s", "state"),
        rows,
        left=4,
    )
