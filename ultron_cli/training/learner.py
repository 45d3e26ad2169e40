"""What learns: network, loss and optimiser, one optimiser step at a time; and all of it as plain state for
checkpoints."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ultron_cli import distributed
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.models import build_model
from ultron_cli.models.core import PRECISIONS, RetrievalModel, normalise_images
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.losses import make_loss
from ultron_cli.training.losses.base import Loss, LossResult
from ultron_cli.training.optimisers import RunningMean, clip_gradients, lr_at, make_optimizer, phase_at
from ultron_cli.training.run.checkpoints import State
from ultron_cli.training.validation import RetrievalValidation
from ultron_cli.user_code import blaming


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step did, over all processes."""

    loss: float  # mean over the photos
    local_loss: float  # mean over this process's photos
    n_photos: int
    n_right: float  # photos that the loss recognises
    lr: float
    margin: float  # of the loss, and its scale, as the step's last part used them
    scale: float


class Learner:
    """Network and loss of a run. `model` is the bare network; `network` is what step() runs: the model, inside
    DistributedDataParallel with several processes, compiled if the configuration says so."""

    def __init__(self, config: TrainConfig, n_landmarks: int, steps_per_epoch: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.steps_per_epoch = steps_per_epoch
        self.model = self._make_model()
        self.loss: Loss = make_loss(
            config.loss_name, config.loss_settings, n_classes=n_landmarks, dim=self.model.descriptor_dim
        ).to(device)
        self.model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.network = self._wrapped()
        self.running_mean = RunningMean(self.model, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.optimizer = make_optimizer(config, self.model, self.loss)

    def _make_model(self) -> RetrievalModel:
        config = self.config
        return build_model(config.model_name, config.model_settings, pretrained=config.pretrained)

    def reader(self, photos: LandmarkPhotos, what: str) -> RetrievalValidation:
        """Describes photos as they are, of at most side_px, by a network. what: it is for, as messages say it."""
        return RetrievalValidation(photos, self.config.side_px, self.config.workers, what=what)

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.model
        if distributed.n_processes() > 1:
            if self.config.sync_batchnorm and self.device.type == "cuda":
                self.model = cast(RetrievalModel, nn.SyncBatchNorm.convert_sync_batchnorm(self.model))
            self._freeze_unused()
            network = DistributedDataParallel(self.model, find_unused_parameters=self.config.unused_parameters)
        return cast(nn.Module, torch.compile(network)) if self.config.compile else network

    def _freeze_unused(self) -> None:
        """Freezes parameters that no descriptor depends on (timm's norms before a classifier): DistributedDataParallel
        would wait for them."""
        side_px = max(64, self.model.min_side_px)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            self.model.eval()(torch.randn(1, 3, side_px, side_px, device=self.device)).sum().backward()
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
            parameter.grad = None

    @property
    def is_sharded(self) -> bool:
        """Whether each process has its own part of the class weights."""
        return self.config.loss_settings.has_shards and distributed.n_processes() > 1

    def train(self) -> None:
        """Training mode, before a step."""
        self.network.train()
        self.loss.train()

    def step(self, pixels: torch.Tensor, labels: torch.Tensor, step: int) -> StepResult:
        """One optimiser step, counted from 0. pixels: (B, 3, H, W) uint8 of this process; labels: (B,) int64.

        With a loss that is not finite nothing is changed, and the result says so.
        """
        lr = self._prepare(step)
        parts = list(zip(pixels.chunk(self.config.accumulate), labels.chunk(self.config.accumulate), strict=True))
        losses: list[torch.Tensor] = []
        results: list[LossResult] = []
        for i, (part, part_labels) in enumerate(parts):
            with self._gradients_synchronised(is_last=i == len(parts) - 1):
                result = self._forward(part, part_labels)
                self.scaler.scale(result.loss * (len(part_labels) / len(labels))).backward()
            losses.append(result.loss.detach() * (len(part_labels) / len(labels)))
            results.append(replace(result, loss=result.loss.detach()))  # without the graph, which holds the maps
        local_loss = torch.stack(losses).sum().item()
        n_right = float(sum(result.n_right for result in results))
        # A process that stopped alone would leave the others waiting: all learn of every loss.
        loss_sum, n_right = distributed.sum_numbers([local_loss, n_right], self.device)
        if math.isfinite(loss_sum):
            self._update()
        self.optimizer.zero_grad(set_to_none=True)
        n_processes = distributed.n_processes()
        return StepResult(
            loss=loss_sum / n_processes,
            local_loss=local_loss,
            n_photos=n_processes * len(labels),
            n_right=n_right,
            lr=lr,
            margin=results[-1].margin,
            scale=results[-1].scale,
        )

    def _gradients_synchronised(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """DistributedDataParallel averages the gradients over the processes with the last part of a step only."""
        if is_last or distributed.n_processes() == 1:
            return contextlib.nullcontext()
        return cast(DistributedDataParallel, self.network).no_sync()

    def _prepare(self, step: int) -> float:
        """The optimiser and the learning rate of this step; returns the rate."""
        epoch = step // self.steps_per_epoch
        if step % self.steps_per_epoch == 0 and self.config.switch and epoch == self.config.switch.epoch:
            self.optimizer = make_optimizer(self.config, self.model, self.loss, epoch=epoch)
        lr = lr_at(self.config, step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the network takes of (B, 3, H, W) uint8."""
        images = normalise_images(pixels.permute(0, 2, 3, 1), self.model.preprocessing)
        return images.contiguous(
            memory_format=torch.channels_last if self.config.channels_last else torch.contiguous_format
        )

    def _forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> LossResult:
        images = self._inputs(pixels)
        dtype = PRECISIONS[self.config.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            unit_norm = self.loss.takes_unit
            if self.loss.needs_maps:
                descriptors, maps = self.network(images, with_maps=True, unit_norm=unit_norm)
            else:
                descriptors, maps = self.network(images, unit_norm=unit_norm), None
        with blaming(self.loss):
            result = self.loss.result(descriptors, labels, maps)
            if not isinstance(result.loss, torch.Tensor) or result.loss.ndim or not result.loss.requires_grad:
                form = tuple(result.loss.shape) if isinstance(result.loss, torch.Tensor) else type(result.loss).__name__
                raise TypeError(f"a loss must be a scalar tensor with a gradient, found {form}")
        return result

    def _update(self) -> None:
        """Averages over processes what DistributedDataParallel does not, clips, and moves the weights."""
        if not self.is_sharded:
            distributed.average_gradients(list(self.loss.parameters()))
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            replicated = list(self.model.parameters())
            class_weights = list(self.loss.parameters())
            if self.is_sharded:
                clip_gradients(replicated, class_weights, self.config.clip_norm)
            else:
                clip_gradients([*replicated, *class_weights], [], self.config.clip_norm)
        with blaming(self.optimizer, "step"):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.running_mean:
            self.running_mean.update_parameters(self.model)

    def load_model(self, weights: dict[str, torch.Tensor]) -> None:
        """Takes the model's weights to start from, of which the running mean then begins."""
        self.model.load_state_dict(weights)
        if self.running_mean:
            self.running_mean.start(self.model, n_steps=0)

    def keep_best_weights(self) -> None:
        """Ends the training: the model has the weights of the running mean where there is one, in evaluation mode."""
        if self.running_mean:
            self.model.load_state_dict(self.running_mean.module.state_dict())
        self.model.eval()

    @contextlib.contextmanager
    def best_weights(self) -> Iterator[RetrievalModel]:
        """The model for evaluation: with the running mean's weights for the block where there is one."""
        was_training = self.model.training
        weights: dict[str, torch.Tensor] = {}
        if self.running_mean:
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(self.running_mean.module.state_dict())
        self.model.eval()
        try:
            yield self.model
        finally:
            if self.running_mean:
                self.model.load_state_dict(weights)
            self.model.train(was_training)

    def state(self) -> State:
        """Everything that the next step depends on, as tensors and plain data. The loss and its optimiser state are
        this process's."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "running_mean": dict(self.running_mean.module.state_dict()) if self.running_mean else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load(self, state: State, step: int) -> None:
        """Goes on from a state() that was saved before step `step`."""
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        last_epoch = max(0, step - 1) // self.steps_per_epoch  # a switch at `step` itself is still to come
        if phase_at(self.config, last_epoch) is not self.config:
            self.optimizer = make_optimizer(self.config, self.model, self.loss, epoch=last_epoch)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.running_mean:
            self.running_mean.load(state["running_mean"], n_steps=step)
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
