"""A run of AutoLA's search on any folder of classes: a run folder that can be resumed exactly, and what was found.

The folder holds config.json, environment.json, metrics.jsonl, curves.png and checkpoints/ as that of a training; after
every epoch edge_weights.csv and search.json; at the end genotype.txt and genotype.png.
"""

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ultron_cli.configs import differences
from ultron_cli.console import dump_json, log, progress
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, write_text
from ultron_cli.models.attentions.genotype import OPERATIONS, Genotype, save_genotype
from ultron_cli.provenance import provenance
from ultron_cli.training.autola.network import EDGES, SearchConfig, choose_genotype
from ultron_cli.training.autola.search import HalfBatches, Search, split_halves
from ultron_cli.training.batches.photos import Augmentation, Batch, TrainingPhotos, make_loader
from ultron_cli.training.config import FREE_SETTINGS
from ultron_cli.training.curves import draw_curves
from ultron_cli.training.environment import environment, own_threads
from ultron_cli.training.run.checkpoints import load_latest_state, save_state
from ultron_cli.training.run.folder import GENOTYPE_FILE, clear_folder
from ultron_cli.training.run.journal import METRICS_FILE, Stopwatch, read_lines
from ultron_cli.training.run.stopping import StopSignal, stopped_text
from ultron_cli.visualization.genotype import genotype_figure

SUMS = (
    "architecture_loss",
    "architecture_accuracy",
    "loss",
    "accuracy",
)  # of an epoch; the last two are the network's, as in a training


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found. edge_weights: (10, 9) float32, rows EDGES, columns OPERATIONS, rows sum to 1. history: one
    entry per epoch."""

    genotype: Genotype
    edge_weights: np.ndarray
    history: list[dict[str, float]]


def write_findings(
    folder: Path, edge_weights: np.ndarray, history: list[dict[str, float]], config: SearchConfig
) -> Genotype:
    """edge_weights.csv (a line per edge and operation) and search.json (settings, genotype so far, history) in
    `folder`."""
    genotype, _ = choose_genotype(edge_weights)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["node", "input", "operation", "weight", "chosen"])
    for (node, source), row in zip(EDGES, edge_weights, strict=True):
        chosen = {edge.source: edge.operation for edge in genotype.nodes[node - 1]}[source]
        writer.writerows(
            [node, source, name, f"{weight:.6f}", int(name == chosen)]
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


class SearchRun:
    """One run, from the photos to the genotype. Raises UltronError if the photos are too few."""

    def __init__(self, photos: LandmarkPhotos, config: SearchConfig, device: torch.device) -> None:
        self.photos, self.config, self.device = photos, config, device
        rows = split_halves(photos.labels, config.seed)
        if min(map(len, rows)) < config.batch_size:
            smaller = min(map(len, rows))
            raise UltronError(
                f"a half of the photos, {smaller}, is less than one batch of {config.batch_size}; lower "
                "batch_size or give more photos"
            )
        self.search = Search(config, len(photos.landmark_names), device)
        self.n_steps = len(rows[0]) // config.batch_size  # per epoch
        self.n_steps_all = config.epochs * self.n_steps
        self.per_pass = len(rows[1]) // config.batch_size
        self.own = HalfBatches(rows[0], config.batch_size, config.seed, config.epochs)
        self.other = HalfBatches(rows[1], config.batch_size, config.seed + 1, self.n_steps_all // self.per_pass + 1)
        self.step, self.sums, self.seconds = 0, np.zeros(len(SUMS)), 0.0
        self.history: list[dict[str, float]] = []
        self._said: set[int] = set()
        self._stop = StopSignal()

    def run(self, folder: Path, resume: bool = False) -> SearchResult:
        """Searches into `folder`; with `resume` goes on from the folder's latest checkpoint."""
        state = load_latest_state(folder, is_sharded=False) if resume else None
        if state is not None:
            self._take_up(folder, state)
        make_folder(folder)
        clear_folder(folder, torn_only=resume)
        origin = provenance() | {"device": str(self.device), "dataset_folder": str(self.photos.folder.resolve())}
        write_text(
            folder / "config.json", json.dumps({"config": self.config.to_plain(), "provenance": origin}, indent=1)
        )
        write_text(folder / "environment.json", json.dumps(environment(self.device), indent=1))
        with (
            own_threads(self.config.threads),
            self._stop.watched(),
            progress(total=self.n_steps_all, what="search", unit="step") as bar,
        ):
            bar.update(self.step)
            self._saved_s, watch = time.monotonic(), Stopwatch()
            for own, other in self._pairs():
                self._step(own, other)
                self.seconds += watch.read()
                bar.update()
                if self.step % self.n_steps == 0:
                    self._end_epoch(folder)
                self._save_if_due(folder)
        return self._finish(folder)

    def _take_up(self, folder: Path, state: dict[str, Any]) -> None:
        if changed := differences(state.get("identity", {}), self._identity()):
            found = "; ".join(changed[:4])
            raise UltronError(
                f"{folder} holds a search with other settings: {found}; name another folder with --out, or "
                "give the same settings"
            )
        self.search.load(state["search"])
        self.step, self.sums, self.seconds, self.history = (
            int(state["step"]),
            np.array(state["sums"]),
            state["seconds"],
            state["history"],
        )
        torch.set_rng_state(state["random"])
        log.info("going on after step %d of %d", self.step, self.n_steps_all)

    def _identity(self) -> dict[str, Any]:
        config = {key: value for key, value in self.config.to_plain().items() if key not in FREE_SETTINGS}
        return {"config": config, "photos": self.photos.sha256()}

    def _pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """A batch for the weights and one for the architecture, from the present step to the end."""
        if self.step == self.n_steps_all:
            return
        self.own.set_start(*divmod(self.step, self.n_steps))
        self.other.set_start(*divmod(self.step, self.per_pass))
        side_px = self.config.side_px
        dataset = TrainingPhotos(self.photos, Augmentation(self.config.augment, [(side_px, side_px)]))
        loaders = [
            make_loader(dataset, half, self.config.workers, self.device.type == "cuda")
            for half in (self.own, self.other)
        ]
        yield from zip(*loaders, strict=False)

    def _step(self, own: Batch, other: Batch) -> None:
        for row, reason in (*own.problems, *other.problems):
            if row not in self._said:
                self._said.add(row)
                log.warning("another photo takes the place of %s", reason)
        for batch in (own, other):
            if not len(batch.pixels):
                raise UltronError(
                    f"{batch.problems[0][1]}, nor can those that were tried in its place; check them with "
                    "`ultron datasets verify`"
                )
        if self.step % self.n_steps == 0:
            self.sums, self.seconds = np.zeros(len(SUMS)), 0.0
        self.search.set_epoch(self.step // self.n_steps)
        self.sums += [
            *self.search.step_architecture(other.pixels, other.labels),
            *self.search.step_weights(own.pixels, own.labels),
        ]
        self.step += 1

    def _end_epoch(self, folder: Path) -> None:
        epoch = self.step // self.n_steps
        self.history.append(
            {"epoch": epoch, **dict(zip(SUMS, (self.sums / self.n_steps).tolist(), strict=True)), "lr": self.search.lr}
        )
        lines = [line for line in read_lines(folder / METRICS_FILE) if line["epoch"] < epoch] + [
            self.history[-1] | {"seconds": self.seconds}
        ]
        write_text(folder / METRICS_FILE, "".join(dump_json(line, indent=None) + "\n" for line in lines))
        genotype = write_findings(folder, self.search.edge_weights(), self.history, self.config)
        loss, accuracy = self.history[-1]["architecture_loss"], 100 * self.history[-1]["architecture_accuracy"]
        log.info(
            "epoch %d of %d: held-out loss %.3f, accuracy %.1f %%; %s",
            epoch,
            self.config.epochs,
            loss,
            accuracy,
            genotype.text,
        )

    def _save_if_due(self, folder: Path) -> None:
        """Saves after checkpoint_minutes, and when told to stop, which then happens here."""
        if self._stop.received is None and time.monotonic() - self._saved_s < 60.0 * self.config.checkpoint_minutes:
            return
        content = {
            "identity": self._identity(),
            "search": self.search.state(),
            "sums": self.sums.tolist(),
            "seconds": self.seconds,
            "history": self.history,
            "random": torch.get_rng_state(),
        }
        save_state(folder, self.step, content, self.config.keep_checkpoints)
        self._saved_s = time.monotonic()
        if self._stop.received is not None:
            raise WorkFailed(stopped_text(self._stop.received.name, self.step, folder))

    def _finish(self, folder: Path) -> SearchResult:
        edge_weights = self.search.edge_weights()
        genotype, strengths = choose_genotype(edge_weights)
        draw_curves(folder)
        genotype_figure(
            genotype,
            f"HOGA found on {Path(self.config.dataset).name}, seed {self.config.seed}",
            folder / "genotype.png",
            strengths=strengths,
        )
        comment = (
            f"found by ultron's AutoLA search on {self.config.dataset}, {self.config.epochs} epochs, seed "
            f"{self.config.seed}"
        )
        save_genotype(folder / GENOTYPE_FILE, genotype, comment)  # last: it says that the run is finished
        return SearchResult(genotype=genotype, edge_weights=edge_weights, history=self.history)


def search_attention(
    photos: LandmarkPhotos,
    config: SearchConfig,
    folder: Path,
    *,
    device: torch.device | None = None,
    resume: bool = False,
) -> SearchResult:
    """Searches on the photos' classes into `folder`; with `resume` goes on from the latest checkpoint of the same
    settings and photos.

    Raises UltronError if the photos are too few, WorkFailed if the loss is not finite or the run is stopped.
    """
    return SearchRun(photos, config, device or torch.device("cpu")).run(folder, resume)
