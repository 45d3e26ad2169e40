"""AutoLA: the differentiable search for a high-order group attention (Ma et al., NeurIPS 2020), step by step.

First-order bilevel: in every step the logits of the graph's operations descend on a batch of one half of the photos,
then the network's weights on a batch of the other half. Numbers as in the authors' code (github.com/btma48/AutoLA).
run.py makes a run of it.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import WorkFailed
from ultron_cli.models.backbones.preprocessing import CIFAR, IMAGENET
from ultron_cli.models.core import normalise_images
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.autola.network import AutolaLogits, make_network
from ultron_cli.training.batches.draws import EpochBatches, PhotoDraw
from ultron_cli.training.run.checkpoints import State


def split_halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for the weights and rows for the architecture, (n,) int64 each: half of every class, the odd photo to each
    in turn."""
    draws = np.random.Generator(np.random.PCG64([seed, 0xA170]))
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    larger = 0  # which half gets the odd photo
    for label in np.unique(labels):
        rows = draws.permutation(np.flatnonzero(labels == label))
        middle = (len(rows) + 1 - larger) // 2
        if len(rows) % 2:
            larger = 1 - larger
        halves[0].append(rows[:middle])
        halves[1].append(rows[middle:])
    return np.sort(np.concatenate(halves[0])), np.sort(np.concatenate(halves[1]))


class AutolaBatches(EpochBatches):
    """Batches of some rows of the photos only."""

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int, n_epochs: int) -> None:
        super().__init__(len(rows), batch_size, seed, n_epochs)
        self.rows = rows

    def __iter__(self) -> Iterator[list[PhotoDraw]]:
        for batch in super().__iter__():
            yield [draw._replace(row=int(self.rows[draw.row])) for draw in batch]


class AutolaSearch:
    """A search under way: the network, the shared logits, and an optimiser for each."""

    def __init__(self, config: AutolaConfig, n_classes: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.architecture = AutolaLogits().to(device)
        self.network = make_network(config, n_classes, self.architecture).to(device).train()
        self.weights_optimizer = torch.optim.SGD(
            self.network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.architecture_optimizer = torch.optim.Adam(
            self.architecture.parameters(),
            config.architecture_lr,
            betas=(0.5, 0.999),
            weight_decay=config.architecture_weight_decay,
        )

    def state(self) -> State:
        """All that the next epoch depends on, as state dicts."""
        return {
            name: getattr(self, name).state_dict()
            for name in ("network", "architecture", "weights_optimizer", "architecture_optimizer")
        }

    def load(self, state: State) -> None:
        """Goes on from what `state` gave."""
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)

    @property
    def lr(self) -> float:
        """The learning rate of the network's weights now."""
        return self.weights_optimizer.param_groups[0]["lr"]

    def set_epoch(self, epoch: int) -> None:
        """Sets the learning rate of an epoch, counted from 0."""
        share = (1 + math.cos(math.pi * epoch / self.config.epochs)) / 2
        for group in self.weights_optimizer.param_groups:
            group["lr"] = self.config.lr_min + (self.config.lr - self.config.lr_min) * share

    def _loss(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Cross-entropy of a batch of (B, 3, H, W) uint8, and the share of photos classified right."""
        statistics = CIFAR if self.config.statistics == "cifar" else IMAGENET
        images = normalise_images(pixels.to(self.device).permute(0, 2, 3, 1), statistics)
        labels = labels.to(self.device)
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        if not loss.isfinite():
            rates = f"lr (now {self.config.lr}) or architecture_lr ({self.config.architecture_lr})"
            raise WorkFailed(f"the loss of the search is {float(loss.detach())}; lower {rates}")
        return loss, float((logits.detach().argmax(1) == labels).float().mean())

    def step_architecture(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """One step of the logits with the weights as they are. Returns loss and accuracy before it."""
        loss, accuracy = self._loss(pixels, labels)
        (self.architecture.logits.grad,) = torch.autograd.grad(loss, [self.architecture.logits])
        self.architecture_optimizer.step()
        return float(loss.detach()), accuracy

    def step_weights(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """One step of the network's weights with the logits as they are. Returns loss and accuracy before it."""
        loss, accuracy = self._loss(pixels, labels)
        self.weights_optimizer.zero_grad()
        loss.backward(inputs=list(self.network.parameters()))
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.weights_optimizer.step()
        return float(loss.detach()), accuracy

    def edge_weights(self) -> np.ndarray:
        """(10, 9) float32, rows EDGES, columns OPERATIONS; rows sum to 1."""
        return self.architecture().detach().cpu().numpy()
