"""Descriptors of other tools: a million rows in and out again, in bounded memory.

    python benchmarks/descriptors.py [--n 1000000] [--dim 512] [--format npy] [--folder DIR] [--shuffle]

A file of N rows of other lengths than 1 and a list of their names are made (seed 0). `ultron descriptors import` and
`ultron descriptors export` run on them, each in a process of its own with one thread. What comes out must be the rows
that went in, made unit vectors, with their names; and the stored bits must be those that are exported. The time is that
of the whole command, and beside it the processor's own, which other work on the machine changes less; megabytes per
second are of the file that it reads. With --shuffle a ground truth has the photos
in another order, so that each row goes to a place of its own.

The target is met where import and export are faster than 100 MB/s with a peak below 1.5 GiB (of resident memory, the
interpreter's own included). Otherwise the exit code is 1. Needs about four times the file's size on the disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rows import add_save, save

from ultron_cli.blocks import chunks
from ultron_cli.console import table
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS

TARGET_MB_S = 100
TARGET_MIB = 1536
BLOCK = 1 << 14


def raw_rows(start: int, stop: int, dim: int) -> np.ndarray:
    """(n, D) float32 rows of lengths from 0.5 to 2."""
    rng = np.random.default_rng(start)
    rows = rng.standard_normal((stop - start, dim), np.float32)
    lengths = rng.uniform(0.5, 2, (stop - start, 1)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) * lengths


def make(path: Path, n: int, dim: int) -> None:
    """A .npy file and its list of names."""
    with open(path, "wb") as output:
        np.lib.format.write_array_header_1_0(output, {"descr": "<f4", "fortran_order": False, "shape": (n, dim)})
        for start, stop in chunks(n, BLOCK):
            output.write(raw_rows(start, stop, dim).data)
    path.with_suffix(".names.txt").write_text("".join(f"photos/{i:08d}.jpg\n" for i in range(n)))


# Of the process itself: what wait4 tells begins at the peak of the process that started it.
PROGRAM = """
import sys, time
from ultron_cli.cli import main
from ultron_cli.machine import peak_mib
code = main(sys.argv[1:])
print(time.process_time(), peak_mib())
sys.exit(code)
"""


def run(*arguments: object) -> tuple[float, float, float]:
    """(seconds, seconds of the processor, MiB at the peak) of a command. Raises CalledProcessError if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started_s = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    completed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    cpu_s, mib = completed.stdout.split()[-2:]
    return time.perf_counter() - started_s, float(cpu_s), float(mib)


def check(folder: Path, n: int, dim: int, order: np.ndarray) -> None:
    """Raises AssertionError unless the rows that went in are stored as unit vectors, under their names."""
    row_of = np.empty(n, np.int64)
    row_of[order] = np.arange(n)
    with DescriptorFile(folder / "out" / "database.h5") as file:
        names = file.names
        for start, stop in chunks(n, BLOCK):
            raw = raw_rows(start, stop, dim)
            rows = file.take(row_of[start:stop])
            assert (
                np.abs(rows - raw / np.linalg.norm(raw, axis=1, keepdims=True)).max() < 1e-5
            )  # lengths so near to 1 stay
            assert names[row_of[start]].removesuffix(".jpg") == f"photos/{start:08d}"


def check_export(folder: Path, format_name: str, exported: Path) -> None:
    """Raises AssertionError unless a file has the bits and the names that are stored."""
    (part,) = DESCRIPTOR_FORMATS[format_name].read(exported)
    first = 0
    with DescriptorFile(folder / "out" / "database.h5") as file:
        for block in part.blocks(BLOCK):
            assert np.array_equal(block, file.read(first, first + len(block)))
            first += len(block)
        assert first == file.n
        if part.names is not None:
            assert list(part.names) == file.names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--format", default="npy", help="of what is exported")
    parser.add_argument("--folder", type=Path, help="where files are made, and removed (a temporary one)")
    parser.add_argument("--shuffle", action="store_true", help="a ground truth has the photos in another order")
    add_save(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ultron-descriptors-") as text:
        folder = Path(text)
        make(folder / "d.npy", options.n, options.dim)
        n_bytes = (folder / "d.npy").stat().st_size
        order = np.arange(options.n)
        gnd: list[object] = []
        if options.shuffle:
            order = np.random.default_rng(1).permutation(options.n)
            photos = [f"photos/{i:08d}" for i in order.tolist()]
            truth = {"imlist": photos, "qimlist": [], "gnd": []}
            (folder / "gnd_x.json").write_text(json.dumps(truth))
            gnd = ["--gnd", folder / "gnd_x.json"]
        stored, exported = folder / "out" / "database.h5", folder / f"back.{options.format}"
        taken = [run("descriptors", "import", folder / "d.npy", *gnd, "--out", folder / "out", "-q")]
        check(folder, options.n, options.dim, order)
        taken.append(run("descriptors", "export", stored, "--format", options.format, "--out", exported, "-q"))
        check_export(folder, options.format, exported)
    rows = [
        (
            name,
            *(text for s in (seconds, cpu_s) for text in (f"{s:.1f}", f"{n_bytes / s / 1e6:.0f}")),
            f"{mib:,.0f}",
        )
        for name, (seconds, cpu_s, mib) in zip(("import", "export"), taken, strict=True)
    ]
    print(table(("command", "s", "MB/s", "CPU s", "MB/CPU s", "peak MiB"), rows))
    print(f"{options.n:,} x {options.dim} float32, {n_bytes / 1e6:,.0f} MB, {options.format}")
    of = f"{options.n:,} x {options.dim} float32, one thread"
    equality = "rows that went in, made unit, and the bits that are stored"
    save(
        options.save,
        __file__,
        {
            f"descriptors {name}": Measurement.of_rounds([1e3 * seconds], unit="ms", of=of, equality=equality)
            for name, (seconds, *_) in zip(("import", "export"), taken, strict=True)
        },
    )
    is_met = all(n_bytes / seconds / 1e6 > TARGET_MB_S and mib < TARGET_MIB for seconds, _, mib in taken)
    print(f"target: over {TARGET_MB_S} MB/s below {TARGET_MIB:,} MiB: {'met' if is_met else 'missed'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
