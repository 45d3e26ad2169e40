"""The training loop: one process, one classification loss; a run folder with config, metrics and checkpoint."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ultron_cli.configs import to_dict
from ultron_cli.console import dump_json, log, progress
from ultron_cli.datasets.landmarks import LandmarkPhotos, TrainingPhotos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, write_text
from ultron_cli.models import create_model
from ultron_cli.models.checkpoints import save_checkpoint
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.provenance import provenance
from ultron_cli.training.config import AugmentConfig, TrainConfig
from ultron_cli.training.losses import create_loss


def make_augmentation(config: AugmentConfig, side_px: int) -> nn.Module:
    """(3, H, W) uint8 -> (3, side_px, side_px) uint8, at random."""
    from torchvision.transforms import v2

    steps: list[nn.Module] = [v2.RandomResizedCrop(side_px, scale=config.crop_area, ratio=config.crop_aspect, antialias=True)]
    if config.flip:
        steps.append(v2.RandomHorizontalFlip())
    steps.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
    if config.grey:
        steps.append(v2.RandomGrayscale(config.grey))
    return v2.Compose(steps)


def make_optimizer(config: TrainConfig, *modules: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all parameters; weight decay leaves biases, norms and single exponents alone."""
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr)


def rate_at(step: int, n_steps: int, n_warmup: int) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine down to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


@dataclass
class EpochMeter:
    """Sums of one epoch."""

    loss: float = 0.0
    n_photos: int = 0
    n_right: int = 0
    started_s: float = 0.0

    def result(self, epoch: int, lr: float) -> dict[str, Any]:
        seconds = time.perf_counter() - self.started_s
        return {
            "epoch": epoch, "loss": self.loss / self.n_photos, "accuracy": self.n_right / self.n_photos,
            "lr": lr, "photos_per_s": self.n_photos / seconds, "seconds": seconds,
        }  # fmt: skip


class Training:
    """One run. `model` ends up trained, in evaluation mode."""

    def __init__(self, config: TrainConfig, photos: LandmarkPhotos, device: torch.device) -> None:
        if len(photos.paths) < config.batch_size:
            smaller = max(2, len(photos.paths) // 2)
            raise UltronError(f"{photos.folder} has {len(photos.paths)} photos, fewer than a batch of {config.batch_size}; use --set batch_size={smaller}")
        torch.manual_seed(config.seed)
        self.config, self.photos, self.device = config, photos, device
        settings = {key: value for key, value in config.model.items() if key != "name"}
        self.model: RetrievalModel = create_model(config.model.get("name", "gem"), pretrained=config.pretrained, **settings).to(
            device, memory_format=torch.channels_last
        )
        loss = {key: value for key, value in config.loss.items() if key != "name"}
        self.loss = create_loss(config.loss.get("name", "arcface"), n_classes=len(photos.landmark_names), dim=self.model.descriptor_dim, **loss).to(device)
        self.optimizer = make_optimizer(config, self.model, self.loss)
        dataset = TrainingPhotos(photos, make_augmentation(config.augment, config.side_px), longest_side_px=2 * config.side_px)
        self.loader = torch.utils.data.DataLoader(
            dataset, batch_size=config.batch_size, shuffle=True, drop_last=True, num_workers=config.workers,
            persistent_workers=config.workers > 0, generator=torch.Generator().manual_seed(config.seed),
        )  # fmt: skip
        n_steps = config.epochs * len(self.loader)
        n_warmup = round(config.warmup_epochs * len(self.loader))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_at(step, n_steps, n_warmup))

    @contextlib.contextmanager
    def _own_threads(self) -> Iterator[None]:
        """As many threads as configured, and afterwards as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, folder: Path) -> list[dict[str, Any]]:
        """Trains and writes config.json, metrics.jsonl and checkpoint.pt into `folder`; returns one dictionary per epoch."""
        make_folder(folder)
        origin = provenance() | {"device": str(self.device), "dataset_folder": str(self.photos.folder.resolve())}
        write_text(folder / "config.json", json.dumps({"config": to_dict(self.config), "provenance": origin}, indent=1))
        metrics: list[dict[str, Any]] = []
        with self._own_threads(), progress(total=self.config.epochs * len(self.loader), what="train", unit="step") as bar:
            for epoch in range(1, self.config.epochs + 1):
                metrics.append(self._epoch(epoch, bar))
                write_text(folder / "metrics.jsonl", "".join(dump_json(entry, indent=None) + "\n" for entry in metrics))
                log.info(
                    "epoch %d of %d: loss %.3f, accuracy %.1f %%, lr %.2g, %.0f photos/s",
                    epoch,
                    self.config.epochs,
                    *(metrics[-1][key] * factor for key, factor in (("loss", 1), ("accuracy", 100), ("lr", 1), ("photos_per_s", 1))),
                )
        self.model.eval()
        extra = {"train_config": to_dict(self.config), "landmarks": self.photos.landmark_names, "loss_state": self.loss.state_dict(), "provenance": origin}
        save_checkpoint(folder / "checkpoint.pt", self.model, extra)
        return metrics

    def _epoch(self, epoch: int, bar: Any) -> dict[str, Any]:
        self.model.train()
        meter = EpochMeter(started_s=time.perf_counter())
        lr = self.optimizer.param_groups[0]["lr"]
        for pixels, labels in self.loader:
            lr = self.optimizer.param_groups[0]["lr"]
            self._step(pixels.to(self.device), labels.to(self.device), meter)
            bar.update()
        return meter.result(epoch, lr)

    def _step(self, pixels: torch.Tensor, labels: torch.Tensor, meter: EpochMeter) -> None:
        """One batch: (B, 3, side, side) uint8 and (B,) labels."""
        descriptors = self.model(normalise_images(pixels.permute(0, 2, 3, 1), self.model.preprocessing))
        loss = self.loss(descriptors, labels)
        if not torch.isfinite(loss):
            raise WorkFailed(
                f"the loss became {loss.item()} at lr {self.optimizer.param_groups[0]['lr']:.2g}; try a tenth of it: --set lr={self.config.lr / 10:.2g}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            meter.n_right += int((self.loss.cosines(descriptors).argmax(1) == labels).sum())
        meter.loss += loss.item() * len(labels)
        meter.n_photos += len(labels)
