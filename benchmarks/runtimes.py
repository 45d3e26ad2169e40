"""One photo through each network by each runtime that takes it: milliseconds, beside the mAP of a training.

    python benchmarks/runtimes.py [--write docs/models.md] [--rounds 5] [--size 480x640] [--threads 2]
    python benchmarks/runtimes.py --only resnet50 --only ultron-s

Weights are random, the photo is random pixels, arithmetic is float32, one pass at one scale on all threads. A network
or runtime that is not installed, or cannot take a network, is left out and said. Before anything is timed, a
descriptor of torch must be that of the model itself, and one of another runtime have a cosine of at least 0.99999 with
it, as the extraction demands; a runtime that has not is shown without a time. Each round runs everything once. So it
does a large product, at whose speed a network's multiply-adds are its limit: those of convolutions and products, and of
ULTRON's own operators. The mAP is that of the system of the same name in the table of examples/trained_models.py, which
--write names the document of.
"""

import argparse
import os
import re
import sys

from ultron_cli.allocator import keep_memory
from ultron_cli.machine import share_cores

if __name__ == "__main__":  # before torch, as the command does
    share_cores()
    keep_memory()

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from limits import ARITHMETIC, arithmetic, large_product, seconds_of
from models import NETWORKS, count_gflops
from rows import add_save, save
from threadpoolctl import threadpool_limits

from ultron_cli.console import markdown_table
from ultron_cli.errors import UltronError
from ultron_cli.files import replace_between
from ultron_cli.machine import cpu_name, n_cores
from ultron_cli.measurements import Measurement
from ultron_cli.models.runtimes import RuntimeName, Threads, open_network
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.provenance import package_versions, utc_now
from ultron_cli.retrieval.extraction.runtime_choice import LEAST_COSINES

MEASURED = ("ultron-t", "ultron-s", "resnet50", "resnet101", "convnext_tiny")
COMPARED: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")
BEGIN, END = "<!-- begin: benchmarks/runtimes.py -->", "<!-- end: benchmarks/runtimes.py -->"
TRAINED = ("<!-- begin: examples/trained_models.py -->", "<!-- end: examples/trained_models.py -->")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "models.md"


@dataclass
class Side:
    """A network in a runtime."""

    network: str
    runtime: RuntimeName
    describe: Network
    gflops: float  # of a photo
    ms: list[float] = field(default_factory=list)  # of each round
    cpu_ms: list[float] = field(default_factory=list)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="480x640", help="of the photo, height and width (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", n_cores())))
    parser.add_argument("--only", metavar="NETWORK", action="append", choices=[*MEASURED, *NETWORKS])
    add_save(parser)
    return parser.parse_args()


def open_sides(name: str, photo: torch.Tensor, n_threads: int, reasons: dict[tuple[str, str], str]) -> list[Side]:
    """A network in every runtime that takes it and agrees with torch; why the others do not goes into `reasons`."""
    torch.manual_seed(0)
    model, settings = NETWORKS.get(name, ("gem", {"backbone": name}))
    loaded = ModelChoice(untrained=True, model=model, settings=settings).load()
    gflops = count_gflops(loaded.model, photo)
    with torch.inference_mode():
        expected = loaded.model(photo)[0].double()
    sides = []
    for runtime in COMPARED:
        try:
            threads = Threads(per_call=n_threads)
            network = open_network(runtime, loaded, torch.device("cpu"), "float32", threads)
        except UltronError as error:
            reason = error.message.replace(loaded.model.label, "the network")
            reasons[name, runtime] = reason.replace(f"runtime {runtime}", "the runtime")
            continue
        with torch.inference_mode():
            descriptor = network(photo)[0].double()
        cosine = float(torch.nn.functional.cosine_similarity(descriptor, expected, dim=0))
        if not cosine >= LEAST_COSINES["float32"]:
            reasons[name, runtime] = f"does not agree with torch (cosine {cosine:.6f})"
            continue
        sides.append(Side(name, runtime, network, gflops))
    return sides


def measure(sides: list[Side], photo: torch.Tensor, n_rounds: int, n_threads: int) -> list[float]:
    """Times rounds over all of them; each has run once before. Returns the milliseconds of a large product in each
    round."""
    large, large_ms = large_product(), []
    large()
    with torch.inference_mode():
        for _ in range(n_rounds):
            with threadpool_limits(n_threads, "blas"):
                large_ms.append(1000 * seconds_of(large))
            for side in sides:
                started_s, started_cpu_s = time.perf_counter(), time.process_time()
                side.describe(photo)
                side.ms.append(1000 * (time.perf_counter() - started_s))
                side.cpu_ms.append(1000 * (time.process_time() - started_cpu_s))
    return large_ms


def trained_map(name: str) -> str:
    """Medium mAP of a trained system in the documentation's table of them, or that there is none."""
    text = DOCUMENT.read_text(encoding="utf-8")
    block = text[text.index(TRAINED[0]) : text.index(TRAINED[1])]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"]
    column = table[0].index("medium")
    values = [row[column] for row in table if row[0] == name]
    return values[0] if values else "not trained"


def by_speed(sides: list[Side], name: str) -> list[Side]:
    """A network's runtimes, the fastest first, by processor time."""
    return sorted((side for side in sides if side.network == name), key=lambda side: statistics.median(side.cpu_ms))


def row_of(name: str, sides: list[Side]) -> list[str]:
    """A network's row of the table."""
    fastest, *others = by_speed(sides, name)
    medians = {
        side.runtime: (statistics.median(side.ms), statistics.median(side.cpu_ms)) for side in (fastest, *others)
    }
    spread = f"{medians[fastest.runtime][0]:,.0f} ({min(fastest.ms):,.0f} to {max(fastest.ms):,.0f})"
    texts = [f"{side.runtime} {medians[side.runtime][0]:,.0f} ({medians[side.runtime][1]:,.0f})" for side in others]
    return [name, fastest.runtime, spread, f"{medians[fastest.runtime][1]:,.0f}", ", ".join(texts), trained_map(name)]


def measurements(sides: list[Side], large_ms: list[float], size: str) -> dict[str, Measurement]:
    """Each network in its fastest runtime, beside the others."""
    rows = {}
    for name in dict.fromkeys(side.network for side in sides):
        fastest, *others = by_speed(sides, name)
        cpu_ms = statistics.median(fastest.cpu_ms)
        rows[f"one photo, {name}, {fastest.runtime}"] = Measurement.of_rounds(
            fastest.ms,
            unit="ms",
            of=f"{size}, 1 scale, float32",
            note=f"{cpu_ms:.0f} ms of CPU; medium mAP on the rendered set: {trained_map(name)}",
            others={side.runtime: side.ms for side in others},
            limits={ARITHMETIC: arithmetic(1e9 * fastest.gflops, large_ms)},
            equality=f"descriptors, to torch's by a cosine of {LEAST_COSINES['float32']}",
        )
    return rows


def reason_lines(reasons: dict[tuple[str, str], str]) -> list[str]:
    """Why runtimes do not take networks, a line for all networks of which it is true in the same runtimes."""
    runtimes: dict[tuple[str, str], list[str]] = {}
    for (name, runtime), reason in reasons.items():
        runtimes.setdefault((name, reason), []).append(runtime)
    names: dict[tuple[str, str], list[str]] = {}
    for (name, reason), of_name in runtimes.items():
        names.setdefault((", ".join(of_name), reason), []).append(name)
    return [f"{', '.join(of_reason)} in {where}: {reason}." for (where, reason), of_reason in names.items()]


def main() -> int:
    arguments = parse()
    if not re.fullmatch(r"\d+x\d+", arguments.size):
        sys.exit(f"--size must be HEIGHTxWIDTH, got {arguments.size}")
    torch.set_num_threads(arguments.threads)
    height, width = map(int, arguments.size.split("x"))
    generator = torch.Generator().manual_seed(0)
    photo = torch.randn(1, 3, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    names = arguments.only or MEASURED
    reasons: dict[tuple[str, str], str] = {}
    sides = []
    for name in names:
        print(f"opening {name} ...", file=sys.stderr, flush=True)
        sides += open_sides(name, photo, arguments.threads, reasons)
    large_ms = measure(sides, photo, arguments.rounds, arguments.threads)
    columns = ["network", "fastest runtime", f"ms per photo, median (range of {arguments.rounds})", "ms of CPU"]
    columns += ["others: ms (of CPU)", "medium mAP on the rendered set"]
    versions = package_versions()
    packages = ", ".join(f"{name} {versions[name]}" for name in (*COMPARED, "timm") if name in versions)
    load = f", load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    text = markdown_table(columns, [row_of(name, sides) for name in names])
    text += (
        f"\n\n{utc_now()[:10]}, {cpu_name()}, {arguments.threads} of {n_cores()} cores{load}; {packages}. "
        f"One photo of {arguments.size}, one scale, float32, random weights."
    )
    text += "".join(f"\n\n{line}" for line in reason_lines(reasons))
    print(text)
    save(arguments.save, __file__, measurements(sides, large_ms, arguments.size))
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
