"""Starts or resumes a training run: configuration, dataset, run folder, processes, and the record of it in the
workspace."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultron_cli import distributed
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.datasets.landmarks.split import Exclusion, exclude_photos
from ultron_cli.datasets.named import open_named_dataset
from ultron_cli.errors import UltronError
from ultron_cli.machine import resolve_device
from ultron_cli.training.config import TrainConfig, load_config, resumed_config
from ultron_cli.training.loop import Training
from ultron_cli.training.run.folder import is_unfinished, new_run_folder, run_to_resume
from ultron_cli.training.starting_weights import require_start
from ultron_cli.workspace import Workspace

if TYPE_CHECKING:
    from ultron_cli.training.autola.network import SearchConfig

DEFAULT_PRESET = "quickstart"


def _folder_and_resume(
    preset: str | None, out: Path | None, overwrite: bool, resume: bool, workspace: Workspace
) -> tuple[Path, bool]:
    """The run's folder, and whether there is something to go on from.

    A restart by torchrun runs the same command again: it goes on from what the first attempt saved, or starts again in
    its folder.
    """
    if distributed.restart_count() and not resume:
        try:
            return run_to_resume(out, workspace), True
        except UltronError as error:
            log.info("restarted by torchrun before anything was saved (%s): starting again", error)
            overwrite = True
    if resume and overwrite:
        raise UltronError("--resume and --overwrite exclude each other; leave one")
    if resume:
        return run_to_resume(out, workspace), True
    return new_run_folder(preset or DEFAULT_PRESET, out, overwrite, workspace), False


def _open_photos(config: "TrainConfig | SearchConfig", workspace: Workspace) -> tuple[LandmarkPhotos, list[Exclusion]]:
    """The dataset's photos without excluded ones, and what was excluded; the first process renders, indexes or caches
    for the others."""
    if distributed.process_index() > 0:
        distributed.wait_for_processes()
    dataset = open_named_dataset(config.dataset, workspace=workspace)
    photos, excluded = exclude_photos(open_landmark_photos(dataset.folder), config.exclude)
    if distributed.process_index() == 0:
        distributed.wait_for_processes()
    return photos, excluded


def start_training(
    preset: str | None,
    dataset: str | None,
    config_file: Path | None,
    assignments: Sequence[str],
    out: Path | None,
    overwrite: bool,
    device_name: str,
    resume: bool = False,
    workspace: Workspace | None = None,
) -> dict[str, Any]:
    """Trains, or searches for an attention where the preset says so, and returns a summary: run folder, model, config,
    metrics per epoch.

    Raises UltronError for bad settings or photos. preset: None is the default one, or on `resume` that of the run.
    workspace: where a new run goes, an unfinished one is looked for, and the finished one is remembered.
    Started by torchrun, all processes call it and get the summary.
    """
    device = distributed.process_device(resolve_device(device_name))
    distributed.join_processes(device)
    workspace = workspace or Workspace()
    level = log.level
    if distributed.process_index() > 0:
        log.setLevel(logging.ERROR)  # the first process speaks for all
    try:
        folder_text, resume = distributed.from_first_process(
            _first_process_choice(preset, out, overwrite, resume, workspace)
        )
        folder = Path(folder_text)
        changes = [*assignments, *([f"dataset={dataset}"] if dataset else [])]
        if resume:
            config = resumed_config(folder / "config.json", preset, config_file, changes)
        else:
            config = load_config(preset or DEFAULT_PRESET, config_file, changes)
        return (
            _train(config, folder, resume, device, workspace)
            if isinstance(config, TrainConfig)
            else _search(config, folder, resume, device, workspace)
        )
    finally:
        log.setLevel(level)
        distributed.leave_processes()


def _first_process_choice(
    preset: str | None, out: Path | None, overwrite: bool, resume: bool, workspace: Workspace
) -> tuple[str, bool]:
    """Folder and resume as the first process finds them; other processes' answers are not used."""
    if distributed.process_index() > 0:
        return "", False
    folder, resume = _folder_and_resume(preset, out, overwrite, resume, workspace)
    return str(folder), resume


def _train(config: TrainConfig, folder: Path, resume: bool, device: Any, workspace: Workspace) -> dict[str, Any]:
    is_resumed = resume and is_unfinished(folder)
    if not is_resumed:
        require_start(config)
    photos, excluded = _open_photos(config, workspace)
    processes = f", {distributed.n_processes()} processes" if distributed.n_processes() > 1 else ""
    training = Training(config, photos, device, excluded)
    held_out = training.n_held_out
    log.info(
        "training on %s of %s from %s (%s%s); %s held out",
        counted(len(training.photos.labels), "photo"),
        counted(len(training.photos.landmark_names), "landmark"),
        photos.folder,
        device,
        processes,
        counted(held_out, "photo"),
    )
    started_s = time.perf_counter()
    metrics = training.run(folder, resume=is_resumed)
    if distributed.process_index() == 0:
        workspace.remember("train", folder)
    return {
        "run": str(folder),
        "checkpoint": str(folder / "checkpoint.pt"),
        "model": training.model.label,
        "config": config.to_plain(),
        "n_photos": len(photos.labels),
        "n_landmarks": len(photos.landmark_names),
        "n_held_out": held_out,
        "n_train_photos": len(training.photos.labels),
        "n_train_landmarks": len(training.photos.landmark_names),
        "bad_photos": len(training.bad_photos),
        "seconds": time.perf_counter() - started_s,
        "metrics": metrics,
    }


def _search(config: "SearchConfig", folder: Path, resume: bool, device: Any, workspace: Workspace) -> dict[str, Any]:
    """The same for a search; it leaves no model, so that it does not become the workspace's latest training."""
    from ultron_cli.models.attentions.genotype import OPERATIONS
    from ultron_cli.training.autola.network import EDGES
    from ultron_cli.training.autola.run import SearchRun
    from ultron_cli.training.run.folder import GENOTYPE_FILE

    if distributed.n_processes() > 1:
        raise UltronError(
            f"the search runs in one process, found {distributed.n_processes()}; start it without torchrun"
        )
    photos, _ = _open_photos(config, workspace)
    log.info(
        "searching with %s of %s from %s (%s)",
        counted(len(photos.labels), "photo"),
        counted(len(photos.landmark_names), "class", "classes"),
        photos.folder,
        device,
    )
    started_s = time.perf_counter()
    result = SearchRun(photos, config, device).run(folder, resume=resume and is_unfinished(folder))
    return {
        "run": str(folder),
        "task": "search",
        "genotype": result.genotype.text,
        "genotype_file": str(folder / GENOTYPE_FILE),
        "figure": str(folder / "genotype.png"),
        "table": str(folder / "edge_weights.csv"),
        "config": config.to_plain(),
        "n_photos": len(photos.labels),
        "n_landmarks": len(photos.landmark_names),
        "operations": list(OPERATIONS),
        "edges": [
            {"node": node, "input": source, "weights": row.tolist()}
            for (node, source), row in zip(EDGES, result.edge_weights, strict=True)
        ],
        "seconds": time.perf_counter() - started_s,
        "metrics": result.history,
    }
