"""Training checkpoints: everything a run needs to go on exactly, one file per process, the last few kept.

checkpoints/step-00001200.pt is process 0's and is written last: where it exists, so do those of the other processes
(...rank1.pt).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultron_cli import distributed
from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.models.weights.reading import fit_content, read_weights_file
from ultron_cli.stops import undisturbed

State = dict[str, Any]
"""All that a run needs to go on: whatever torch.save stores and torch.load reads back with weights_only=True."""

FOLDER = "checkpoints"
FORMAT = "ultron-training"
VERSION = 1
_NAME = re.compile(r"step-(\d{8})\.pt")


def _path(folder: Path, step: int, process: int) -> Path:
    return folder / FOLDER / (f"step-{step:08d}.pt" if process == 0 else f"step-{step:08d}.rank{process}.pt")


def saved_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints of a run, ascending."""
    paths = (folder / FOLDER).iterdir() if (folder / FOLDER).is_dir() else ()
    return sorted(int(match[1]) for path in paths if (match := _NAME.fullmatch(path.name)))


def save_state(folder: Path, step: int, content: State, n_kept: int) -> Path:
    """Writes this process's part of a checkpoint, process 0's last, and removes all but the last `n_kept`. Every
    process calls it."""
    path = _path(folder, step, distributed.process_index())
    if distributed.process_index() > 0:
        _write(path, step, content)
    distributed.wait_for_processes()
    if distributed.process_index() == 0:
        _write(path, step, content)
        remove_states(folder, saved_steps(folder)[:-n_kept])
    return path


def remove_states(folder: Path, steps: Sequence[int]) -> None:
    """Removes the checkpoints of some steps, all processes' parts."""
    for step in steps:
        _path(folder, step, 0).unlink(missing_ok=True)  # first: without it the others count for nothing
        for part in (folder / FOLDER).glob(f"step-{step:08d}.*"):
            part.unlink(missing_ok=True)


def _write(path: Path, step: int, content: State) -> None:
    with whole_file(path) as output, undisturbed():
        torch.save(
            {"format": FORMAT, "version": VERSION, "step": step, "n_ranks": distributed.n_processes(), **content},
            output,
        )


def load_latest_state(folder: Path, is_sharded: bool) -> State | None:
    """This process's part of the latest checkpoint that can be read, or None if there is none. Raises UltronError if it
    does not fit.

    is_sharded: class weights are spread over the processes, whose number must then be the old one; otherwise a new
    process takes process 0's part.
    """
    steps = saved_steps(folder)
    for step in reversed(steps):
        try:
            content = read_weights_file(_path(folder, step, 0))
        except UltronError as error:
            log.warning("%s; going back to the checkpoint before it", error)
            continue
        _check(content, _path(folder, step, 0), is_sharded)
        if distributed.process_index() and content["n_ranks"] == distributed.n_processes():
            return read_weights_file(_path(folder, step, distributed.process_index()))
        return content
    if steps:
        raise UltronError(f"not one of {len(steps)} checkpoints in {folder / FOLDER} can be read; start a new run")
    return None


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a checkpoint says of itself."""

    version: int
    step: int
    n_ranks: int


def _check(content: State, path: Path, is_sharded: bool) -> None:
    header = fit_content(content, _Header, path, "start a new run") if content.get("format") == FORMAT else None
    if header is None or header.version > VERSION:
        raise UltronError(
            f"{path} is no training checkpoint of this version of ultron; start a new run, or install the "
            "ultron that wrote it"
        )
    if header.n_ranks == distributed.n_processes():
        return
    if is_sharded:
        raise UltronError(
            f"{path} holds class weights in {header.n_ranks} shards, there are {distributed.n_processes()} "
            f"processes; start as many again: torchrun --nproc-per-node {header.n_ranks}"
        )
    log.warning(
        "%s was written by %s, there are %d: the losses will differ slightly",
        path.name,
        counted(header.n_ranks, "process", "processes"),
        distributed.n_processes(),
    )
