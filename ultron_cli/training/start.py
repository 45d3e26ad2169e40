"""Starts or resumes a training run: configuration, dataset, run folder, processes, and the record of it in the
workspace."""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch

from ultron_cli import distributed, user_code
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.datasets.landmarks.split import Exclusion, exclude_photos
from ultron_cli.datasets.named import open_named_dataset
from ultron_cli.errors import UltronError, install_line
from ultron_cli.locks import only_writer
from ultron_cli.machine import resolve_device
from ultron_cli.models.attentions.genotype import OPERATIONS
from ultron_cli.stops import way_to_go_on
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.autola.network import EDGES
from ultron_cli.training.autola.run import AutolaResult, AutolaRun
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.heads.described import open_described
from ultron_cli.training.heads.run import HeadTraining
from ultron_cli.training.loop import Training
from ultron_cli.training.presets import changed_config, load_config, resumed_config, start_preset
from ultron_cli.training.run.folder import (
    GENOTYPE_FILE,
    code_of_run,
    is_finished,
    is_unfinished,
    new_run_folder,
    refuse_foreign_folder,
    run_to_resume,
)
from ultron_cli.training.starting_weights import require_start
from ultron_cli.workspace import Workspace


class DrawRun(Protocol):
    """Draws the pictures of a run into its folder, from the files that are there when it is finished."""

    def __call__(self, folder: Path, search: AutolaResult | None = None) -> object: ...


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train, and where."""

    # None: the default one, or on `resume` that of the run.
    preset: str | None = None
    # A TOML file whose settings replace the preset's.
    config_file: Path | None = None
    # KEY=VALUE, each replacing one setting.
    assignments: tuple[str, ...] = ()
    # All settings, in place of preset and file.
    config: TrainConfig | AutolaConfig | None = None
    # A name or a folder, as the setting `dataset`.
    dataset: str | None = None
    # Photos by landmark, in place of those of the dataset.
    photos: LandmarkPhotos | None = None
    # The run's folder; None: a new one in the workspace, or on `resume` that of the latest unfinished run there.
    out: Path | None = None
    # Replace the run that is in `out`.
    overwrite: bool = False
    # Go on with an interrupted run, or with the finished one in `out` and more epochs.
    resume: bool = False

    @property
    def changes(self) -> tuple[str, ...]:
        """The settings that replace those of preset and file, as KEY=VALUE."""
        return (*self.assignments, *([f"dataset={self.dataset}"] if self.dataset else []))


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a training did."""

    run: str  # its folder
    checkpoint: str
    model: str
    config: TrainConfig
    n_photos: int
    n_landmarks: int
    n_held_out: int
    n_train_photos: int
    n_train_landmarks: int
    bad_photos: int
    seconds: float
    metrics: list[dict[str, float]]  # one entry per epoch

    def to_plain(self) -> dict[str, object]:
        """Plain data, as --json prints it."""
        return {**asdict(self), "config": self.config.to_plain()}


@dataclass(frozen=True, kw_only=True)
class EdgeWeights:
    """The weights that a search gave to the operations on one edge."""

    node: int
    input: int
    weights: list[float]


@dataclass(frozen=True, kw_only=True)
class AutolaSummary:
    """What a search did."""

    run: str  # its folder
    task: str = "search"
    genotype: str
    genotype_file: str
    figure: str
    table: str
    config: AutolaConfig
    n_photos: int
    n_landmarks: int
    operations: list[str]
    edges: list[EdgeWeights]
    seconds: float
    metrics: list[dict[str, float]]  # one entry per epoch

    def to_plain(self) -> dict[str, object]:
        """Plain data, as --json prints it."""
        return {**asdict(self), "config": self.config.to_plain()}


def start_training(
    request: TrainRequest, device_name: str, draw: DrawRun | None = None, workspace: Workspace | None = None
) -> TrainSummary | AutolaSummary:
    """Trains, or searches for an attention where the preset says so.

    device_name: auto, cpu, cuda or cuda:N. draw: draws the run's pictures, on the first process. workspace: where a new
    run goes, an unfinished one is looked for, and the finished one is remembered; without one, a finished run is not
    remembered. Raises UltronError for bad settings or photos. Started by torchrun, all processes call it and get the
    summary.
    """
    device = distributed.process_device(resolve_device(device_name))
    distributed.join_processes(device)
    remember = workspace.remember if workspace is not None else None
    workspace = workspace or Workspace()
    level = log.level
    if distributed.process_index() > 0:
        log.setLevel(logging.ERROR)  # the first process speaks for all
    try:
        with contextlib.ExitStack() as lock:
            choice = _first_process_choice(request, workspace, lock)
            folder_text, is_resumed = distributed.from_first_process(choice)
            folder = Path(folder_text)
            if is_resumed:
                lock.enter_context(user_code.stored_code(code_of_run(folder), folder, folder / user_code.FOLDER))
            config = _configuration(request, folder, is_resumed)
            with way_to_go_on(lambda: _what_is_kept(folder)):
                if isinstance(config, AutolaConfig):
                    photos, _ = _open_photos(config, request, workspace)
                    return _search(config, photos, folder, is_resumed, device, draw)
                if not is_resumed:
                    require_start(config)
                photos, excluded = _open_photos(config, request, workspace)
                summary = _train(config, photos, excluded, folder, is_resumed, device)
                if remember is not None and distributed.process_index() == 0:
                    remember("train", folder)
                _draw_pictures(draw, folder)
                return summary
    finally:
        log.setLevel(level)
        distributed.leave_processes()


def _configuration(request: TrainRequest, folder: Path, is_resumed: bool) -> TrainConfig | AutolaConfig:
    """All settings of the run. Raises UltronError."""
    if is_resumed:
        return resumed_config(
            folder / "config.json", request.preset, request.config_file, request.changes, request.config
        )
    if request.config is not None:
        return changed_config(request.config, request.changes)
    return load_config(start_preset(request.preset, request.changes), request.config_file, request.changes)


def _first_process_choice(request: TrainRequest, workspace: Workspace, lock: contextlib.ExitStack) -> tuple[str, bool]:
    """Folder and resume as the first process finds them; other processes' answers are not used.

    lock: gets the lock of the folder, which the first process holds until the run ends.
    """
    if distributed.process_index() > 0:
        return "", False
    folder, is_resumed = _folder_and_resume(request, workspace)
    lock.enter_context(only_writer(folder, f"another `ultron train` is writing {folder}"))
    if not is_resumed and request.out is not None:
        refuse_foreign_folder(folder)
    return str(folder), is_resumed


def _what_is_kept(folder: Path) -> str:
    """For the line that is said when a run is stopped while it does anything but train."""
    if is_finished(folder):
        return f"the run is finished; `ultron visualize curves --run {folder}` draws what its pictures lack"
    if is_unfinished(folder):
        return f"what was saved is kept; go on with `ultron train --resume --out {folder}`"
    return ""


def _draw_pictures(draw: DrawRun | None, folder: Path, search: AutolaResult | None = None) -> None:
    """The run's pictures, drawn when its results are safe; a machine that cannot draw goes without."""
    if draw is None or distributed.process_index() > 0:
        return
    try:
        draw(folder, search)
    except ModuleNotFoundError as error:
        line = install_line(error)
        if line is None:
            raise
        log.warning("no pictures of the run: %s, then draw them with `ultron visualize curves --run %s`", line, folder)


def _folder_and_resume(request: TrainRequest, workspace: Workspace) -> tuple[Path, bool]:
    """The run's folder, and whether there is something to go on from.

    A restart by torchrun runs the same command again: it goes on from what the first attempt saved, or starts again in
    its folder.
    """
    overwrite = request.overwrite
    if distributed.restart_count() and not request.resume:
        try:
            return run_to_resume(request.out, workspace), True
        except UltronError as error:
            log.info("restarted by torchrun before anything was saved (%s): starting again", error)
            overwrite = True
    if request.resume and overwrite:
        raise UltronError("`resume` and `overwrite` exclude each other; leave one")
    if request.resume:
        return run_to_resume(request.out, workspace, finished_too=True), True
    return new_run_folder(start_preset(request.preset, request.changes), request.out, overwrite, workspace), False


def _open_photos(
    config: TrainConfig | AutolaConfig, request: TrainRequest, workspace: Workspace
) -> tuple[LandmarkPhotos, list[Exclusion]]:
    """The dataset's photos without excluded ones, and what was excluded; the first process renders, indexes or caches
    for the others."""
    if distributed.process_index() > 0:
        distributed.wait_for_processes()
    photos = request.photos
    if isinstance(config, TrainConfig) and config.descriptors:
        photos = open_described(Path(config.descriptors), Path(config.labels) if config.labels else None)
    elif photos is None:
        photos = open_landmark_photos(open_named_dataset(config.dataset, workspace=workspace).folder)
    photos, excluded = exclude_photos(photos, config.exclude)
    if distributed.process_index() == 0:
        distributed.wait_for_processes()
    return photos, excluded


def _train(
    config: TrainConfig,
    photos: LandmarkPhotos,
    excluded: list[Exclusion],
    folder: Path,
    is_resumed: bool,
    device: torch.device,
) -> TrainSummary:
    make = HeadTraining if config.descriptors else Training
    training = make(config, photos, device, excluded)
    n_processes = distributed.n_processes()
    log.info(
        "training on %s of %s from %s (%s%s); %s held out",
        counted(len(training.photos.labels), "photo"),
        counted(len(training.photos.landmark_names), "landmark"),
        photos.folder,
        device,
        f", {n_processes} processes" if n_processes > 1 else "",
        counted(training.n_held_out, "photo"),
    )
    started_s = time.perf_counter()
    metrics = training.run(folder, resume=is_resumed)
    return TrainSummary(
        run=str(folder),
        checkpoint=str(folder / "checkpoint.pt"),
        model=training.model.label,
        config=config,
        n_photos=len(photos.labels),
        n_landmarks=len(photos.landmark_names),
        n_held_out=training.n_held_out,
        n_train_photos=len(training.photos.labels),
        n_train_landmarks=len(training.photos.landmark_names),
        bad_photos=len(training.bad_photos),
        seconds=time.perf_counter() - started_s,
        metrics=metrics,
    )


def _search(
    config: AutolaConfig,
    photos: LandmarkPhotos,
    folder: Path,
    is_resumed: bool,
    device: torch.device,
    draw: DrawRun | None,
) -> AutolaSummary:
    """The same for a search; it leaves no model, so that it does not become the workspace's latest training."""
    if distributed.n_processes() > 1:
        raise UltronError(
            f"the search runs in one process, found {distributed.n_processes()}; start it without torchrun"
        )
    log.info(
        "searching with %s of %s from %s (%s)",
        counted(len(photos.labels), "photo"),
        counted(len(photos.landmark_names), "class", "classes"),
        photos.folder,
        device,
    )
    started_s = time.perf_counter()
    result = AutolaRun(photos, config, device).run(folder, is_resumed)
    _draw_pictures(draw, folder, result)
    return AutolaSummary(
        run=str(folder),
        genotype=result.genotype.text,
        genotype_file=str(folder / GENOTYPE_FILE),
        figure=str(folder / "genotype.png"),
        table=str(folder / "edge_weights.csv"),
        config=config,
        n_photos=len(photos.labels),
        n_landmarks=len(photos.landmark_names),
        operations=list(OPERATIONS),
        edges=[
            EdgeWeights(node=node, input=source, weights=row.tolist())
            for (node, source), row in zip(EDGES, result.edge_weights, strict=True)
        ],
        seconds=time.perf_counter() - started_s,
        metrics=result.history,
    )
