"""AutoLA: the differentiable search for a high-order group attention (Ma et al., NeurIPS 2020), on any folder of classes.

First-order bilevel: in every step the logits of the graph's operations descend on a batch of one half of the photos, then the network's
weights on a batch of the other half. Numbers as in the authors' code (github.com/btma48/AutoLA).
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import log
from ultron_cli.datasets.landmarks import LandmarkPhotos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, whole_file, write_text
from ultron_cli.models.backbones import Preprocessing
from ultron_cli.models.checkpoints import read_weights_file
from ultron_cli.models.core import normalise_images
from ultron_cli.models.hoga_genotype import OPERATIONS, Genotype, save_genotype
from ultron_cli.training.autola_network import EDGES, Architecture, SearchConfig, choose_genotype, make_network
from ultron_cli.training.photo_batches import Augmentation, Batch, TrainingPhotos, make_loader
from ultron_cli.training.sampling import EpochBatches, PhotoDraw
from ultron_cli.visualization.genotype import genotype_figure

PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225))
STATE_FILE = "search.pt"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found. edge_weights: (10, 9) float32, rows EDGES, columns OPERATIONS, rows sum to 1. history: one entry per epoch."""

    genotype: Genotype
    edge_weights: np.ndarray
    history: list[dict[str, float]]


def split_halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for the weights and rows for the architecture, (n,) int64 each: half of every class, the odd photo to each in turn."""
    draws = np.random.Generator(np.random.PCG64([seed, 0xA170]))
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    more = 0  # which half gets the odd photo
    for label in np.unique(labels):
        rows = draws.permutation(np.flatnonzero(labels == label))
        middle = (len(rows) + 1 - more) // 2
        more = 1 - more if len(rows) % 2 else more
        halves[0].append(rows[:middle])
        halves[1].append(rows[middle:])
    return np.sort(np.concatenate(halves[0])), np.sort(np.concatenate(halves[1]))


class HalfBatches(EpochBatches):
    """Batches of some rows of the photos only."""

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int, n_epochs: int) -> None:
        super().__init__(len(rows), batch_size, seed, n_epochs)
        self.rows = rows

    def __iter__(self) -> Iterator[list[PhotoDraw]]:
        for batch in super().__iter__():
            yield [draw._replace(row=int(self.rows[draw.row])) for draw in batch]


class Search:
    """A search under way: the network, the shared logits, and an optimiser for each."""

    def __init__(self, config: SearchConfig, n_classes: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.architecture = Architecture().to(device)
        self.network = make_network(config, n_classes, self.architecture).to(device).train()
        self.weights_optimizer = torch.optim.SGD(self.network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        self.architecture_optimizer = torch.optim.Adam(
            self.architecture.parameters(), config.architecture_lr, betas=(0.5, 0.999), weight_decay=config.architecture_weight_decay
        )

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, as state dicts."""
        return {name: getattr(self, name).state_dict() for name in ("network", "architecture", "weights_optimizer", "architecture_optimizer")}

    def load(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)

    def set_epoch(self, epoch: int) -> None:
        """The learning rate of an epoch, from 0."""
        share = (1 + math.cos(math.pi * epoch / self.config.epochs)) / 2
        for group in self.weights_optimizer.param_groups:
            group["lr"] = self.config.lr_min + (self.config.lr - self.config.lr_min) * share

    def _loss(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Cross-entropy of a batch of (B, 3, H, W) uint8, and the share of photos classified right."""
        images = normalise_images(pixels.to(self.device).permute(0, 2, 3, 1), PREPROCESSING)
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
        """(10, 9) float32."""
        return self.architecture().detach().cpu().numpy()


def write_findings(folder: Path, edge_weights: np.ndarray, history: list[dict[str, float]], config: SearchConfig) -> Genotype:
    """genotype.txt, edge_weights.csv (a line per edge and operation) and search.json (settings, genotype, history) in `folder`."""
    genotype, _ = choose_genotype(edge_weights)
    save_genotype(folder / "genotype.txt", genotype, f"found by ultron's AutoLA search, {len(history)} of {config.epochs} epochs, seed {config.seed}")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["node", "input", "operation", "weight", "chosen"])
    for (node, source), row in zip(EDGES, edge_weights, strict=True):
        chosen = {edge.source: edge.operation for edge in genotype.nodes[node - 1]}[source]
        writer.writerows([node, source, name, f"{weight:.6f}", int(name == chosen)] for name, weight in zip(OPERATIONS, row, strict=True))
    write_text(folder / "edge_weights.csv", text.getvalue())
    content = {"format": "ultron-autola-search", "version": 1, "config": to_dict(config), "genotype": genotype.text, "history": history}
    write_text(folder / "search.json", json.dumps(content, indent=2) + "\n")
    return genotype


def _resume(folder: Path, identity: dict[str, Any], search: Search) -> list[dict[str, float]]:
    """The history of the epochs done, with their state taken up; empty without a state. Raises UltronError if it is of other settings."""
    if not (folder / STATE_FILE).is_file():
        return []
    content = read_weights_file(folder / STATE_FILE)
    if changed := differences(content.get("identity", {}), identity):
        raise UltronError(f"{folder} holds a search with other settings: {'; '.join(changed[:4])}; name another folder with --out, or give the same settings")
    search.load(content["state"])
    torch.set_rng_state(content["rng"])
    log.info("going on after epoch %d of the search in %s", len(content["history"]), folder)
    return content["history"]


def _check_read(*batches: Batch) -> None:
    for batch in batches:
        if not len(batch.pixels):
            _, reason = batch.problems[0]
            raise UltronError(f"photos of several classes cannot be read ({reason}); find them with `ultron datasets verify`")


def _check_half(n_photos: int, batch_size: int) -> None:
    if n_photos < batch_size:
        raise UltronError(f"a half of the photos, {n_photos}, is less than one batch of {batch_size}; lower batch_size or give more photos")


def search_attention(
    photos: LandmarkPhotos, config: SearchConfig, folder: Path, *, device: torch.device | None = None, n_workers: int = 0, resume: bool = False
) -> SearchResult:
    """Searches on the photos' classes and writes genotype.txt, edge_weights.csv, search.json, genotype.png and search.pt into `folder`.

    All but the picture are written after every epoch; with `resume` a search of the same settings and photos goes on after its last whole
    epoch. Raises UltronError if the photos are too few, WorkFailed if the loss is not finite.
    """
    device = device or torch.device("cpu")
    make_folder(folder)
    rows = split_halves(photos.labels, config.seed)
    _check_half(min(map(len, rows)), config.batch_size)
    search = Search(config, len(photos.landmark_names), device)
    identity = {"config": to_dict(config), "photos": photos.sha256()}
    history = _resume(folder, identity, search) if resume else []
    n_steps = len(rows[0]) // config.batch_size  # per epoch
    batches = HalfBatches(rows[0], config.batch_size, config.seed, config.epochs)
    batches.set_start(len(history), 0)
    per_pass = len(rows[1]) // config.batch_size
    other = HalfBatches(rows[1], config.batch_size, config.seed + 1, config.epochs * n_steps // per_pass + 1)
    other.set_start(*divmod(len(history) * n_steps, per_pass))
    dataset = TrainingPhotos(photos, Augmentation(config.augment, [(config.side_px, config.side_px)]))
    pairs = zip(*(iter(make_loader(dataset, half, n_workers, device.type == "cuda")) for half in (batches, other)), strict=False)
    for epoch in range(len(history), config.epochs):
        search.set_epoch(epoch)
        sums = np.zeros(4)
        for _ in range(n_steps):
            own, held_out = next(pairs)
            _check_read(own, held_out)
            sums += [*search.step_architecture(held_out.pixels, held_out.labels), *search.step_weights(own.pixels, own.labels)]
        names = ("architecture_loss", "architecture_accuracy", "weights_loss", "weights_accuracy")
        history.append({"epoch": epoch + 1, **dict(zip(names, (sums / n_steps).tolist(), strict=True))})
        genotype = write_findings(folder, search.edge_weights(), history, config)
        with whole_file(folder / STATE_FILE) as temporary:
            torch.save({"identity": identity, "state": search.state(), "history": history, "rng": torch.get_rng_state()}, temporary)
        log.info("epoch %d/%d: held-out loss %.3f, accuracy %.1f%%; %s", epoch + 1, config.epochs, *(sums[:2] / n_steps * (1, 100)), genotype.text)
    genotype, strengths = choose_genotype(search.edge_weights())
    genotype_figure(genotype, f"HOGA found on {photos.folder.name}", folder / "genotype.png", strengths=strengths)
    log.info("next: ultron train --set model.attention=hoga --set model.genotype=%s", genotype.text)
    return SearchResult(genotype=genotype, edge_weights=search.edge_weights(), history=history)
