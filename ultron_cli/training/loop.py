"""The training loop: epochs of steps, a checkpoint now and then, validation, and a run folder that can be resumed
exactly."""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ultron_cli import distributed
from ultron_cli.console import counted, log, progress
from ultron_cli.datasets.landmarks.aspects import photo_aspects
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.landmarks.split import Exclusion, require_same_photos, split_photos, write_split
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, write_text
from ultron_cli.models.weights.checkpoints import save_checkpoint
from ultron_cli.provenance import provenance
from ultron_cli.training.batches.draws import EpochBatches, shape_groups, training_shapes
from ultron_cli.training.batches.hard import hard_examples
from ultron_cli.training.batches.photos import Augmentation, Batch, TrainingPhotos, make_loader
from ultron_cli.training.batches.tuples import TupleBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.curves import draw_curves
from ultron_cli.training.environment import environment, own_threads
from ultron_cli.training.learner import Learner
from ultron_cli.training.run.checkpoints import load_latest_state, save_state
from ultron_cli.training.run.folder import clear_folder
from ultron_cli.training.run.journal import Journal, Meter, Stopwatch
from ultron_cli.training.run.stopping import StopSignal, stopped_text
from ultron_cli.training.starting_weights import require_start, start_from
from ultron_cli.training.validation import RetrievalValidation, choose_photos
from ultron_cli.training.validation_classes import ClassificationValidation, photos_to_score

SHOWN_PATHS = 8
LEAST_FOR_CHANCE = 400  # photos
STEPS_FOR_CHANCE = (
    150  # in fewer, no setting leaves chance level among hundreds of landmarks: the quickstart's first epoch has 57
)


def judged_epoch(steps_per_epoch: int, n_epochs: int) -> int:
    """The epoch, counted from 1, after which chance level is worth a warning: the first that ends after
    STEPS_FOR_CHANCE, at latest the last."""
    return min(n_epochs, math.ceil(STEPS_FOR_CHANCE / steps_per_epoch))


class Training:
    """One run. `model` ends up trained, in evaluation mode. excluded: what exclusion lists kept out, for the stored
    split."""

    def __init__(
        self,
        config: TrainConfig,
        photos: LandmarkPhotos,
        device: torch.device,
        excluded: list[Exclusion] | None = None,
    ) -> None:
        self.config, self.all_photos, self.device, self.excluded = config, photos, device, excluded or []
        scored = photos_to_score(photos) if config.validation.kind == "classification" else None
        self.split = split_photos(
            photos.labels, 0.0 if scored else config.validation.share, config.validation.by, config.seed
        )
        self.photos = photos.take(self.split.train_rows)
        self._check_batch()
        shapes = training_shapes(config.side_px, config.group_sizes)
        self.batches = self._make_batches()
        if not self.batches.n_batches:
            raise UltronError(
                f"no shape of group_sizes has a batch of {config.batch_size} photos; use a smaller batch_size, "
                "or group_sizes=false"
            )
        self.learner = Learner(config, len(self.photos.landmark_names), self.batches.n_batches, device)
        self.model = self.learner.model
        dataset = TrainingPhotos(self.photos, Augmentation(config.augment, shapes))
        self.loader = make_loader(dataset, self.batches, config.workers, pin=device.type == "cuda")
        self.validation = self._make_validation(scored)
        self.n_held_out = len(scored.labels) if scored else len(self.split.held_out_rows)
        self.step = 0  # optimiser steps done
        self.bad_photos: dict[int, str] = {}
        self._epoch_meter = Meter()
        self._stop = StopSignal()

    def _make_validation(self, scored: LandmarkPhotos | None) -> RetrievalValidation | ClassificationValidation | None:
        """scored: the photos that have a folder of their own to be classified."""
        config, photos, rows = self.config.validation, self.all_photos, self.split.held_out_rows
        if config.kind == "classification":
            if scored is None and len(rows):
                scored = dataclasses.replace(
                    photos.take(rows), labels=photos.labels[rows], landmark_names=photos.landmark_names
                )
            if scored is None:
                raise UltronError(
                    f"classification has no photos to score: {photos.folder} is no train/ beside a val/ or "
                    "test/; use --set validation.share=0.1"
                )
            return ClassificationValidation(
                scored, config.side_px or self.config.side_px, config.crop_share, self.config.workers
            )
        rows = choose_photos(photos, rows, config.max_photos, self.config.seed) if len(rows) else rows
        return (
            RetrievalValidation(photos.take(rows), config.side_px or 2 * self.config.side_px, self.config.workers)
            if len(rows) >= 2
            else None
        )

    def _make_batches(self) -> EpochBatches:
        """Tuples of photos for a loss that works on them, else photos in any order, in groups of one shape if asked."""
        config, ranked = self.config, (distributed.process_index(), distributed.n_processes())
        if config.tuple_size:
            return TupleBatches(
                self.photos.labels, config.batch_size, config.seed, config.epochs, config.tuple_size, *ranked
            )
        groups = shape_groups(photo_aspects(self.photos)) if config.group_sizes else None
        return EpochBatches(len(self.photos.labels), config.batch_size, config.seed, config.epochs, groups, *ranked)

    def _check_batch(self) -> None:
        n, batch_size = len(self.photos.labels), self.config.batch_size
        if n < batch_size:
            raise UltronError(
                f"{self.photos.folder} has {n} photos, fewer than a batch of {batch_size}; use --set "
                f"batch_size={max(2, n // 2)}"
            )
        parts = self.config.accumulate * distributed.n_processes() * (self.config.tuple_size or 1)
        if batch_size % parts:
            near, of_tuples = (
                batch_size // parts * parts or parts,
                " x loss.tuple_size" if self.config.tuple_size else "",
            )
            raise UltronError(
                f"batch_size must be a multiple of processes x accumulate{of_tuples} = {parts}; found "
                f"{batch_size}; use --set batch_size={near}"
            )

    def run(self, folder: Path, resume: bool = False) -> list[dict[str, Any]]:
        """Trains into `folder` and returns one dictionary per epoch; with `resume` goes on from the folder's latest
        checkpoint."""
        origin = provenance() | {"device": str(self.device), "dataset_folder": str(self.photos.folder.resolve())}
        state = load_latest_state(folder, self.learner.sharded) if resume else None
        if distributed.process_index() == 0:
            self._start_folder(folder, origin, resume)
        distributed.wait_for_processes()
        self._start_weights(folder, is_new=state is None)
        if state is not None:
            self._take_up(state)
            log.info("going on after step %d of %d", self.step, self.config.epochs * self.batches.n_batches)
        self.journal = (
            Journal(folder, self.step, self.step // self.batches.n_batches, self.config.log_every, self.device)
            if distributed.process_index() == 0
            else None
        )
        if state is not None and self.journal:
            self.journal.meter = Meter(**state["line"])
        n_steps = self.config.epochs * self.batches.n_batches
        try:
            with (
                own_threads(self.config.threads),
                self._stop.watched(),
                progress(total=n_steps, what="train", unit="step") as bar,
            ):
                bar.update(self.step)
                self._saved_s = time.monotonic()
                self.batches.set_start(*divmod(self.step, self.batches.n_batches))
                batches = iter(self.loader) if self.step < n_steps else iter(())
                while self.step < n_steps:
                    self._epoch(batches, folder, bar)
        finally:
            if self.journal:
                self.journal.close()
        return self._finish(folder, origin)

    def _start_weights(self, folder: Path, is_new: bool) -> None:
        """The weights that a new run starts from; and what batches of tuples need to know of them, which the folder
        keeps for a resumed run."""
        if is_new:
            require_start(self.config)
        class_weights = (
            start_from(self.learner, Path(self.config.weights), self.photos.landmark_names)
            if is_new and self.config.weights
            else None
        )
        if isinstance(self.batches, TupleBatches):
            self.batches.taken_for = hard_examples(
                folder, self.config, self.photos, self.learner, class_weights, is_new
            )

    def _start_folder(self, folder: Path, origin: dict[str, Any], resume: bool) -> None:
        make_folder(folder)
        clear_folder(folder, torn_only=resume)
        if resume and (folder / "split.json").exists():
            require_same_photos(folder / "split.json", self.all_photos)
        write_split(folder / "split.json", self.split, self.all_photos, self.excluded)
        write_text(
            folder / "config.json", json.dumps({"config": self.config.to_plain(), "provenance": origin}, indent=1)
        )
        write_text(folder / "environment.json", json.dumps(environment(self.device), indent=1))

    def _epoch(self, batches: Iterator[Batch], folder: Path, bar: Any) -> None:
        """From the present step to the end of its epoch."""
        epoch, first_batch = divmod(self.step, self.batches.n_batches)
        if first_batch == 0:
            self._epoch_meter = Meter()
        self.learner.train()
        watch = Stopwatch()
        for batch in itertools.islice(batches, self.batches.n_batches - first_batch):
            wait_s = watch.read()
            self._step(batch, wait_s, watch)
            bar.update()
            if self.step % self.batches.n_batches:
                self._save_if_due(folder)
        self._end_epoch(epoch + 1)
        self._save_if_due(folder)

    def _step(self, batch: Batch, wait_s: float, watch: Stopwatch) -> None:
        for row, reason in batch.problems:
            if row not in self.bad_photos:
                self.bad_photos[row] = reason
                log.warning("another photo takes the place of %s", reason)
        if not len(batch.pixels):
            raise UltronError(
                f"{batch.problems[0][1]}, nor can those that were tried in its place; check them with `ultron "
                "datasets verify`"
            )
        pixels, labels = (
            batch.pixels.to(self.device, non_blocking=True),
            batch.labels.to(self.device, non_blocking=True),
        )
        result = self.learner.step(pixels, labels, self.step)
        if not math.isfinite(result.loss):
            self._stop_for_loss(result.loss, result.lr, batch if not math.isfinite(result.own_loss) else None)
        self.step += 1
        n_batches = self.batches.n_batches
        is_late = 2 * ((self.step - 1) % n_batches) >= n_batches
        values = (result.loss, result.n_photos, result.n_right, wait_s + watch.read(), wait_s)
        self._epoch_meter.add(*values, is_late=is_late)
        if self.journal:
            self.journal.meter.add(*values)
            loss = self.learner.loss
            self.journal.step(self.step, self.step / n_batches, result.lr, loss.margin_now, loss.scale_now)

    def _stop_for_loss(self, value: float, lr: float, batch: Batch | None) -> None:
        """Raises WorkFailed with all that helps to find out why. batch: None on processes whose own loss was finite."""
        paths = [str(self.photos.paths[int(row)]) for row in batch.rows] if batch else []
        shown = ", ".join(paths[:SHOWN_PATHS]) + (
            f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
        )
        advice = [f"a tenth of the rate: --set lr={self.config.lr / 10:.2g}"]
        if self.config.clip_norm is None:
            advice.append("--set clip_norm=5")
        if self.config.precision != "float32":
            advice.append("--set precision=float32")
        raise WorkFailed(
            f"the loss became {value} at lr {lr:.2g}, step {self.step + 1}, "
            f"{f'photos {shown}' if paths else 'on another process'}; try {', or '.join(advice)}"
        )

    def _end_epoch(self, epoch: int) -> None:
        """Summary, validation and the warning of an epoch, counted from 1."""
        summary = self._epoch_meter.summary()
        entry: dict[str, Any] = {
            "epoch": epoch,
            **summary,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "seconds": self._epoch_meter.seconds,
        }
        if self.bad_photos:
            entry["bad_photos"] = len(self.bad_photos)
        is_due = epoch % self.config.validation.every_epochs == 0 or epoch == self.config.epochs
        if self.journal and self.validation and is_due:
            entry |= self._validate()
        if self.journal:
            self.journal.epoch(self.step, entry, self.config.epochs)
            if epoch == judged_epoch(self.batches.n_batches, self.config.epochs):
                self._warn_of_chance(epoch)

    def _validate(self) -> dict[str, Any]:
        """Scores of the held-out photos, as metrics.jsonl has them."""
        with self.learner.best_weights() as model:
            if isinstance(self.validation, ClassificationValidation):
                found = self.validation.run(model, self.learner.loss, self.device)
                return {
                    "validation_top1": found.top1,
                    "validation_top5": found.top5,
                    "validation_photos": found.n_photos,
                }
            result = self.validation.run(model, self.device)
        return {
            "validation_mAP": result.mAP,
            "validation_queries": result.n_queries,
            "validation_photos": result.n_photos,
        }

    def _warn_of_chance(self, epoch: int) -> None:
        """Warns if the second half of the epoch was no better than guessing (within two standard deviations; few photos
        say nothing)."""
        n, right = self._epoch_meter.n_late, self._epoch_meter.n_right_late
        chance = 1.0 / max(1.0, len(self.photos.landmark_names) * self.config.loss.get("sample_rate", 1.0))
        if n >= LEAST_FOR_CHANCE and right <= n * chance + 2.0 * math.sqrt(n * chance * (1.0 - chance)):
            log.warning(
                "at chance level after epoch %d: accuracy %.2f %% where guessing gives %.2f %%; if the next "
                "epochs are no better, try a lower or higher "
                "lr, loss.margin=0 to start with, longer warm-up, or check that folders and landmarks agree",
                epoch,
                100.0 * right / max(1, n),
                100.0 * chance,
            )

    def _save_if_due(self, folder: Path) -> None:
        """Saves after checkpoint_minutes, and when told to stop, which then happens here, on all processes at the same
        step."""
        is_due = time.monotonic() - self._saved_s >= 60.0 * self.config.checkpoint_minutes
        wanted = distributed.max_numbers(
            [float(is_due and distributed.process_index() == 0), float(self._stop.received is not None)], self.device
        )
        if not any(wanted):
            return
        save_state(folder, self.step, self._state(), self.config.keep_checkpoints)
        self._saved_s = time.monotonic()
        if wanted[1]:
            name = self._stop.received.name if self._stop.received else "another process"
            raise WorkFailed(stopped_text(name, self.step, folder))

    def _state(self) -> dict[str, Any]:
        rows = sorted(self.bad_photos)
        return self.learner.state() | {
            "epoch_meter": self._epoch_meter.state(),
            "line": self.journal.meter.state() if self.journal else {},
            "bad_rows": rows,
            "bad_reasons": [self.bad_photos[row] for row in rows],
        }

    def _take_up(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.learner.load(state, self.step)
        self._epoch_meter = Meter(**state["epoch_meter"])
        self.bad_photos = dict(zip(state["bad_rows"], state["bad_reasons"], strict=True))

    def _finish(self, folder: Path, origin: dict[str, Any]) -> list[dict[str, Any]]:
        """The final checkpoint and the curves; every process returns the epochs' summaries."""
        if self.learner.running_mean:
            self.model.load_state_dict(self.learner.running_mean.values)
        self.model.eval()
        metrics = self.journal.metrics if self.journal else []
        if distributed.process_index() == 0:
            if self.bad_photos:
                log.warning(
                    "%s could not be read and had another in its place; `ultron datasets verify` lists them",
                    counted(len(self.bad_photos), "photo"),
                )
            draw_curves(folder)
            loss_state = (
                {} if self.learner.sharded else {"loss_state": self.learner.loss.state_dict()}
            )  # shards are in the training checkpoints
            extra = {
                "train_config": self.config.to_plain(),
                "landmarks": self.photos.landmark_names,
                "provenance": origin,
                **loss_state,
            }
            save_checkpoint(folder / "checkpoint.pt", self.model, extra)
        return distributed.from_first_process(metrics)
