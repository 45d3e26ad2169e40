"""Exact search: exact_search against faiss.IndexFlatIP on the same descriptors and threads.

    python benchmarks/search.py [--rows 200000] [--dim 512] [--queries 70] [-k 100] [--runs 7] [--large [ROWS]]

Equality is checked first: exact_search must give the rows and scores of a literal reference, which forms the whole
product in float64 and sorts it by score and row. Faiss must give the same rows, up to those within float32 rounding of
the k-th score. Otherwise no times are printed and the exit code is 1. Then both sides run in turns. So do searches of
two descriptor files in --folder that hold the same values as float16 and as float32.

Limits are the multiply-adds at the speed of a large float32 product, which whole numbers can pass, and reading the rows
once: in memory, or from the file by h5py. Files are in the page cache, because they have been read before.

--large also searches a float32 file of ROWS (1,000,000: 2 GB for 512 dimensions, in --folder) in a process of its own.
It reports what the search adds to that process's peak memory, the (Q, k) result included. The descriptors are made up
from one seed. CPU times add up all cores, waiting in busy loops included; on a machine with other work they vary less
than the wall clock.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

import h5py
import numpy as np
from limits import ARITHMETIC, arithmetic, large_product, product, reading, rest
from rows import add_save, save

from ultron_cli.machine import cpu_name, n_cores, peak_mib
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import RankedRows

LARGE_ROWS, BLOCK_ROWS = 1_000_000, 20_000
READ_BYTES = 1 << 22  # that h5py reads at once
LARGE_PRODUCT, READING, READING_FILE = "large product", "reading the rows once", "reading the file alone"
LIMITS = (ARITHMETIC, READING, READING_FILE)
Times = dict[str, list[float]]  # side -> seconds of each run


class LargeSearch(TypedDict):
    """What the child process of --large measures."""

    times_s: Times
    cpu_s: Times
    added_mib: float  # that the search adds to the peak
    peak_mib: float
    result_mib: float


def unit_rows(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """(n, D) float32 rows of random direction."""
    rows = rng.standard_normal((n, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def literal_search(queries: np.ndarray, database: np.ndarray, k: int) -> RankedRows:
    """Forms every score in float64, rounds it to float32 and sorts all rows by (-score, row)."""
    exact, starts = queries.astype(np.float64), range(0, len(database), BLOCK_ROWS)
    scores = np.hstack([exact @ database[start : start + BLOCK_ROWS].astype(np.float64).T for start in starts]).astype(
        np.float32
    )
    rows = np.stack([np.lexsort((np.arange(len(database)), -row))[:k] for row in scores])
    return RankedRows(rows, np.take_along_axis(scores, rows, axis=1))


def differing_rows(
    exact: RankedRows, faiss_rows: np.ndarray, queries: np.ndarray, database: np.ndarray
) -> tuple[int, float]:
    """Returns how many rows only Faiss has, and how far the score of the worst of them lies below the k-th score."""
    n_differing, worst = 0, 0.0
    for i, (our_rows, their_rows) in enumerate(zip(exact.rows, faiss_rows, strict=True)):
        for row in set(their_rows.tolist()) - set(our_rows.tolist()):
            n_differing += 1
            worst = max(
                worst,
                float(exact.scores[i, -1]) - float(queries[i].astype(np.float64) @ database[row].astype(np.float64)),
            )
    return n_differing, worst


def read_file(path: Path) -> None:
    """Reads all descriptors of a file as they are stored, over and over into the same memory."""
    with h5py.File(path) as file:
        rows = cast(h5py.Dataset, file["descriptors"])
        n, dim = rows.shape
        block = np.empty((max(1, READ_BYTES // (dim * rows.dtype.itemsize)), dim), rows.dtype)
        for start in range(0, n, len(block)):
            stop = min(n, start + len(block))
            rows.read_direct(block, np.s_[start:stop], np.s_[: stop - start])


def search_large_file(path: Path, options: argparse.Namespace) -> LargeSearch:
    """Memory of searching a descriptor file, after a warm-up that loads the libraries; then times.

    Raises SystemExit where the search gives other rows or scores than the literal one.
    """
    rng = np.random.default_rng(options.seed + 1)
    queries = unit_rows(rng, options.queries, options.dim)
    exact_search(queries, unit_rows(rng, 4096, options.dim), min(options.k, 4096), device=options.device)
    before = peak_mib()
    with DescriptorFile(path) as database:
        search = partial(exact_search, queries, database, options.k, device=options.device)
        ranking = search()
        result_mib = (ranking.rows.nbytes + ranking.scores.nbytes) / 2**20
        memory = {"added_mib": peak_mib() - before, "peak_mib": peak_mib(), "result_mib": result_mib}
        check_equal("search of the large file", ranking, literal_search(queries, database.read(), options.k))
        sides = {"ultron exact_search": search} | file_limits(path, options.device)
        times_s, cpu_s = timed(sides, options.runs)
    return LargeSearch(times_s=times_s, cpu_s=cpu_s, **memory)


def run_large(options: argparse.Namespace) -> LargeSearch:
    """Writes a large descriptor file and searches it in a child process."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "database.h5"
        rng = np.random.default_rng(options.seed)
        n = options.large
        blocks: Iterator[np.ndarray] = (
            unit_rows(rng, min(BLOCK_ROWS, n - start), options.dim) for start in range(0, n, BLOCK_ROWS)
        )
        info = DescriptorInfo(
            model="none", weights_sha256="", dataset="made-up", role="database", crop="none", scales=[1.0]
        )
        print(f"writing {n:,} rows to {path} ...", file=sys.stderr, flush=True)
        write_descriptors(path, [str(row) for row in range(n)], blocks, options.dim, info)
        command = [sys.executable, __file__, "--file", path, "--device", options.device, "-k", options.k]
        for name in ("dim", "queries", "runs", "seed"):
            command += [f"--{name}", getattr(options, name)]
        return json.loads(
            subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True).stdout
        )


def check_equal(what: str, ranking: RankedRows, reference: RankedRows) -> None:
    """Raises SystemExit where rows or scores differ."""
    if not (np.array_equal(ranking.rows, reference.rows) and np.array_equal(ranking.scores, reference.scores)):
        raise SystemExit(f"{what} differs from the literal reference: no times are given")


def file_limits(path: Path, device: str) -> dict[str, Callable[[], object]]:
    """What is timed beside a search of a file; nothing on a GPU."""
    return {READING_FILE: partial(read_file, path), LARGE_PRODUCT: large_product()} if device == "cpu" else {}


def search_of_files(
    folder: Path, database: np.ndarray, queries: np.ndarray, options: argparse.Namespace
) -> tuple[Times, Times]:
    """What `timed` gives of searching the database, rounded to float16, from a float16 and from a float32 file.

    Raises SystemExit where one of them gives other rows or scores than the literal search.
    """
    halves = database.astype(np.float16)
    reference = literal_search(queries, halves.astype(np.float32), options.k)
    names = [str(row) for row in range(len(halves))]
    with contextlib.ExitStack() as files:
        sides = {}
        for storage in ("float16", "float32"):
            info = DescriptorInfo(
                model="none",
                weights_sha256="",
                extraction=ExtractionRecord(stored={"storage": storage}),
                dataset="made-up",
                role="database",
                crop="none",
                scales=[1.0],
            )
            write_descriptors(folder / f"{storage}.h5", names, [halves.astype(storage)], options.dim, info)
            file = files.enter_context(DescriptorFile(folder / f"{storage}.h5"))
            side = partial(exact_search, queries, file, options.k, device=options.device)
            ranked = side()  # also the warm-up
            check_equal(f"search of a {storage} file", ranked, reference)
            sides[f"{storage} file"] = side
        return timed(sides | file_limits(folder / "float16.h5", options.device), options.runs)


def timed(sides: dict[str, Callable[[], object]], runs: int) -> tuple[Times, Times]:
    """Seconds of each side, and seconds of CPU, all sides in turns."""
    times_s: Times = {name: [] for name in sides}
    cpu_s: Times = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            rest()
            start, start_cpu = time.perf_counter(), time.process_time()
            side()
            times_s[name].append(time.perf_counter() - start)
            cpu_s[name].append(time.process_time() - start_cpu)
    return times_s, cpu_s


def row_of(times_s: Times, cpu_s: Times, of: str, multiply_adds: int) -> Measurement:
    """Prints the sides that `timed` timed, of which the first is ours, and gives their row."""
    for times in (times_s, cpu_s):
        if LARGE_PRODUCT in times:
            times[ARITHMETIC] = arithmetic(2 * multiply_adds, times.pop(LARGE_PRODUCT))
    print(f"{'':26}{'runs':>5}{'median ms':>11}{'min':>9}{'max':>9}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}", flush=True)
    ours = next(iter(times_s))
    our_s, our_cpu_s = statistics.median(times_s[ours]), statistics.median(cpu_s[ours])
    for name, seconds in times_s.items():
        median_s, median_cpu_s = statistics.median(seconds), statistics.median(cpu_s[name])
        spread = f"{median_s * 1e3:11.1f}{min(seconds) * 1e3:9.1f}{max(seconds) * 1e3:9.1f}{median_s / our_s:7.2f}x"
        print(
            f"{name:26}{len(seconds):5}{spread}{median_cpu_s * 1e3:10.1f}{median_cpu_s / our_cpu_s:7.2f}x", flush=True
        )
    ms = {name: [1e3 * s for s in seconds] for name, seconds in times_s.items()}
    return Measurement.of_rounds(
        ms.pop(ours),
        unit="ms",
        of=of,
        note=f"{1e3 * our_cpu_s:.0f} ms of CPU",
        others={name: rounds for name, rounds in ms.items() if name not in LIMITS},
        limits={name: rounds for name, rounds in ms.items() if name in LIMITS},
        equality="rows and scores, to the literal float64 product",
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="database rows (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="dimensions (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=70, help="(default: %(default)s)")
    parser.add_argument("-k", type=int, default=100, help="rows asked for (default: %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=7, help="timed runs of each side, at least 5 (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of exact_search; Faiss runs on the CPU (default: %(default)s)")
    large_help = "also search a file of so many rows, and report peak memory"
    parser.add_argument("--large", type=int, nargs="?", const=LARGE_ROWS, metavar="ROWS", help=large_help)
    parser.add_argument("--folder", type=Path, help="where --large writes its file (the system's temporary folder)")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # the child process of --large
    add_save(parser)
    options = parser.parse_args()
    options.runs = max(5, options.runs)
    return options


def main() -> int:
    options = parse_options()
    if options.file:
        print(json.dumps(search_large_file(options.file, options)))
        return 0
    import faiss
    import torch

    rng = np.random.default_rng(options.seed)
    database, queries = unit_rows(rng, options.rows, options.dim), unit_rows(rng, options.queries, options.dim)
    flat = faiss.IndexFlatIP(options.dim)
    flat.add(database)
    sides = {
        "ultron exact_search": lambda: exact_search(queries, database, options.k, device=options.device),
        "faiss IndexFlatIP": lambda: flat.search(queries, options.k),
        "torch product + topk": lambda: torch.topk(torch.from_numpy(queries) @ torch.from_numpy(database).T, options.k),
    }
    if options.device == "cpu":
        sides |= {"NumPy product, no top-k": product(database, queries)}
        sides |= {READING: reading(database), LARGE_PRODUCT: large_product()}
    exact, (_, faiss_rows), *_ = (side() for side in sides.values())  # also the warm-up
    check_equal("exact_search", exact, literal_search(queries, database, options.k))
    n_differing, worst = differing_rows(exact, faiss_rows, queries, database)
    if worst > 2 * options.dim * 2.0**-24:
        print(
            f"Faiss has a row {worst:.3g} below the k-th score, more than rounding explains: no times are given",
            file=sys.stderr,
        )
        return 1

    times_s, cpu_s = timed(sides, options.runs)
    threads = f"torch {torch.get_num_threads()}, faiss {faiss.omp_get_max_threads()}"
    versions = (
        f"python {platform.python_version()}, torch {torch.__version__}, faiss {faiss.__version__}, numpy "
        f"{np.__version__}"
    )
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "cpu"
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{options.rows:,} x {options.dim} float32 in memory, {options.queries} queries, k {options.k}, seed "
        f"{options.seed}, on {device}"
    )
    print(f"{cpu_name()}, {n_cores()} cores, threads: {threads}; {versions}{load}")
    print(
        f"rows and scores equal the literal reference; {n_differing} rows only in Faiss's result (at most "
        f"{worst:.2g} below the k-th)\n"
    )
    of = f"{options.queries} queries, k {options.k}, on {device}"
    work = options.rows * options.dim * options.queries
    rows = {"exact search": row_of(times_s, cpu_s, f"{options.rows:,} x {options.dim} float32 in memory, {of}", work)}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        times_s, cpu_s = search_of_files(Path(folder), database, queries, options)
    rows["exact search of a file"] = row_of(times_s, cpu_s, f"{options.rows:,} x {options.dim} from a file, {of}", work)
    if options.large:
        large = run_large(options)
        what = f"{options.large:,} x {options.dim} float32 from a file in the page cache, {of}"
        print(
            f"\n{what}; the search adds {large['added_mib']:.0f} MiB to the peak (result {large['result_mib']:.1f} "
            f"MiB), process peak {large['peak_mib']:.0f} MiB"
        )
        work = options.large * options.dim * options.queries
        rows["exact search of a large file"] = row_of(large["times_s"], large["cpu_s"], what, work)
    save(options.save, __file__, rows, options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
