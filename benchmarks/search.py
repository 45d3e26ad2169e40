"""Exact search: exact_search against faiss.IndexFlatIP on the same descriptors and threads.

    python benchmarks/search.py [--rows 200000] [--dim 512] [--queries 70] [-k 100] [--runs 7] [--device cpu] [--large]

Equality is checked first: exact_search must give the rows and scores of a literal reference, which forms the whole
product in float64 and sorts it by score and row. Faiss must give the same rows, up to those within float32 rounding of
the k-th score. Otherwise no times are printed and the exit code is 1. Then both sides run in turns. So do searches of
two descriptor files in --folder that hold the same values as float16 and as float32.

--large also searches a file of 1,000,000 rows (2 GB for 512 dimensions, in --folder) in a process of its own. It
reports what the search adds to that process's peak memory, the (Q, k) result included. The descriptors are made up from
one seed. CPU times add up all cores, waiting in busy loops included; on a machine with other work they vary less than
the wall clock.
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

import numpy as np
from rows import add_save, save

from ultron_cli.machine import cpu_name, n_cores, peak_mib
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import RankedRows

LARGE_ROWS, BLOCK_ROWS = 1_000_000, 20_000


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


def search_file(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time and memory of searching a descriptor file, after a warm-up that loads the libraries."""
    rng = np.random.default_rng(options.seed + 1)
    queries = unit_rows(rng, options.queries, options.dim)
    exact_search(queries, unit_rows(rng, 4096, options.dim), min(options.k, 4096), device=options.device)
    before = peak_mib()
    with DescriptorFile(path) as database:
        start = time.perf_counter()
        ranking = exact_search(queries, database, options.k, device=options.device)
        seconds = time.perf_counter() - start
    result_mib = (ranking.rows.nbytes + ranking.scores.nbytes) / 2**20
    return {"seconds": seconds, "added_mib": peak_mib() - before, "peak_mib": peak_mib(), "result_mib": result_mib}


def run_large(options: argparse.Namespace) -> dict[str, float]:
    """Writes a large descriptor file and searches it in a child process."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "database.h5"
        rng = np.random.default_rng(options.seed)
        blocks: Iterator[np.ndarray] = (
            unit_rows(rng, BLOCK_ROWS, options.dim) for _ in range(LARGE_ROWS // BLOCK_ROWS)
        )
        info = DescriptorInfo(
            model="none", weights_sha256="", dataset="made-up", role="database", crop="none", scales=[1.0]
        )
        print(f"writing {LARGE_ROWS:,} rows to {path} ...", file=sys.stderr, flush=True)
        write_descriptors(path, [str(row) for row in range(LARGE_ROWS)], blocks, options.dim, info)
        command = [
            sys.executable,
            __file__,
            "--file",
            path,
            "--dim",
            options.dim,
            "--queries",
            options.queries,
            "-k",
            options.k,
        ]
        command += ["--seed", options.seed, "--device", options.device]
        return json.loads(
            subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True).stdout
        )


def search_of_files(
    folder: Path, database: np.ndarray, queries: np.ndarray, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
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
            if not (np.array_equal(ranked.rows, reference.rows) and np.array_equal(ranked.scores, reference.scores)):
                raise SystemExit(f"search of a {storage} file differs from the literal reference: no times are given")
            sides[f"{storage} file"] = side
        return timed(sides, options.runs)


def timed(sides: dict[str, Callable[[], object]], runs: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each side, and seconds of CPU, all sides in turns."""
    times_s: dict[str, list[float]] = {name: [] for name in sides}
    cpu_s: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            side()
            times_s[name].append(time.perf_counter() - start)
            cpu_s[name].append(time.process_time() - start_cpu)
    return times_s, cpu_s


def row_of(times_s: dict[str, list[float]], cpu_s: dict[str, list[float]], of: str) -> Measurement:
    """Prints the sides that `timed` timed, of which the first is ours, and gives their row."""
    print(f"{'':22}{'runs':>5}{'median ms':>11}{'min':>9}{'max':>9}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}", flush=True)
    ours = next(iter(times_s))
    our_s, our_cpu_s = statistics.median(times_s[ours]), statistics.median(cpu_s[ours])
    for name, seconds in times_s.items():
        median_s, median_cpu_s = statistics.median(seconds), statistics.median(cpu_s[name])
        spread = f"{median_s * 1e3:11.1f}{min(seconds) * 1e3:9.1f}{max(seconds) * 1e3:9.1f}{median_s / our_s:7.2f}x"
        print(
            f"{name:22}{len(seconds):5}{spread}{median_cpu_s * 1e3:10.1f}{median_cpu_s / our_cpu_s:7.2f}x", flush=True
        )
    ms = {name: [1e3 * s for s in seconds] for name, seconds in times_s.items()}
    return Measurement.of_rounds(
        ms.pop(ours),
        unit="ms",
        of=of,
        note=f"{1e3 * our_cpu_s:.0f} ms of CPU",
        others=ms,
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
    parser.add_argument(
        "--large", action="store_true", help=f"also search a file of {LARGE_ROWS:,} rows and report peak memory"
    )
    parser.add_argument("--folder", type=Path, help="where --large writes its file (the system's temporary folder)")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # the child process of --large
    add_save(parser)
    options = parser.parse_args()
    options.runs = max(5, options.runs)
    return options


def main() -> int:
    options = parse_options()
    if options.file:
        print(json.dumps(search_file(options.file, options)))
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
    exact, (_, faiss_rows), _ = (side() for side in sides.values())  # also the warm-up
    reference = literal_search(queries, database, options.k)
    if not (np.array_equal(exact.rows, reference.rows) and np.array_equal(exact.scores, reference.scores)):
        print("exact_search differs from the literal reference: no times are given", file=sys.stderr)
        return 1
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
    rows = {"exact search": row_of(times_s, cpu_s, f"{options.rows:,} x {options.dim} float32 in memory, {of}")}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        times_s, cpu_s = search_of_files(Path(folder), database, queries, options)
    rows["exact search of a file"] = row_of(times_s, cpu_s, f"{options.rows:,} x {options.dim} from a file, {of}")
    save(options.save, __file__, rows, options.device)
    if options.large:
        large = run_large(options)
        print(
            f"\n{LARGE_ROWS:,} x {options.dim} float32 from a file: {large['seconds']:.2f} s; the search adds "
            f"{large['added_mib']:.0f} MiB "
            f"to the peak (result {large['result_mib']:.1f} MiB), process peak {large['peak_mib']:.0f} MiB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
