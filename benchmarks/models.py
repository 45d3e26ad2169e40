"""The networks side by side: parameters, GFLOPs and photos per second on this machine's CPU.

    python benchmarks/models.py [--write docs/models.md] [--rounds 5] [--side 512] [--threads 2]
    python benchmarks/models.py --profile ultron-s          where its time goes (torch.profiler)
    python benchmarks/models.py --only dalg --only dolg-r50 --side 128 --rounds 1        a quick look at some of them

Everything is measured in one run and printed as the table of docs/models.md. Weights are random, the batch is 1,
arithmetic is float32, networks are in evaluation mode. Each round runs every network once, so that other work on the
machine meets them all. Before anything is timed, the compiled operators must give the descriptors of the reference
ones. The exit code is 1 if ultron-s takes more than 1.3 times as long as ResNet-101, or more than 2 GiB for one photo
of 1024 px.
"""

import argparse
import os

from ultron_cli.machine import share_cores

if __name__ == "__main__":  # before torch, as the command does
    share_cores()

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rows import add_save, save
from torch.utils.flop_counter import FlopCounterMode

from ultron_cli.console import markdown_table
from ultron_cli.files import replace_between
from ultron_cli.machine import cpu_name, n_cores, peak_mib
from ultron_cli.measurements import Measurement
from ultron_cli.models import create_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.provenance import package_versions, utc_now

REFERENCE, OURS = "resnet101", "ultron-s"
# row of the table -> model and its settings, as --set takes them
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ultron-t": ("ultron-t", {}),
    OURS: (OURS, {}),
    "ultron-b": ("ultron-b", {}),
    "dolg-r50": ("dolg-r50", {}),
    "dolg-r101": ("dolg-r101", {}),
    "superglobal": ("superglobal", {}),
    "cfcd-r50": ("cfcd-r50", {}),
    "cfcd-r101": ("cfcd-r101", {}),
    "senet-r50": ("senet-r50", {}),
    "senet-r101": ("senet-r101", {}),
    "dalg": ("dalg", {}),
    "resnet50": ("gem", {"backbone": "resnet50"}),
    REFERENCE: ("gem", {"backbone": REFERENCE}),
    **{
        f"resnet50, {name}": ("gem", {"backbone": "resnet50", "attention": name})
        for name in ("se", "eca", "cbam", "sca", "glam", "hoga")
    },
    "resnet50, hoga in stage 4": ("gem", {"backbone": "resnet50", "attention": "hoga", "attention_stages": [4]}),
    "swin_small_patch4_window7_224": ("gem", {"backbone": "swin_small_patch4_window7_224"}),
    "vit_small_patch16_224": ("gem", {"backbone": "vit_small_patch16_224"}),
    "vit_base_patch16_224, ggem": ("gem", {"backbone": "vit_base_patch16_224", "pooling": "ggem"}),
}
SLOWEST_RATIO, MOST_MEMORY_MIB, MEMORY_SIDE_PX = 1.3, 2048, 1024
BEGIN, END = "<!-- begin: benchmarks/models.py -->", "<!-- end: benchmarks/models.py -->"


@dataclass
class Measured:
    """What is measured of one network."""

    name: str
    n_million: float  # of parameters
    gflops: float  # of one photo
    seconds: list[float] = field(default_factory=list)  # of each round


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", n_cores())))
    parser.add_argument(
        "--only",
        metavar="NETWORK",
        action="append",
        choices=list(NETWORKS),
        help="leave out the others; may be given again",
    )
    parser.add_argument("--profile", metavar="NETWORK")
    add_save(parser)
    parser.add_argument("--memory", metavar="NETWORK", help="print the process's peak MiB after one photo of 1024 px")
    return parser.parse_args()


def make(name: str) -> RetrievalModel:
    """The network of a row of NETWORKS; any other name is a backbone of timm under GeM. Its memory is laid out channels
    last, as extraction runs it."""
    torch.manual_seed(0)
    model_name, settings = NETWORKS.get(name, ("gem", {"backbone": name}))
    return create_model(model_name, **settings).to(memory_format=torch.channels_last)


def command_of(name: str) -> str:
    """The command that trains this network. Presets of the same names have the recipes of the papers."""
    model_name, settings = NETWORKS[name]
    return " ".join(
        [
            f"ultron train --set model.name={model_name}",
            *(f"--set model.{key}={value}" for key, value in settings.items()),
        ]
    )


def photo(side_px: int) -> torch.Tensor:
    """(1, 3, side, side) random pixels, channels last."""
    return torch.randn(1, 3, side_px, side_px, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )


def attention_flops(query: torch.Size, *arguments: Any, out_shape: Any = None, **_: Any) -> int:
    """FLOPs of torch.ops.ultron.scala_attention(query (B, H, W, h, d), key, value, bias, seed, k, scale, dropout): two
    products per key."""
    batch, height, width, heads, dim = query
    kernel_size = arguments[4]
    return 2 * 2 * batch * height * width * heads * dim * min(kernel_size, height) * min(kernel_size, width)


def cdconv_flops(features: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs of torch.ops.ultron.cdconv(input (B, C, H, W), ...): nine taps, whatever the dilation is."""
    return 2 * 9 * features.numel()


def count_gflops(model: RetrievalModel, images: torch.Tensor) -> float:
    """GFLOPs of one forward pass, two FLOPs per multiply-add. Convolutions and products alone are counted, as torch
    counts them, our operators among them."""
    ours = {torch.ops.ultron.scala_attention: attention_flops, torch.ops.ultron.cdconv: cdconv_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=ours) as counter:
        model(images)
    return counter.get_total_flops() / 1e9


def check_operators() -> None:
    """Ends the program unless the compiled operators are there and agree with the reference in a whole network."""
    from ultron_kernels import status

    model, images = make("ultron-t"), photo(128)
    with torch.inference_mode():
        os.environ["ULTRON_KERNELS"] = "off"
        expected = model(images)
        os.environ["ULTRON_KERNELS"] = "cpu"
        difference = float((model(images) - expected).abs().max())
    if difference > 1e-5:
        sys.exit(
            f"compiled and reference operators differ by {difference} in a descriptor: nothing is timed ({status()})"
        )
    print(f"compiled against reference operators: largest difference of a descriptor {difference:.1e}", file=sys.stderr)


def measure(side_px: int, n_rounds: int, names: list[str]) -> list[Measured]:
    """Counts the operations of each network, which also warms it up; then times n_rounds rounds over all of them."""
    images = photo(side_px)
    models = {name: make(name) for name in names}
    results = [
        Measured(name, sum(p.numel() for p in model.parameters()) / 1e6, count_gflops(model, images))
        for name, model in models.items()
    ]
    with torch.inference_mode():
        for _ in range(n_rounds):
            for result in results:
                started_s = time.perf_counter()
                models[result.name](images)
                result.seconds.append(time.perf_counter() - started_s)
    return results


def peak_memory_mib(name: str) -> float:
    """Peak resident memory of a child process that loads torch and the network and describes one photo of 1024 px."""
    command = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_memory(name: str) -> None:
    """In the child process: prints its peak MiB."""
    with torch.inference_mode():
        make(name)(photo(MEMORY_SIDE_PX))
    print(peak_mib())


def print_profile(name: str, side_px: int) -> None:
    """Prints where the time of one photo goes, after a warm-up."""
    model, images = make(name), photo(side_px)
    with torch.inference_mode():
        model(images)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            model(images)
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))


def speed(seconds: list[float]) -> str:
    """Photos per second as text: the median of the rounds, and their range."""
    return f"{1 / statistics.median(seconds):.2f} ({1 / max(seconds):.2f} to {1 / min(seconds):.2f})"


def as_markdown(results: list[Measured], arguments: argparse.Namespace) -> str:
    columns = [
        "network",
        "parameters, millions",
        f"GFLOPs at {arguments.side} px",
        f"photos/s, median (range of {arguments.rounds})",
        "command",
    ]
    return markdown_table(
        columns,
        (
            [r.name, f"{r.n_million:.1f}", f"{r.gflops:.1f}", speed(r.seconds), f"`{command_of(r.name)}`"]
            for r in results
        ),
    )


def footnotes(ratio: float, memory_mib: float, arguments: argparse.Namespace) -> str:
    versions = package_versions()
    return "\n".join(
        [
            "\n",
            f"{OURS} takes {ratio:.2f} times the time of {REFERENCE} (median of the rounds' ratios; at most "
            f"{SLOWEST_RATIO} wanted). Peak memory of a process",
            f"that loads torch and {OURS} and describes one photo of {MEMORY_SIDE_PX} px: {memory_mib:,.0f} "
            f"MiB (at most {MOST_MEMORY_MIB:,} wanted).",
            "",
            f"{utc_now()[:10]}, {cpu_name()}, {arguments.threads} of {n_cores()} cores, torch "
            f"{versions['torch']}, timm {versions['timm']}. Batch 1, float32,",
            "random weights, timm's networks without classifier under GeM where nothing else is said; one "
            "scale, so that superglobal, dolg and cfcd take",
            "three to five times as long in their published protocols. Two FLOPs per multiply-add, "
            "convolutions and products only.",
            "The machine was shared with other work while this was measured: the ratio holds better than the rates.",
        ]
    )


def main() -> int:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        print_memory(arguments.memory)
        return 0
    if arguments.profile:
        print_profile(arguments.profile, arguments.side)
        return 0
    check_operators()
    results = measure(arguments.side, arguments.rounds, arguments.only or list(NETWORKS))
    text = as_markdown(results, arguments)
    rates = {result.name: [1 / s for s in result.seconds] for result in results}
    measurements = {
        f"network, {name}": Measurement.of_rounds(
            values,
            unit="photos/s",
            of=f"1 photo of {arguments.side} px, 1 scale, float32",
            others={} if name == REFERENCE else {key: rates[key] for key in rates if key == REFERENCE},
            equality="descriptors of compiled operators, to those of the reference within 1e-05",
        )
        for name, values in rates.items()
    }
    save(arguments.save, __file__, measurements)
    if arguments.only:
        print(text)
        return 0
    seconds = {result.name: result.seconds for result in results}
    ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds[OURS], seconds[REFERENCE], strict=True))
    memory_mib = peak_memory_mib(OURS)
    text += footnotes(ratio, memory_mib, arguments)
    print(text)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0 if ratio <= SLOWEST_RATIO and memory_mib <= MOST_MEMORY_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
