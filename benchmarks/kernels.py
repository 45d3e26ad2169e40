"""The operators, compiled against the reference and against other libraries, on the CPU or a CUDA device.

    python benchmarks/kernels.py [--device cpu|cuda] [--runs 15] [--out FILE.md]

All sides of a comparison run in one process, in turns. Equality with the reference is checked first; where it fails, no
times are printed and the exit code is 1. The table has medians over turns, with the fastest and the slowest turn.

On the CPU, SCALA on (1, 32, 32, 10, 32) with k 7 is compared with the gather-and-einsum reference, and with NATTEN's
CPU path if NATTEN is installed. CDConv is compared with three masked depthwise convolutions. Their limit is the
multiply-adds at the speed of a large product, or of CDConv copying input to output, whichever takes longer.

On a CUDA device, in bfloat16 and with batch 64, SCALA is compared with compiled FlexAttention that has the same bias as
its score function, and with the bandwidth floor. The floor is the time to read query, key and value once and to write
the output once, at the bandwidth of a large copy that is measured in the same run. Times there are the device's,
without what Python takes for launching. They are taken over sets of inputs that together are larger than the device's
cache.
"""

import argparse
import functools
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from limits import ARITHMETIC, arithmetic, large_product, rest
from models import attention_flops, cdconv_flops
from rows import add_save, save
from torch import Tensor
from torch.nn import functional
from ultron_kernels import cdconv, scala_attention

from ultron_cli.machine import cpu_name
from ultron_cli.measurements import Measurement

TURN_MS, QUEUED = 50.0, 20
CPU_SHAPE, GPU_SHAPES, K = (1, 32, 32, 10, 32), ((64, 32, 32, 10, 32), (64, 16, 16, 16, 32)), 7
CDCONV_SHAPES = {"cpu": ((1, 192, 64, 64), (1, 384, 32, 32)), "cuda": ((64, 256, 128, 128), (64, 512, 64, 64))}
LARGE_PRODUCT, COPYING, BANDWIDTH = "large product", "copying input to output", "bandwidth"
BACKWARD_FLOPS = 2  # times those of the forward pass: the gradients of both sides of each product
Times = dict[str, list[float]]


def turn_on_cpu(side: Callable[[], object]) -> float:
    """Median milliseconds of a run, over runs that together take TURN_MS or more; there are three runs at least.

    The first two runs do not count: they pay for what the side before has left in the caches.
    """
    runs: list[float] = []
    while len(runs) < 3 or sum(runs) < TURN_MS:
        start = time.perf_counter()
        side()
        runs.append((time.perf_counter() - start) * 1e3)
    return statistics.median(runs[2:])


def turn_on_cuda(side: Callable[[], object]) -> float:
    """Milliseconds that the device takes for a run, the mean of QUEUED runs in a row.

    The runs wait behind a kernel that does nothing until all of them are queued, because launching a small run from
    Python takes longer than the run itself. Raises RuntimeError for a side that itself waits for the device: it cannot
    be queued.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    side()  # pays for what the side before has left in the caches
    wait_cycles = 10_000_000
    while wait_cycles < 10_000_000_000:
        torch.cuda.synchronize()
        torch.cuda._sleep(wait_cycles)
        begin.record()
        for _ in range(QUEUED):
            side()
        all_queued = not begin.query()
        end.record()
        end.synchronize()
        if all_queued:
            return begin.elapsed_time(end) / QUEUED
        wait_cycles *= 2
    raise RuntimeError("a side waits for the device while it is queued: its time on the device cannot be told")


def timed(sides: dict[str, Callable[[], object]], turns: int, device: str) -> Times:
    """Milliseconds of a run of each side, a number per turn; the sides take turns."""
    turn = turn_on_cuda if device == "cuda" else turn_on_cpu
    times: Times = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            rest()
            times[name].append(turn(side))
    return times


def over_sets(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """What makes the next of the calls each time that it is called, over and over."""
    following = itertools.cycle(calls)
    return lambda: next(following)()


def number_of_sets(input_bytes: int, device: str) -> int:
    """How many sets of inputs are needed, so that on a GPU no set is still in the cache when its turn comes again.

    On the CPU it is one.
    """
    return 1 + 3 * torch.cuda.get_device_properties(device).L2_cache_size // input_bytes if device == "cuda" else 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One work that all sides do; ours is the first."""

    title: str
    times: Times
    tolerance: float  # from the reference, as a share of its largest value
    limits: Times  # what the machine allows

    def lines(self) -> list[str]:
        """The rows of the table, a side each; the others are compared with the first."""
        medians = {name: statistics.median(values) for name, values in self.times.items()}
        first_ms = next(iter(medians.values()))
        limits_ms = {name: statistics.median(values) for name, values in self.limits.items()}
        shares = {
            name: ", ".join(f"{limit_ms / ms:.0%} of {limit}" for limit, limit_ms in limits_ms.items())
            for name, ms in medians.items()
        }
        return [
            f"| {self.title} | {name} | {ms:.3f} | {min(self.times[name]):.3f} to {max(self.times[name]):.3f} | "
            f"{ms / first_ms:.1f}x | {shares[name]} |"
            for name, ms in medians.items()
        ]

    def measurement(self, device: str) -> Measurement:
        """The row that is kept."""
        ours, *others = self.times
        return Measurement.of_rounds(
            self.times[ours],
            unit="ms",
            of=f"on {device}",
            others={name: self.times[name] for name in others},
            limits=self.limits,
            equality=f"the reference within {self.tolerance:.0e} of its largest value",
        )


def beside_limits(
    title: str, sides: dict[str, Callable[[], object]], runs: int, device: str, *, flops: float, tolerance: float
) -> Comparison:
    """Times the sides; on the CPU the large product with them, and of what copies the longer limit is taken."""
    if device == "cuda":
        return Comparison(title=title, times=timed(sides, runs, device), tolerance=tolerance, limits={})
    times = timed(sides | {LARGE_PRODUCT: large_product()}, runs, device)
    limits = {ARITHMETIC: arithmetic(flops, times.pop(LARGE_PRODUCT))}
    if COPYING in times:
        limits[COPYING] = times.pop(COPYING)
    longest = max(limits, key=lambda name: statistics.median(limits[name]))
    return Comparison(title=title, times=times, tolerance=tolerance, limits={longest: limits[longest]})


def attention_inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
    return [*tensors, torch.randn(shape[3], 2 * K - 1, 2 * K - 1, generator=generator).to(device)]


def far_apart(output: Tensor, right: Tensor) -> float:
    """The largest difference, as a share of the largest value of the right one."""
    return float((output.double() - right.double()).abs().max() / right.double().abs().max())


def check_equal(what: str, output: Tensor, right: Tensor, limit: float) -> None:
    apart = far_apart(output, right)
    if not apart <= limit:
        print(f"{what} is {apart:.2g} from the reference, more than {limit:.2g}: no times are given", file=sys.stderr)
        raise SystemExit(1)


def both_ways(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of function(*tensors)."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return lambda: torch.autograd.grad(function(*leaves), leaves, grad)


def attention_sides(device: str, tensors: list[Tensor]) -> dict[str, Callable[..., Tensor]]:
    """Name -> what is called with the tensors; the compiled operator comes first."""
    sides = {f"ultron {device}": lambda *t: scala_attention(*t, kernel_size=K, backend=device)}
    if device == "cuda":
        return sides | {"FlexAttention, compiled": lambda *t: scala_attention(*t, kernel_size=K, backend="flex")}
    return sides | {"reference (gather, einsum)": lambda *t: scala_attention(*t, kernel_size=K, backend="torch")}


def measure_attention(shape: tuple[int, ...], device: str, runs: int, floor_ms: float | None) -> list[Comparison]:
    """Those of one shape: forward in inference mode, then forward and backward."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tensors = attention_inputs(shape, dtype, device)
    sides = attention_sides(device, tensors)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    # Two photos are enough to compare: the reference needs memory for (B, H, W, k, k, h, d).
    small = [tensor[:2] if tensor.ndim == 5 else tensor for tensor in tensors]
    limit = 2e-2 if device == "cuda" else 1e-5
    right = both_ways(lambda *t: scala_attention(*t, kernel_size=K, backend="torch"), small, grad[:2])()
    for name, side in sides.items():
        check_equal(name, side(*small), scala_attention(*small, kernel_size=K, backend="torch"), limit)
        for backward, expected in zip(both_ways(side, small, grad[:2])(), right, strict=True):
            check_equal(f"{name} backward", backward, expected, 4 * limit)
    title = f"SCALA {tuple(shape)}, k {K}, {str(dtype)[6:]}"
    n_sets = number_of_sets(sum(tensor.nbytes for tensor in tensors[:3]), device)
    sets = [tensors, *([tensor.clone() for tensor in tensors] for _ in range(n_sets - 1))]
    forward = {name: over_sets([functools.partial(side, *inputs) for inputs in sets]) for name, side in sides.items()}
    if device == "cpu":
        forward |= natten_side(tensors)
    flops = attention_flops(tensors[0].shape, None, None, None, None, K)
    with torch.inference_mode():
        forward_row = beside_limits(f"{title}, forward", forward, runs, device, flops=flops, tolerance=limit)
    if floor_ms is not None:
        forward_row = replace(forward_row, limits={BANDWIDTH: [floor_ms]})
    both = {name: over_sets([both_ways(side, inputs, grad) for inputs in sets]) for name, side in sides.items()}
    flops *= 1 + BACKWARD_FLOPS
    title += ", forward and backward"
    return [forward_row, beside_limits(title, both, runs, device, flops=flops, tolerance=4 * limit)]


def natten_side(tensors: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
    """NATTEN on the same tensors but for the bias, which it does not know; no side where it is not installed."""
    try:
        import natten
    except ImportError:
        return {}
    return {
        f"NATTEN {natten.__version__}, no bias": lambda: scala_attention(*tensors[:3], kernel_size=K, backend="natten")
    }


def measure_cdconv(shape: tuple[int, ...], device: str, runs: int) -> list[Comparison]:
    """Those of one shape (B, C, H, W).

    CDConv convolves each channel with its one dilation; the other side makes a depthwise convolution with each of the
    three dilations, masks them and adds them up.
    """
    generator = torch.Generator().manual_seed(0)
    input, weight = (
        torch.randn(shape, generator=generator).to(device),
        torch.randn(shape[1], 1, 3, 3, generator=generator).to(device),
    )
    steps = torch.tensor([1, 3, 6])
    dilation = steps[torch.randint(0, 3, shape[:2], generator=generator)].to(device)
    masks = [(dilation == step)[:, :, None, None].to(input) for step in (1, 3, 6)]

    def masked(input: Tensor, weight: Tensor) -> Tensor:
        taps = zip((1, 3, 6), masks, strict=True)
        return sum(
            functional.conv2d(input * mask, weight, padding=step, dilation=step, groups=shape[1]) for step, mask in taps
        )

    comparisons = []
    for order in (torch.contiguous_format, torch.channels_last):
        laid_out, name = input.contiguous(memory_format=order), "NCHW" if order == torch.contiguous_format else "NHWC"
        limit = 1e-4
        check_equal("cdconv", cdconv(laid_out, weight, dilation, backend=device), masked(laid_out, weight), limit)
        sides: dict[str, Callable[[], object]] = {
            f"ultron {device}": lambda t=laid_out: cdconv(t, weight, dilation, backend=device),
            "three masked convolutions": lambda t=laid_out: masked(t, weight),
        }
        if device == "cpu":
            sides[COPYING] = functools.partial(torch.empty_like(laid_out).copy_, laid_out)
        with torch.inference_mode():
            title = f"CDConv {tuple(shape)}, float32, {name}"
            flops = cdconv_flops(laid_out.shape)
            comparisons.append(beside_limits(title, sides, runs, device, flops=flops, tolerance=limit))
    return comparisons


def copy_bandwidth_gb_s(runs: int) -> float:
    """Bytes read plus bytes written per second, in 10^9, by a 2 GiB copy on the device."""
    source = torch.empty(2**30, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    times = timed({"copy": lambda: target.copy_(source)}, runs, "cuda")["copy"]
    return 2 * source.numel() * 2 / statistics.median(times) / 1e6


def extra_memory(shape: tuple[int, ...]) -> str:
    """Peak memory that the CPU operator adds, as a multiple of its output (Linux only)."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not clear.exists():
        return "not measured (no /proc)"
    large = (8, *shape[1:])  # large enough to stand out from the allocator's own pages
    tensors = attention_inputs(large, torch.float32, "cpu")
    with torch.inference_mode():
        # The first output stays, so that its memory cannot serve the second.
        first = scala_attention(*tensors, kernel_size=K, backend="cpu")
        clear.write_text("5")  # the peak begins anew

        def kib(key: str) -> int:
            return int(next(line for line in status.read_text().splitlines() if line.startswith(key)).split()[1])

        before = kib("VmRSS")
        out = scala_attention(*tensors, kernel_size=K, backend="cpu")
        added = (kib("VmHWM") - before) * 1024
    if not torch.equal(out, first):
        raise RuntimeError("two runs of the operator on the same inputs differ")
    return f"{added / out.nbytes:.2f} times the output, the output included"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", type=int, default=15, help="turns of each side")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    add_save(parser)
    options = parser.parse_args()
    device, runs = options.device, options.runs
    comparisons: list[Comparison] = []
    lines = ["| what | side | median ms | fastest to slowest | ratio | |", "|---|---|---|---|---|---|"]
    if device == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # the masked convolutions too are in float32
        bandwidth = copy_bandwidth_gb_s(runs)
        head = [
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, copy "
            f"bandwidth {bandwidth:.0f} GB/s, {runs} turns"
        ]
        for shape in GPU_SHAPES:
            elements = 4 * torch.Size(shape).numel()
            comparisons += measure_attention(shape, device, runs, elements * 2 / bandwidth / 1e6)
    else:
        threads = torch.get_num_threads()
        load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        # `ultron` sets PASSIVE, which costs a small operator a tenth of its speed and other processes nothing.
        policy = os.environ.get("OMP_WAIT_POLICY", "not set")
        versions = f"python {platform.python_version()}, torch {torch.__version__}, OMP_WAIT_POLICY {policy}"
        head = [f"{cpu_name()}, {threads} threads, {versions}, {runs} turns{load}"]
        # Measured before anything else: other sides leave memory that would serve the operator.
        head.append(f"Peak memory of the CPU operator: {extra_memory(CPU_SHAPE)}")
        comparisons += measure_attention(CPU_SHAPE, device, runs, None)
    for shape in CDCONV_SHAPES[device]:
        comparisons += measure_cdconv(shape, device, runs)
    lines += [line for comparison in comparisons for line in comparison.lines()]
    text = "\n\n".join([*head, "\n".join(lines)]) + "\n"
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    save(options.save, __file__, {row.title: row.measurement(device) for row in comparisons}, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
