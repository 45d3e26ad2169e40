"""A run of AutoLA's search on any folder of classes: a run folder that can be resumed exactly, and the genotype found.

The folder holds config.json, environment.json, metrics.jsonl, curves.png and checkpoints/ as that of a training; after
every epoch edge_weights.csv and search.json; at the end genotype.png and genotype.txt.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ultron_cli.configs import differences
from ultron_cli.console import dump_json, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.models.attentions.genotype import OPERATIONS, Genotype, save_genotype
from ultron_cli.training.autola.config import AutolaConfig, as_stored
from ultron_cli.training.autola.network import EDGES, choose_genotype
from ultron_cli.training.autola.search import AutolaBatches, AutolaSearch, split_halves
from ultron_cli.training.batches.decoded import DecodedPhotos
from ultron_cli.training.batches.photos import Augmentation, Batch, TrainingPhotos, make_loader
from ultron_cli.training.config import binding_settings
from ultron_cli.training.run.checkpoints import State, load_latest_state
from ultron_cli.training.run.folder import GENOTYPE_FILE
from ultron_cli.training.run.journal import METRICS_FILE, Stopwatch, lines_up_to
from ultron_cli.training.run.loop import RunLoop

# Means of an epoch; the last two are the network's, as in a training.
SUMS = ("architecture_loss", "architecture_accuracy", "loss", "accuracy")


@dataclass(frozen=True, kw_only=True)
class AutolaResult:
    """What a search found."""

    genotype: Genotype
    # Per node, per edge of the genotype: its weight, 0..1.
    strengths: list[list[float]]
    # (10, 9) float32, rows EDGES, columns OPERATIONS; rows sum to 1.
    edge_weights: np.ndarray
    # One entry per epoch.
    history: list[dict[str, float]]


def write_findings(
    folder: Path, edge_weights: np.ndarray, history: list[dict[str, float]], config: AutolaConfig
) -> Genotype:
    """edge_weights.csv (a line per edge and operation) and search.json (settings, genotype so far, history) in
    `folder`."""
    genotype, _ = choose_genotype(edge_weights)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["node", "input", "operation", "weight", "chosen"])
    for (node, source), row in zip(EDGES, edge_weights, strict=True):
        strongest = {edge.source: edge.operation for edge in genotype.nodes[node - 1]}[source]
        writer.writerows(
            [node, source, name, f"{weight:.6f}", int(name == strongest)]
            for name, weight in zip(OPERATIONS, row, strict=True)
        )
    write_text(folder / "edge_weights.csv", text.getvalue())
    content = {
        "format": "ultron-autola-search",
        "version": 1,
        "config": config.to_plain(),
        "genotype": genotype.text,
        "history": history,
    }
    write_text(folder / "search.json", json.dumps(content, indent=2) + "\n")
    return genotype


class AutolaRun(RunLoop[AutolaConfig, tuple[Batch, Batch]]):
    """One run, from the photos to the genotype. Raises UltronError if the photos are too few.

    A step takes a batch for the network's weights and one for the architecture.
    """

    name = "search"

    def __init__(self, photos: LandmarkPhotos, config: AutolaConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.photos = photos
        weight_rows, architecture_rows = split_halves(photos.labels, config.seed)
        n_smaller = min(len(weight_rows), len(architecture_rows))
        if n_smaller < config.batch_size:
            raise UltronError(
                f"a half of the photos, {n_smaller}, is less than one batch of {config.batch_size}; lower "
                "batch_size or give more photos"
            )
        self.search = AutolaSearch(config, len(photos.landmark_names), device)
        self.n_batches = len(weight_rows) // config.batch_size
        # The other half has its own rounds through its photos, which end within epochs.
        self.n_architecture_batches = len(architecture_rows) // config.batch_size
        n_rounds = self.n_steps // self.n_architecture_batches + 1
        self.weight_batches = AutolaBatches(weight_rows, config.batch_size, config.seed, config.epochs)
        self.architecture_batches = AutolaBatches(architecture_rows, config.batch_size, config.seed + 1, n_rounds)
        # Of the epoch so far.
        self.sums = np.zeros(len(SUMS))
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def run(self, folder: Path, resume: bool = False) -> AutolaResult:
        """Searches into `folder`; with `resume` goes on from the folder's latest checkpoint."""
        state = load_latest_state(folder, is_sharded=False) if resume else None
        if state is not None:
            self.go_on(folder, state)
        self.make_folder(folder, resume)
        self.write_settings(folder, self.origin(self.photos.folder))
        self.loop(folder)
        return self._finish(folder)

    def load(self, folder: Path, state: State) -> None:
        identity = state.get("identity", {})
        identity = {**identity, "config": as_stored(identity.get("config", {}))}
        if changed := differences(identity, self._identity()):
            raise UltronError(
                f"{folder} holds a search with other settings: {'; '.join(changed[:4])}; name another folder with "
                "`out`, or give the same settings"
            )
        self.search.load(state["search"])
        self.sums = np.array(state["sums"])
        self.seconds = state["seconds"]
        self.history = state["history"]
        torch.set_rng_state(state["random"])

    def state(self) -> State:
        return {
            "identity": self._identity(),
            "search": self.search.state(),
            "sums": self.sums.tolist(),
            "seconds": self.seconds,
            "history": self.history,
            "random": torch.get_rng_state(),
        }

    def _identity(self) -> dict[str, object]:
        """What a checkpoint must have in common with the run that goes on from it."""
        return {"config": binding_settings(self.config.to_plain()), "photos": self.photos.sha256()}

    def batches_to_come(self) -> Iterator[tuple[Batch, Batch]]:
        self.weight_batches.set_start(*divmod(self.step, self.n_batches))
        self.architecture_batches.set_start(*divmod(self.step, self.n_architecture_batches))
        side_px = self.config.side_px
        augment = Augmentation(self.config.augment, [(side_px, side_px)], DecodedPhotos(len(self.photos.paths)))
        dataset = TrainingPhotos(self.photos, augment)
        loaders = [
            make_loader(dataset, batches, self.config.workers, pin=self.device.type == "cuda")
            for batches in (self.weight_batches, self.architecture_batches)
        ]
        yield from zip(*loaders, strict=False)

    def begin_epoch(self, is_new: bool) -> None:
        if is_new:
            self.sums = np.zeros(len(SUMS))
            self.seconds = 0.0
        self.search.set_epoch(self.step // self.n_batches)

    def take_step(self, batch: tuple[Batch, Batch], wait_s: float, watch: Stopwatch) -> None:
        self.note_problems(*batch)
        for_weights, for_architecture = batch
        self.sums += [
            *self.search.step_architecture(for_architecture.pixels, for_architecture.labels),
            *self.search.step_weights(for_weights.pixels, for_weights.labels),
        ]
        self.step += 1
        self.seconds += wait_s + watch.read()

    def end_epoch(self, folder: Path, epoch: int) -> None:
        means = dict(zip(SUMS, (self.sums / self.n_batches).tolist(), strict=True))
        entry: dict[str, float] = {"epoch": epoch, **means, "lr": self.search.lr}
        self.history.append(entry)
        lines = lines_up_to(folder / METRICS_FILE, "epoch", epoch - 1)
        lines.append(entry | {"seconds": self.seconds})
        write_text(folder / METRICS_FILE, "".join(dump_json(line, indent=None) + "\n" for line in lines))
        genotype = write_findings(folder, self.search.edge_weights(), self.history, self.config)
        log.info(
            "epoch %d of %d: held-out loss %.3f, accuracy %.1f %%; %s",
            epoch,
            self.config.epochs,
            entry["architecture_loss"],
            100 * entry["architecture_accuracy"],
            genotype.text,
        )

    def _finish(self, folder: Path) -> AutolaResult:
        edge_weights = self.search.edge_weights()
        genotype, strengths = choose_genotype(edge_weights)
        result = AutolaResult(genotype=genotype, strengths=strengths, edge_weights=edge_weights, history=self.history)
        comment = (
            f"found by ultron's AutoLA search on {self.config.dataset}, {self.config.epochs} epochs, seed "
            f"{self.config.seed}"
        )
        save_genotype(folder / GENOTYPE_FILE, genotype, comment)  # last: it says that the run is finished
        return result
