"""A training: what it learns from, its steps, validation, and the run folder that it leaves. run/loop.py has what it
shares with AutoLA's search."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ultron_cli import distributed, user_code
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.landmarks.split import Exclusion, require_same_photos, split_photos, write_split
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.checkpoints import save_checkpoint
from ultron_cli.output_files import require_space
from ultron_cli.training.batches.choice import make_batches
from ultron_cli.training.batches.decoded import DecodedPhotos
from ultron_cli.training.batches.draws import training_shapes
from ultron_cli.training.batches.hard import mine_negatives, nearest_landmarks
from ultron_cli.training.batches.mined import MinedBatches
from ultron_cli.training.batches.photos import Augmentation, Batch, TrainingPhotos, make_loader
from ultron_cli.training.batches.tuples import TupleBatches
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.losses.base import MarginLoss
from ultron_cli.training.optimiser_table import OPTIMIZERS
from ultron_cli.training.run.checkpoints import State, load_latest_state, remove_states, save_state, saved_steps
from ultron_cli.training.run.folder import RESULT_FILE, continued, set_result_aside
from ultron_cli.training.run.journal import Journal, Meter, Stopwatch
from ultron_cli.training.run.loop import RunLoop
from ultron_cli.training.starting_weights import require_start, start_from
from ultron_cli.training.validation import RetrievalValidation, choose_photos
from ultron_cli.training.validation_classes import ClassificationValidation, photos_to_score

SHOWN_PATHS = 8
LEAST_FOR_CHANCE = 400  # photos
# In fewer, no setting leaves chance level among hundreds of landmarks: the quickstart's first epoch has 28.
STEPS_FOR_CHANCE = 150


def judged_epoch(steps_per_epoch: int, n_epochs: int) -> int:
    """The epoch, counted from 1, after which chance level is worth a warning: the first that ends after
    STEPS_FOR_CHANCE, at latest the last."""
    return min(n_epochs, math.ceil(STEPS_FOR_CHANCE / steps_per_epoch))


class Training(RunLoop[TrainConfig, Batch]):
    """One run. `model` ends up trained, in evaluation mode.

    excluded: what exclusion lists kept out, for the stored split.
    """

    name = "train"

    def __init__(
        self,
        config: TrainConfig,
        photos: LandmarkPhotos,
        device: torch.device,
        excluded: list[Exclusion] | None = None,
    ) -> None:
        super().__init__(config, device)
        self.all_photos = photos
        self.excluded = excluded or []
        scored = photos_to_score(photos) if config.validation.kind == "classification" else None
        self.split = split_photos(
            photos.labels, 0.0 if scored else config.validation.share, config.validation.by, config.seed
        )
        self.photos = photos.take(self.split.train_rows)
        self.batches = make_batches(config, self.photos)
        self.n_batches = self.batches.n_batches
        if not self.n_batches:
            raise UltronError(
                f"no shape of group_sizes has a batch of {config.batch_size} photos; use a smaller batch_size, "
                "or `group_sizes=false`"
            )
        self.learner = self._make_learner()
        self.model = self.learner.model
        self.loader = self._make_loader()
        self.validation = self._make_validation(scored)
        self.n_held_out = len(scored.labels) if scored else len(self.split.held_out_rows)
        self.journal: Journal | None = None  # of the first process, while it runs
        self._epoch_meter = Meter()

    def _make_learner(self) -> Learner:
        return Learner(self.config, len(self.photos.landmark_names), self.n_batches, self.device)

    def _make_loader(self) -> Iterable[Batch]:
        """The batches of `self.batches`, from where they are told to begin."""
        shapes = training_shapes(self.config.side_px, self.config.group_sizes)
        decoded = DecodedPhotos(len(self.photos.paths))
        dataset = TrainingPhotos(self.photos, Augmentation(self.config.augment, shapes, decoded))
        return make_loader(dataset, self.batches, self.config.workers, pin=self.device.type == "cuda")

    def _make_validation(self, scored: LandmarkPhotos | None) -> RetrievalValidation | ClassificationValidation | None:
        """scored: the photos that have a folder of their own to be classified."""
        photos = self.all_photos
        config = self.config.validation
        rows = self.split.held_out_rows
        if config.kind == "classification":
            if scored is None and len(rows):
                scored = dataclasses.replace(
                    photos.take(rows), labels=photos.labels[rows], landmark_names=photos.landmark_names
                )
            if scored is None:
                raise UltronError(
                    f"classification has no photos to score: {photos.folder} is no train/ beside a val/ or "
                    "test/; use `validation.share=0.1`"
                )
            return ClassificationValidation(
                scored, config.side_px or self.config.side_px, config.crop_share, self.config.workers
            )
        if len(rows):
            rows = choose_photos(photos, rows, config.max_photos, self.config.seed)
        if len(rows) < 2:
            return None
        return RetrievalValidation(photos.take(rows), config.side_px or 2 * self.config.side_px, self.config.workers)

    def run(self, folder: Path, resume: bool = False) -> list[dict[str, float]]:
        """Trains into `folder` and returns one dictionary per epoch; with `resume` goes on from the folder's latest
        checkpoint."""
        state = load_latest_state(folder, self.learner.is_sharded) if resume else None
        origin = self._start_folder(folder, resume) if distributed.process_index() == 0 else {}
        distributed.wait_for_processes()
        self._start_weights(folder, is_new=state is None)
        if state is not None:
            self.go_on(folder, state)
        if distributed.process_index() == 0:
            n_epochs_done = self.step // self.n_batches
            self.journal = Journal(folder, self.step, n_epochs_done, self.config.log_every, self.device)
            if state is not None:
                self.journal.meter = Meter(**state["line"])
        try:
            self.loop(folder)
        finally:
            if self.journal:
                self.journal.close()
        return self._finish(folder, origin)

    def _start_folder(self, folder: Path, resume: bool) -> dict[str, object]:
        """Makes the folder ready for the run, or for what is left of it, and returns what makes the run."""
        origin = self.origin(self.photos.folder) | (continued(folder, self.config.epochs) if resume else {})
        code = user_code.parts_of(self.config.to_plain())
        if code:
            origin["code"] = {text: dataclasses.asdict(part.record()) for text, part in code.items()}
        self.make_folder(folder, resume)
        require_space(folder, self._disk_bytes(), "the run with one checkpoint to go on from")
        if resume and (folder / "split.json").exists():
            require_same_photos(folder / "split.json", self.all_photos)
        if resume:
            set_result_aside(folder)
        self.write_settings(folder, origin)  # first, as it tells a run's folder from any other
        user_code.copy_into(folder, code.values())
        write_split(folder / "split.json", self.split, self.all_photos, self.excluded)
        return origin

    def _disk_bytes(self) -> int:
        """About what the final checkpoint and one to go on from take: with the optimiser's one or two moments of each
        weight, and the running mean."""
        weights = [*self.model.state_dict().values(), *self.learner.loss.state_dict().values()]
        n_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
        known = OPTIMIZERS.get(self.config.optimizer)
        n_moments = known.n_moments if known else 2
        return n_bytes * (2 + n_moments + (self.config.ema is not None))

    def _start_weights(self, folder: Path, is_new: bool) -> None:
        """The weights that a new run starts from; and what batches of tuples need to know of them, which the folder
        keeps for a resumed run."""
        class_weights = None
        if is_new:
            require_start(self.config)
            if self.config.weights:
                class_weights = start_from(self.learner, Path(self.config.weights), self.photos.landmark_names)
        if isinstance(self.batches, TupleBatches):
            nearest = nearest_landmarks(folder, self.config, self.photos, self.learner, class_weights, is_new)
            self.batches.set_nearest_landmarks(nearest)

    def batches_to_come(self) -> Iterator[Batch]:
        epoch, first_batch = divmod(self.step, self.n_batches)
        if isinstance(self.batches, MinedBatches):
            return self._mined_batches(self.batches, epoch, first_batch)
        self.batches.set_start(epoch, first_batch)
        return iter(self.loader)

    def _mined_batches(self, batches: MinedBatches, epoch: int, first_batch: int) -> Iterator[Batch]:
        """The same, with the hard negatives of each epoch searched when its first batch is asked for."""
        for later_epoch in range(epoch, self.config.epochs):
            if batches.mined_epoch != later_epoch:
                negatives = mine_negatives(batches, later_epoch, self.photos, self.learner, self.config)
                batches.set_negatives(later_epoch, negatives)
            batches.set_start(later_epoch, first_batch if later_epoch == epoch else 0)
            yield from self.loader

    def begin_epoch(self, is_new: bool) -> None:
        if is_new:
            self._epoch_meter = Meter()
        self.learner.train()

    def take_step(self, batch: Batch, wait_s: float, watch: Stopwatch) -> None:
        self.note_problems(batch)
        pixels = batch.pixels.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        result = self.learner.step(pixels, labels, self.step)
        if not math.isfinite(result.loss):
            self._stop_for_loss(result.loss, result.lr, batch if not math.isfinite(result.local_loss) else None)
        self.step += 1
        is_late = 2 * ((self.step - 1) % self.n_batches) >= self.n_batches
        seconds = wait_s + watch.read()
        self._epoch_meter.add(result.loss, result.n_photos, result.n_right, seconds, wait_s, is_late=is_late)
        if self.journal:
            self.journal.meter.add(result.loss, result.n_photos, result.n_right, seconds, wait_s)
            self.journal.step(self.step, self.step / self.n_batches, result.lr, result.margin, result.scale)

    def _stop_for_loss(self, value: float, lr: float, batch: Batch | None) -> None:
        """Raises WorkFailed with all that helps to find out why. batch: None on processes whose own loss was finite."""
        paths = [str(self.photos.paths[int(row)]) for row in batch.rows] if batch else []
        photos_text = f"photos {', '.join(paths[:SHOWN_PATHS])}" if paths else "on another process"
        if len(paths) > SHOWN_PATHS:
            photos_text += f" and {len(paths) - SHOWN_PATHS} more"
        advice = [f"a tenth of the rate: `lr={self.config.lr / 10:.2g}`"]
        if self.config.clip_norm is None:
            advice.append("`clip_norm=5`")
        if self.config.precision != "float32":
            advice.append("`precision=float32`")
        raise WorkFailed(
            f"the loss became {value} at lr {lr:.2g}, step {self.step + 1}, {photos_text}; try {', or '.join(advice)}"
        )

    def end_epoch(self, folder: Path, epoch: int) -> None:
        """Summary, validation and the warning of an epoch, counted from 1."""
        summary = self._epoch_meter.summary()
        entry: dict[str, float] = {
            "epoch": epoch,
            **summary,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "seconds": self._epoch_meter.seconds,
        }
        if self.bad_photos:
            entry["bad_photos"] = len(self.bad_photos)
        is_due = epoch % self.config.validation.every_epochs == 0 or epoch == self.config.epochs
        if self.journal and self.validation and is_due:
            entry |= self._validate(self.validation)
        if self.journal:
            self.journal.epoch(self.step, entry, self.config.epochs)
            if epoch == judged_epoch(self.n_batches, self.config.epochs):
                self._warn_of_chance(epoch)

    def _validate(self, validation: RetrievalValidation | ClassificationValidation) -> dict[str, float]:
        """Scores of the held-out photos, as metrics.jsonl has them."""
        with self.learner.best_weights() as model:
            if isinstance(validation, ClassificationValidation):
                assert isinstance(self.learner.loss, MarginLoss)  # as the configuration says
                classes = validation.run(model, self.learner.loss, self.device)
                return {
                    "validation_top1": classes.top1,
                    "validation_top5": classes.top5,
                    "validation_photos": classes.n_photos,
                }
            retrieval = validation.run(model, self.device, self.learner.loss.takes_unit)
        return {
            "validation_mAP": retrieval.mAP,
            "validation_queries": retrieval.n_queries,
            "validation_photos": retrieval.n_photos,
        }

    def _warn_of_chance(self, epoch: int) -> None:
        """Warns if the second half of the epoch was no better than guessing (within two standard deviations; few photos
        say nothing)."""
        n_photos = self._epoch_meter.n_late
        n_right = self._epoch_meter.n_right_late
        chance = self.learner.loss.chance(self.config.batch_size // self.config.accumulate)
        most_by_chance = n_photos * chance + 2.0 * math.sqrt(n_photos * chance * (1.0 - chance))
        if n_photos >= LEAST_FOR_CHANCE and n_right <= most_by_chance:
            advice = [f"`lr={self.config.lr / 10:.2g}`", f"`lr={self.config.lr * 10:.2g}`"]
            settings = self.config.loss_settings
            if settings.has_class_weights and getattr(settings, "margin", 0.0):
                advice.append("`loss.margin=0` to start with")
            advice.append(f"`warmup_epochs={max(1.0, 2 * self.config.warmup_epochs):g}`")
            log.warning(
                "at chance level after epoch %d: accuracy %.2f %% where guessing gives %.2f %%; %s try %s, or check "
                "that folders and landmarks agree",
                epoch,
                100.0 * n_right / max(1, n_photos),
                100.0 * chance,
                "train longer, or" if epoch == self.config.epochs else "if the next epochs are no better,",
                ", ".join(advice),
            )

    def state(self) -> State:
        rows = sorted(self.bad_photos)
        return self.learner.state() | {
            "epoch_meter": self._epoch_meter.state(),
            "line": self.journal.meter.state() if self.journal else {},
            "bad_rows": rows,
            "bad_reasons": [self.bad_photos[row] for row in rows],
            **({"mined": self.batches.state()} if isinstance(self.batches, MinedBatches) else {}),
        }

    def load(self, folder: Path, state: State) -> None:
        self.learner.load(state, self.step)
        self._epoch_meter = Meter(**state["epoch_meter"])
        self.bad_photos = dict(zip(state["bad_rows"], state["bad_reasons"], strict=True))
        if isinstance(self.batches, MinedBatches):
            self.batches.load(state["mined"])

    def _finish(self, folder: Path, origin: dict[str, object]) -> list[dict[str, float]]:
        """The state to go on from with more epochs, and the final checkpoint; every process returns the epochs'
        summaries."""
        if self.config.keep_checkpoints:
            save_state(folder, self.step, self.state(), self.config.keep_checkpoints)
        self.learner.keep_best_weights()
        metrics = self.journal.metrics if self.journal else []
        if distributed.process_index() == 0:
            if self.bad_photos:
                log.warning(
                    "%s could not be read and had another in its place; `ultron datasets verify %s` lists them",
                    counted(len(self.bad_photos), "photo"),
                    self.photos.folder,
                )
            self._write_checkpoint(folder, self._checkpoint_extra(origin))
            if not self.config.keep_checkpoints:
                remove_states(folder, saved_steps(folder))
        return distributed.from_first_process(metrics)

    def _write_checkpoint(self, folder: Path, extra: dict[str, object]) -> None:
        """checkpoint.pt, which says that the run is finished."""
        save_checkpoint(folder / RESULT_FILE, self.model, extra)

    def _checkpoint_extra(self, origin: dict[str, object]) -> dict[str, object]:
        """What a checkpoint holds beside the model."""
        extra: dict[str, object] = {
            "train_config": self.config.to_plain(),
            "landmarks": self.photos.landmark_names,
            "provenance": origin,
        }
        if not self.learner.is_sharded:  # shards are in the training checkpoints
            extra["loss_state"] = self.learner.loss.state_dict()
        return extra
