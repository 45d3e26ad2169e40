"""What learns: network, loss and optimiser, one optimiser step at a time; and all of it as plain state for
checkpoints."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ultron_cli import distributed
from ultron_cli.models import create_model
from ultron_cli.models.core import PRECISIONS, RetrievalModel, normalise_images
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.losses import create_loss
from ultron_cli.training.optimisers import RunningMean, clip_gradients, lr_at, make_optimizer, phase_at


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Of one step over all processes: mean loss, photos, and those nearest to their own class weight. own_loss: of this
    process's photos."""

    loss: float
    n_photos: int
    n_right: float
    lr: float
    own_loss: float


class Learner:
    """Network and loss of a run. `model` is the bare network; step() runs it through DistributedDataParallel or
    torch.compile if asked."""

    def __init__(self, config: TrainConfig, n_landmarks: int, steps_per_epoch: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.steps_per_epoch = config, device, steps_per_epoch
        settings = {key: value for key, value in config.model.items() if key != "name"}
        self.model: RetrievalModel = create_model(
            config.model.get("name", "gem"), pretrained=config.pretrained, **settings
        )
        loss = {key: value for key, value in config.loss.items() if key != "name"}
        self.loss = create_loss(
            config.loss.get("name", "arcface"), n_classes=n_landmarks, dim=self.model.descriptor_dim, **loss
        ).to(device)
        self.model.to(device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format)
        self.network = self._wrapped()
        self.running_mean = RunningMean(self.model, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.optimizer = make_optimizer(config, self.model, self.loss)

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.model
        if distributed.n_processes() > 1:
            if self.config.sync_batchnorm and self.device.type == "cuda":
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self._freeze_unused()
            network = nn.parallel.DistributedDataParallel(
                self.model, find_unused_parameters=self.config.unused_parameters
            )
        return torch.compile(network) if self.config.compile else network

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
    def sharded(self) -> bool:
        """Whether each process has its own part of the class weights."""
        return self.config.loss.get("sharded", False) and distributed.n_processes() > 1

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
        losses, n_right = [], 0.0
        for i, (part, part_labels) in enumerate(parts):
            last = i == len(parts) - 1
            synchronise = contextlib.nullcontext() if last or distributed.n_processes() == 1 else self.network.no_sync()
            with synchronise:
                loss = self._forward(part, part_labels)
                self.scaler.scale(loss * (len(part_labels) / len(labels))).backward()
            losses.append(loss.detach() * (len(part_labels) / len(labels)))
            n_right += self.loss.n_right
        own_loss = torch.stack(losses).sum().item()
        # A process that stopped alone would leave the others waiting: all learn of every loss.
        loss_sum, right_sum = distributed.sum_numbers([own_loss, float(n_right)], self.device)
        if math.isfinite(loss_sum):
            self._update(step)
        self.optimizer.zero_grad(set_to_none=True)
        n = distributed.n_processes()
        return StepResult(loss=loss_sum / n, n_photos=n * len(labels), n_right=right_sum, lr=lr, own_loss=own_loss)

    def _prepare(self, step: int) -> float:
        """The optimiser and the learning rate of this step; returns the rate."""
        epoch = step // self.steps_per_epoch
        if step % self.steps_per_epoch == 0 and self.config.switch and epoch == self.config.switch.epoch:
            self.optimizer = make_optimizer(self.config, self.model, self.loss, epoch=epoch)
        lr = lr_at(self.config, step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images = normalise_images(pixels.permute(0, 2, 3, 1), self.model.preprocessing)
        images = images.contiguous(
            memory_format=torch.channels_last if self.config.channels_last else torch.contiguous_format
        )
        dtype = PRECISIONS[self.config.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            unit_norm = self.loss.takes_unit
            if self.loss.needs_maps:
                descriptors, maps = self.network(images, with_maps=True, unit_norm=unit_norm)
            else:
                descriptors, maps = self.network(images, unit_norm=unit_norm), None
        return self.loss(descriptors, labels) if maps is None else self.loss(descriptors, labels, maps)

    def _update(self, step: int) -> None:
        """Averages over processes what DistributedDataParallel does not, clips, and moves the weights."""
        if not self.sharded:
            distributed.average_gradients(list(self.loss.parameters()))
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            own, sharded = list(self.model.parameters()), list(self.loss.parameters())
            clip_gradients(*((own, sharded) if self.sharded else ([*own, *sharded], [])), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.running_mean:
            self.running_mean.update(self.model, step)

    @contextlib.contextmanager
    def best_weights(self) -> Iterator[RetrievalModel]:
        """The model for evaluation: with the running mean's weights for the block where there is one."""
        was_training = self.model.training
        own = {name: value.clone() for name, value in self.model.state_dict().items()} if self.running_mean else None
        if self.running_mean:
            self.model.load_state_dict(self.running_mean.values)
        self.model.eval()
        try:
            yield self.model
        finally:
            if own is not None:
                self.model.load_state_dict(own)
            self.model.train(was_training)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain data. The loss and its optimiser state are
        this process's."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "running_mean": self.running_mean.values if self.running_mean else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load(self, state: dict[str, Any], step: int) -> None:
        """Takes up a state() that was saved before step `step`."""
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        last = max(0, step - 1) // self.steps_per_epoch  # a switch at `step` itself is still to come
        if phase_at(self.config, last) is not self.config:
            self.optimizer = make_optimizer(self.config, self.model, self.loss, epoch=last)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.running_mean:
            self.running_mean.values = {name: value.to(self.device) for name, value in state["running_mean"].items()}
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
