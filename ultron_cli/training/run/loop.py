"""The loop of a run, of a training and of AutoLA's search alike: steps epoch by epoch, a checkpoint now and then,
stopping, and going on."""

import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch

from ultron_cli import distributed
from ultron_cli.console import log, progress
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, write_text
from ultron_cli.machine import limited_threads
from ultron_cli.provenance import provenance
from ultron_cli.training.batches.photos import Batch
from ultron_cli.training.environment import environment
from ultron_cli.training.run.checkpoints import State, save_state
from ultron_cli.training.run.folder import clear_folder
from ultron_cli.training.run.journal import Stopwatch
from ultron_cli.training.run.stopping import StopSignal, stopped_text


class LoopConfig(Protocol):
    """The settings that every run has; config.py says what they mean."""

    @property
    def epochs(self) -> int: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def checkpoint_minutes(self) -> float: ...
    @property
    def keep_checkpoints(self) -> int: ...
    def to_plain(self) -> dict[str, object]: ...


C = TypeVar("C", bound=LoopConfig)
SHOWN_BAD = 5  # photos that cannot be read, of which the log says each
B = TypeVar("B")  # what one step takes: a Batch, or several


class RunLoop(ABC, Generic[C, B]):
    """A run from its settings to its last step. A subclass sets n_batches and says what a step is."""

    name: str  # of the progress bar
    n_batches: int  # steps of an epoch

    def __init__(self, config: C, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.step = 0  # optimiser steps done
        self.bad_photos: dict[int, str] = {}  # by row: why a photo cannot be read
        self._stop = StopSignal()
        self._saved_s = time.monotonic()

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.n_batches

    @abstractmethod
    def batches_to_come(self) -> Iterator[B]:
        """What the steps take, from the present step to the end of the run."""

    @abstractmethod
    def begin_epoch(self, is_new: bool) -> None:
        """Before the first step of an epoch, or (is_new is false) of what is left of it."""

    @abstractmethod
    def take_step(self, batch: B, wait_s: float, watch: Stopwatch) -> None:
        """One step; counts it in self.step. wait_s: how long it waited for the batch; watch: running since then."""

    @abstractmethod
    def end_epoch(self, folder: Path, epoch: int) -> None:
        """After the last step of an epoch, counted from 1."""

    @abstractmethod
    def state(self) -> State:
        """All that the next step depends on, for a checkpoint."""

    @abstractmethod
    def load(self, folder: Path, state: State) -> None:
        """Goes on from what state() gave before step self.step. Raises UltronError if it is not of this run."""

    def origin(self, photo_folder: Path) -> dict[str, object]:
        """What makes the run, for its config.json and its checkpoint."""
        return {**provenance(), "device": str(self.device), "dataset_folder": str(photo_folder.resolve())}

    def make_folder(self, folder: Path, resume: bool) -> None:
        """Makes the run's folder, or clears it of an older run's files; on `resume` of half written ones only."""
        make_folder(folder)
        clear_folder(folder, torn_only=resume)

    def write_settings(self, folder: Path, origin: dict[str, object]) -> None:
        """Writes config.json and environment.json."""
        content = {"config": self.config.to_plain(), "provenance": origin}
        write_text(folder / "config.json", json.dumps(content, indent=1))
        write_text(folder / "environment.json", json.dumps(environment(self.device), indent=1))

    def go_on(self, folder: Path, state: State) -> None:
        """Takes up a checkpoint, and says so."""
        self.step = int(state["step"])
        self.load(folder, state)
        log.info("going on after step %d of %d", self.step, self.n_steps)

    def loop(self, folder: Path) -> None:
        """Takes all steps from the present one to the end. Raises WorkFailed when the run is stopped."""
        with (
            limited_threads(self.config.threads),
            self._stop.watched(),
            progress(total=self.n_steps, what=self.name, unit="step") as bar,
        ):
            bar.update(self.step)
            self._saved_s = time.monotonic()
            batches = self.batches_to_come() if self.step < self.n_steps else iter(())
            while self.step < self.n_steps:
                n_epochs_done, n_steps_done = divmod(self.step, self.n_batches)
                self.begin_epoch(is_new=n_steps_done == 0)
                watch = Stopwatch()
                for batch in itertools.islice(batches, self.n_batches - n_steps_done):
                    self.take_step(batch, watch.read(), watch)
                    bar.update()
                    if self.step % self.n_batches == 0:
                        self.end_epoch(folder, n_epochs_done + 1)
                    self._save_if_due(folder)

    def note_problems(self, *batches: Batch) -> None:
        """Warns once of each of the first photos that could not be read. Raises UltronError if no photo could take its
        place."""
        for row, reason in itertools.chain.from_iterable(batch.problems for batch in batches):
            if row not in self.bad_photos:
                self.bad_photos[row] = reason
                if len(self.bad_photos) <= SHOWN_BAD:
                    log.warning("another photo takes the place of %s", reason)
                elif len(self.bad_photos) == SHOWN_BAD + 1:
                    log.warning("more photos cannot be read; they are counted when the training ends")
        for batch in batches:
            if not len(batch.pixels):
                raise UltronError(
                    f"{batch.problems[0][1]}, nor can those that were tried in its place; find all that are bad with "
                    "`ultron datasets verify`"
                )

    def _save_if_due(self, folder: Path) -> None:
        """Saves after checkpoint_minutes, and when told to stop, which then happens here, on all processes at the same
        step."""
        is_time = time.monotonic() - self._saved_s >= 60.0 * self.config.checkpoint_minutes
        is_due, is_stopped = distributed.max_numbers(
            [float(is_time and distributed.process_index() == 0), float(self._stop.received is not None)], self.device
        )
        if not is_due and not is_stopped:
            return
        save_state(folder, self.step, self.state(), max(1, self.config.keep_checkpoints))
        self._saved_s = time.monotonic()
        if is_stopped:
            name = self._stop.received.name if self._stop.received else "another process"
            raise WorkFailed(stopped_text(name, self.step, folder))
