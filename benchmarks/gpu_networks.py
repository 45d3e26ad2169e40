"""Training and describing with every network on a GPU: photos per second and peak memory.

    python benchmarks/gpu_networks.py [--side 512] [--batch-size 32] [--rounds 5] [--only NETWORK ...] [--out FILE.md]
                                      [--device cuda]

Measured are whole training steps (forward, ArcFace over 10,000 landmarks, backward, SGD) and descriptors at one scale.
Weights are random, arithmetic is bfloat16, memory is laid out channels last. The photos are on the device already, so
that the figures are what the network costs without the reading of photos. Rounds are those of `ultron bench`, each
ended by waiting for the device. The networks come one after the other, each alone in memory. The last row is ultron-s
on the reference operators. A network that does not fit in memory is named as such.
"""

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from models import NETWORKS, OURS
from rows import add_save, save

from ultron_cli.bench import BenchConfig, rates_of
from ultron_cli.configs import from_dict
from ultron_cli.console import markdown_table
from ultron_cli.files import make_folder, write_text
from ultron_cli.machine import cpu_name, memory_mib
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner

N_LANDMARKS = 10_000
REFERENCE_ROW = f"{OURS}, reference operators"
HEAD = ["network", "parameters, millions", "training, photos/s", "peak MiB", "describing, photos/s", "peak MiB"]


@contextmanager
def operators(row: str) -> Iterator[None]:
    """Inside, the row named after the reference operators runs on them, every other row on what the environment
    says."""
    before = os.environ.get("ULTRON_KERNELS", "auto")
    os.environ["ULTRON_KERNELS"] = "off" if row == REFERENCE_ROW else before
    try:
        yield
    finally:
        os.environ["ULTRON_KERNELS"] = before


def make_learner(row: str, side_px: int, batch_size: int, device: torch.device) -> Learner:
    """A network with random weights, its loss and its optimiser."""
    name, settings = NETWORKS[OURS if row == REFERENCE_ROW else row]
    plain = {
        "model": {"name": name, **settings},
        "loss": {"name": "arcface"},
        "side_px": side_px,
        "batch_size": batch_size,
        "epochs": 100,
        "optimizer": "sgd",
        "lr": 0.01,
        "clip_norm": 5.0,
        "precision": "bfloat16",
        "channels_last": True,
    }
    return Learner(from_dict(TrainConfig, plain), N_LANDMARKS, 1000, device)


def rates_and_mib(
    work: Callable[[], object], n_photos: int, config: BenchConfig, device: torch.device
) -> tuple[list[float], float]:
    """(photos/s of `work` on n_photos in each round, MiB at its peak); no rounds where it does not fit in memory."""
    try:
        work()  # the first call chooses algorithms and compiles
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        return rates_of(n_photos, work, config, device), memory_mib(device)
    except torch.OutOfMemoryError:
        return [], 0.0


def cells_of(rates: list[float], mib: float) -> list[str]:
    """Two cells of the table."""
    if not rates:
        return ["does not fit in memory", ""]
    return [f"{statistics.median(rates):,.1f} ({min(rates):,.1f} to {max(rates):,.1f})", f"{mib:,.0f}"]


def measure(
    row: str, pixels: torch.Tensor, labels: torch.Tensor, config: BenchConfig, device: torch.device
) -> tuple[list[str], dict[str, Measurement]]:
    """(the cells of a row of the table, the rows that are kept). pixels: (B, 3, S, S) uint8. labels: (B,) int64."""
    learner = make_learner(row, pixels.shape[-1], len(pixels), device)
    photos, steps = pixels.permute(0, 2, 3, 1).contiguous(), itertools.count()

    def describe_all() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
            return describe(learner.model, photos, (1.0,))

    with operators(row):
        learner.train()
        trained = rates_and_mib(lambda: learner.step(pixels, labels, next(steps)), len(pixels), config, device)
        learner.optimizer.zero_grad(set_to_none=True)
        learner.model.eval()
        described = rates_and_mib(describe_all, len(pixels), config, device)
        if described[0] and not torch.allclose(describe_all().float().norm(dim=1).cpu(), torch.ones(()), atol=1e-2):
            raise RuntimeError(f"{row} gives descriptors that are not of length 1: its times say nothing")
    millions = sum(p.numel() for p in learner.model.parameters()) / 1e6
    measurements = {
        f"{row}, {what}": Measurement.of_rounds(
            rates,
            unit="photos/s",
            of=f"{len(pixels)} photos of {pixels.shape[-1]} px, bfloat16, on {device.type}",
            problem="" if rates else "does not fit in memory",
            equality="descriptors of length 1",
        )
        for what, (rates, _) in (("training", trained), ("describing", described))
    }
    return [row, f"{millions:.1f}", *cells_of(*trained), *cells_of(*described)], measurements


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", metavar="NETWORK", nargs="+", choices=[*NETWORKS, REFERENCE_ROW], default=[*NETWORKS, REFERENCE_ROW]
    )
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--device", default="cuda")
    add_save(parser)
    options = parser.parse_args()
    device = torch.device(options.device)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (options.batch_size, 3, options.side, options.side), dtype=torch.uint8, generator=generator
    ).to(device)
    labels = torch.randint(N_LANDMARKS, (options.batch_size,), generator=generator).to(device)
    config = BenchConfig(rounds=options.rounds, side_px=options.side, batch_size=options.batch_size)
    cells, measurements = [], {}
    for row in options.only:
        texts, measured = measure(row, pixels, labels, config, device)
        cells.append(texts)
        measurements |= measured
        print(" | ".join(cells[-1]), file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    head = (
        f"{place}, torch {torch.__version__}, CUDA {torch.version.cuda}: {options.batch_size} photos of "
        f"{options.side} px, bfloat16, {options.rounds} rounds"
    )
    text = f"{head}\n\n{markdown_table(HEAD, cells)}\n"
    print(text)
    if options.out:
        write_text(make_folder(options.out.parent) / options.out.name, text)
    save(options.save, __file__, measurements, options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
