"""What a run says of itself while it runs: log lines, steps.jsonl, metrics.jsonl and TensorBoard events.

steps.jsonl is appended line by line, so that it can be followed; a kill can leave half a line, which resuming cuts off
together with all lines after the checkpoint.
"""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ultron_cli.console import dump_json, log
from ultron_cli.files import write_text
from ultron_cli.machine import memory_mib
from ultron_cli.output_files import AppendedFile
from ultron_cli.schema.texts import Numbers, read_json_lines
from ultron_cli.training.run.tensorboard import EventWriter

STEPS_FILE = "steps.jsonl"
METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "events"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON lines file, whose values are numbers or None; none if it is absent."""
    entries = []
    for _, entry in read_json_lines(path, "lines of the run", Numbers):
        if entry is None:
            break  # the torn end of an interrupted run
        entries.append(entry)
    return entries


def lines_up_to(path: Path, key: str, last: float) -> list[dict[str, Any]]:
    """The lines whose `key` is at most `last`."""
    return [entry for entry in read_lines(path) if (value := entry.get(key)) is not None and value <= last]


def held_out_text(entry: dict[str, float]) -> str:
    """How an epoch's held-out photos did, for people; empty where none were scored."""
    for key, name in (("validation_mAP", "mAP"), ("validation_top1", "top-1")):
        if entry.get(key) is not None:
            return f"held-out {name} {100 * entry[key]:.1f} %"
    return ""


@dataclass
class Meter:
    """Sums since the last line, or since the epoch began."""

    loss: float = 0.0  # over photos
    n_photos: int = 0
    n_right: float = 0.0
    n_right_late: float = 0.0  # in the second half of an epoch
    n_late: int = 0  # photos of the second half of an epoch
    seconds: float = 0.0
    wait_s: float = 0.0  # seconds of waiting for photos

    def add(
        self, loss: float, n_photos: int, n_right: float, seconds: float, wait_s: float, is_late: bool = False
    ) -> None:
        """Takes in one step; loss is the mean over its photos."""
        self.loss += loss * n_photos
        self.n_photos += n_photos
        self.n_right += n_right
        self.seconds += seconds
        self.wait_s += wait_s
        if is_late:
            self.n_right_late += n_right
            self.n_late += n_photos

    def summary(self) -> dict[str, float]:
        """Means and rates."""
        seconds = max(self.seconds, 1e-9)
        n_photos = max(1, self.n_photos)
        return {
            "loss": self.loss / n_photos,
            "accuracy": self.n_right / n_photos,
            "photos_per_s": self.n_photos / seconds,
            "wait_share": self.wait_s / seconds,
        }

    def state(self) -> dict[str, float]:
        """Plain data for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Journal:
    """Writes the lines of one run; only the first process has one."""

    def __init__(self, folder: Path, first_step: int, n_epochs_done: int, every: int, device: torch.device) -> None:
        self.folder = folder
        self.every = every
        self.device = device
        steps = lines_up_to(folder / STEPS_FILE, "step", first_step)
        write_text(folder / STEPS_FILE, "".join(dump_json(entry, indent=None) + "\n" for entry in steps))
        self.metrics: list[dict[str, Any]] = []
        if first_step:
            self.metrics = lines_up_to(folder / METRICS_FILE, "epoch", n_epochs_done)
        self._steps = AppendedFile(folder / STEPS_FILE)
        self._events = EventWriter(folder / EVENTS_FOLDER, first_step)
        self.meter = Meter()

    def step(self, step: int, epoch: float, lr: float, margin: float, scale: float) -> None:
        """Writes a line if one is due. step: number of steps done."""
        if step % self.every:
            return
        values = self.meter.summary()
        entry = {
            "step": step,
            "epoch": round(epoch, 4),
            **values,
            "lr": lr,
            "margin": margin,
            "scale": scale,
            "memory_mib": round(memory_mib(self.device), 1),
        }
        self._steps.write((dump_json(entry, indent=None) + "\n").encode("utf-8"))
        self._events.add(step, {f"train/{key}": value for key, value in entry.items() if key != "step"})
        log.info(
            "step %d, epoch %.2f: loss %.3f, lr %.2g, margin %.3f, scale %.1f, %.0f photos/s, %.0f %% waiting "
            "for photos, %.0f MiB",
            step,
            epoch,
            values["loss"],
            lr,
            margin,
            scale,
            values["photos_per_s"],
            100 * values["wait_share"],
            entry["memory_mib"],
        )
        self.meter = Meter()

    def epoch(self, step: int, entry: dict[str, float], n_epochs: int) -> None:
        """Adds the summary of an epoch to metrics.jsonl."""
        self.metrics.append(entry)
        write_text(self.folder / METRICS_FILE, "".join(dump_json(line, indent=None) + "\n" for line in self.metrics))
        self._events.add(
            step,
            {
                f"epoch/{key}": float(value)
                for key, value in entry.items()
                if isinstance(value, (int, float)) and key != "epoch"
            },
        )
        held_out = f", {held_out_text(entry)}" if held_out_text(entry) else ""
        log.info(
            "epoch %d of %d: loss %.3f, accuracy %.1f %%%s, lr %.2g, %.0f photos/s",
            entry["epoch"],
            n_epochs,
            entry["loss"],
            100 * entry["accuracy"],
            held_out,
            entry["lr"],
            entry["photos_per_s"],
        )

    def close(self) -> None:
        """Ends the files."""
        self._steps.close()
        self._events.close()


class Stopwatch:
    """Time since it was made or last read, in seconds."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    def read(self) -> float:
        """Seconds since the last reading."""
        now_s = time.perf_counter()
        passed_s = now_s - self._since_s
        self._since_s = now_s
        return passed_s
