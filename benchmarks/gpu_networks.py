"""Training and describing with every network on a GPU: photos per second and peak memory, all in one run.

    python benchmarks/gpu_networks.py [--side 512] [--batch-size 32] [--rounds 5] [--only NETWORK ...] [--out FILE.md] [--device cuda]

Whole training steps (forward, ArcFace over 10,000 landmarks, backward, SGD) and descriptors at one scale, random weights, bfloat16, channels
last, photos already on the device: what the network costs, without reading photos. A round is 5 steps or batches, ended by waiting for the
device; networks come one after the other, alone in memory. The last row is ultron-s on the reference operators. What does not fit is said.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from models import NETWORKS, OURS

from ultron_cli.configs import from_dict
from ultron_cli.console import markdown_table
from ultron_cli.devices import cpu_name
from ultron_cli.files import make_folder, write_text
from ultron_cli.retrieval.describing import describe
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.journal import memory_mib
from ultron_cli.training.learner import Learner

N_LANDMARKS, STEPS = 10_000, 5
REFERENCE_ROW = f"{OURS}, reference operators"
HEAD = ["network", "parameters, millions", "training, photos/s", "peak MiB", "describing, photos/s", "peak MiB"]


@dataclass
class Side:
    """One kind of work of one network."""

    run: Callable[[], object]
    rates: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    problem: str = ""

    def cells(self) -> list[str]:
        if self.problem:
            return [self.problem, ""]
        return [f"{statistics.median(self.rates):,.1f} ({min(self.rates):,.1f} to {max(self.rates):,.1f})", f"{self.peak_mib:,.0f}"]


@contextmanager
def operators(row: str) -> Iterator[None]:
    """The reference operators for the row that is named after them."""
    before = os.environ.get("ULTRON_KERNELS", "auto")
    os.environ["ULTRON_KERNELS"] = "off" if row == REFERENCE_ROW else before
    try:
        yield
    finally:
        os.environ["ULTRON_KERNELS"] = before


def make_learner(row: str, side_px: int, batch_size: int, device: torch.device) -> Learner:
    name, settings = NETWORKS[OURS if row == REFERENCE_ROW else row]
    plain = {
        "model": {"name": name, **settings}, "loss": {"name": "arcface"}, "side_px": side_px, "batch_size": batch_size, "epochs": 100, "optimizer": "sgd",
        "lr": 0.01, "clip_norm": 5.0, "precision": "bfloat16", "channels_last": True,
    }  # fmt: skip
    return Learner(from_dict(TrainConfig, plain), N_LANDMARKS, 1000, device)


def sides_of(learner: Learner, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, Side]:
    """"train" and "describe". pixels: (B, 3, S, S) uint8; labels: (B,)."""
    photos = pixels.permute(0, 2, 3, 1).contiguous()
    steps = iter(range(10**9))

    def train() -> None:
        learner.train()
        for _ in range(STEPS):
            learner.step(pixels, labels, next(steps))

    def describe_all() -> None:
        learner.model.eval()
        with torch.inference_mode(), torch.autocast(learner.device.type, dtype=torch.bfloat16):
            for _ in range(STEPS):
                descriptors = describe(learner.model, photos, (1.0,))
            if not descriptors.isfinite().all():
                raise RuntimeError(f"{learner.model.label} gives descriptors that are not finite")

    return {"train": Side(train), "describe": Side(describe_all)}


def turn(side: Side, n_photos: int, device: torch.device) -> None:
    """One round of one side."""
    if side.problem:
        return
    on_gpu = device.type == "cuda"
    try:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.synchronize(device)
        started_s = time.perf_counter()
        side.run()
        if on_gpu:
            torch.cuda.synchronize(device)
        side.rates.append(n_photos * STEPS / (time.perf_counter() - started_s))
        side.peak_mib = max(side.peak_mib, memory_mib(device))
    except torch.OutOfMemoryError:
        side.problem = "does not fit in memory"


def measure(row: str, pixels: torch.Tensor, labels: torch.Tensor, n_rounds: int, device: torch.device) -> list[str]:
    """The cells of a network."""
    learner = make_learner(row, pixels.shape[-1], len(pixels), device)
    sides = sides_of(learner, pixels, labels)
    with operators(row):
        for _ in range(1 + n_rounds):
            for side in sides.values():
                turn(side, len(pixels), device)
    for side in sides.values():
        del side.rates[:1]  # it chose algorithms and compiled
    millions = sum(p.numel() for p in learner.model.parameters()) / 1e6
    return [row, f"{millions:.1f}", *sides["train"].cells(), *sides["describe"].cells()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", metavar="NETWORK", nargs="+", choices=[*NETWORKS, REFERENCE_ROW], default=[*NETWORKS, REFERENCE_ROW])
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (options.batch_size, 3, options.side, options.side), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(N_LANDMARKS, (options.batch_size,), generator=generator).to(device)
    cells = []
    for row in options.only:
        cells.append(measure(row, pixels, labels, options.rounds, device))
        print(" | ".join(cells[-1]), file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    head = f"{place}, torch {torch.__version__}, CUDA {torch.version.cuda}: {options.batch_size} photos of {options.side} px, bfloat16, {options.rounds} rounds"
    text = f"{head}\n\n{markdown_table(HEAD, cells)}\n"
    print(text)
    if options.out:
        write_text(make_folder(options.out.parent) / options.out.name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
