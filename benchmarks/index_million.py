"""Approximate indexes of a million descriptors: memory, time to build, recall@100 and speed against exact search.

    python benchmarks/index_million.py [--n 1000000] [--dim 512] [--queries 100] [--kinds ivfpq]
                                       [--nprobe 4 8 16 ...] [--rescore 3 10]
    python benchmarks/index_million.py --commands --n 2000000 --dim 256 --kinds sq8 ivfpq

Everything goes through the project's own functions. Descriptors are streamed into a descriptor file (in --folder, 2
GB). build_index reads it in blocks, Index.search re-scores from it and exact_search reads the whole of it. Each index
is built in one process and searched in another, so that each peak of memory belongs to one of them. The peak counts the
pages of the file that re-scoring has mapped.

Exact search and every setting of the index get the same queries in the same process, all in one call, in turns. A
warm-up comes first, and the median of --runs counts. CPU time adds up all threads; on a machine with other work its
ratio is steadier. Then queries are asked one at a time, for which exact search reads the file each time. The target is
met where a setting has a recall@100 of 0.9 or more at 20 times the speed of exact search or more, all queries in one
call, and no peak is over 3 GiB. Otherwise the exit code is 1.

The descriptors are made up (seed 0) to be as hard as those of landmarks. Directions are not equally strong: variances
fall as 1 / (10 + i), as eigenvalues of real descriptors do, behind a random rotation that hides them from codes and
cells. Two unrelated photos have a similarity of 0 +- 0.08. There are N / 500 themes (a style, a kind of scene) and N /
10 landmarks. The number of photos per landmark follows a log-normal law of mean 10. Of a photo's squared length, 35 %
are its theme's, 30 % its landmark's, 15 % those of one of the landmark's 3 views, and 20 % are noise. Similarities are
therefore about 0.8 in the same view, 0.65 across views and 0.35 within a theme. So a query's ten photos or so are
followed by the best of some 500 of its theme. No two of these differ by much, and the 100th of the top 100 is one of
them. Queries are further photos, which the database does not have. Rows are in random order. --shares 0.25 0.25 0.25
0.25 makes a harder set: a theme is then hardly stronger than chance, so that the last of the top 100 are strangers from
anywhere.

With --commands the commands themselves run instead, each in a process that cannot have more than 3 GiB of memory of its
own (RLIMIT_DATA: pages of mapped files are not of its own): `ultron search` exactly, `ultron evaluate` exactly with all
photos ranked, with 1,000, and with all but the queries left out, and for each of --kinds `ultron index`, and `search`
and `evaluate` by it. The exit code is 1 if a command fails or its peak, which counts mapped pages too, is over 3 GiB.
"""

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import add_save, save

from ultron_cli.blocks import chunks
from ultron_cli.console import log, start_log, table
from ultron_cli.machine import cpu_name, n_cores, peak_mib
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.building import build_index, bytes_per_photo
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.index.report import recall_at
from ultron_cli.retrieval.origin import ExtractionRecord

K, TARGET_RECALL, TARGET_SPEEDUP, MOST_MIB = 100, 0.9, 20.0, 3 * 1024
BLOCK_ROWS, N_VIEWS, ONE_BY_ONE = 20_000, 3, 5
SHARES = (0.35, 0.30, 0.15, 0.20)  # of a photo's squared length: theme, landmark, view, noise


class Landmarks:
    """Landmarks that are made up; `rows` draws photos of them. All vectors are rows of (n, D) float32."""

    def __init__(self, n: int, dim: int, seed: int, shares: Sequence[float] = SHARES) -> None:
        self.lengths = np.sqrt(np.array(shares, np.float32))
        rng = self.rng = np.random.default_rng(seed)
        scale = (1.0 / (10 + np.arange(dim))) ** 0.5
        self.scale = (scale / np.linalg.norm(scale)).astype(np.float32)  # a drawn vector is then about 1 long
        self.rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
        n_landmarks, self.n_themes = max(1, n // 10), max(1, n // 500)
        self.themes, self.landmarks = self._drawn(self.n_themes), self._drawn(n_landmarks)
        self.theme_of = rng.integers(0, self.n_themes, n_landmarks)
        # exp(N(-s^2/2, s)) has mean 1; a photo's landmark is drawn accordingly.
        popularity = rng.lognormal(-0.5, 1.0, n_landmarks)
        self.popularity = popularity / popularity.sum()
        self.landmark_of_row = rng.choice(n_landmarks, n, p=self.popularity)

    def _drawn(self, n: int) -> np.ndarray:
        return self.rng.standard_normal((n, len(self.scale)), dtype=np.float32) * self.scale

    def _views(self, landmark_numbers: np.ndarray) -> np.ndarray:
        """A view of each landmark, one of its N_VIEWS. Vectors of other landmarks serve as views, so that none has to
        be stored for them."""
        view = self.rng.integers(1, N_VIEWS + 1, len(landmark_numbers))
        return self.landmarks[(landmark_numbers + view * 7919) % len(self.landmarks)]

    def rows(self, landmark_numbers: np.ndarray) -> np.ndarray:
        """(n, D) float32 unit rows: a photo of each of the landmarks. landmark_numbers: (n,), which may repeat."""
        theme, landmark, view, noise = self.lengths
        photo = theme * self.themes[self.theme_of[landmark_numbers]] + landmark * self.landmarks[landmark_numbers]
        photo += view * self._views(landmark_numbers) + noise * self._drawn(len(landmark_numbers))
        photo = photo @ self.rotation
        return photo / np.linalg.norm(photo, axis=1, keepdims=True)

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows of the database, block by block."""
        for start, stop in chunks(len(self.landmark_of_row), BLOCK_ROWS):
            yield self.rows(self.landmark_of_row[start:stop])

    def query_landmarks(self, n: int) -> np.ndarray:
        """(n,) landmarks of further photos, drawn as those of the database are."""
        return self.rng.choice(len(self.landmarks), n, p=self.popularity)


def write_files(options: argparse.Namespace, folder: Path) -> None:
    """Writes database.h5, queries.h5 and gnd.json into the folder."""
    made_up = Landmarks(options.n, options.dim, options.seed, options.shares)
    names = {
        "database": [f"{row % 1000:03d}/{row:08d}" for row in range(options.n)],
        "query": [f"query/{row:08d}" for row in range(options.queries)],
    }
    query_landmarks = np.empty(0, np.int64)
    for role in names:
        if role == "database":
            blocks = made_up.blocks()
        else:
            query_landmarks = made_up.query_landmarks(options.queries)
            blocks = [made_up.rows(query_landmarks)]
        info = DescriptorInfo(
            model="none",
            weights_sha256="",
            extraction=ExtractionRecord(stored={"storage": options.storage}),
            dataset="made-up",
            role=role,
            crop="none",
            scales=[1.0],
        )
        stored = (block.astype(options.storage, copy=False) for block in blocks)
        path = folder / ("queries.h5" if role == "query" else "database.h5")
        write_descriptors(path, names[role], stored, options.dim, info)
    photos = [np.flatnonzero(made_up.landmark_of_row == landmark).tolist() for landmark in query_landmarks]
    truth = [{"bbx": None, "easy": rows[::2], "hard": rows[1::2], "junk": []} for rows in photos]
    content = {"imlist": names["database"], "qimlist": names["query"], "gnd": truth}
    (folder / "gnd.json").write_text(json.dumps(content), encoding="utf-8")


def in_turns(sides: Sequence[Callable[[], Any]], runs: int) -> tuple[list[Any], np.ndarray]:
    """Runs the sides in turns. Returns the results of the warm-up, and (2, sides) median seconds of the runs after it,
    by the wall clock and of the CPU."""
    results, seconds = [side() for side in sides], np.empty((2, runs, len(sides)))
    for run in range(runs):
        for i, side in enumerate(sides):
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            side()
            seconds[:, run, i] = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return results, np.median(seconds, axis=1)


def build(kind: str, folder: Path) -> dict[str, Any]:
    """Builds one index. Returns its time, its size and this process's peak memory."""
    started_s = time.perf_counter()
    built = build_index(folder / "database.h5", folder / f"{kind}.index", kind, overwrite=True)
    seconds, per_photo = time.perf_counter() - started_s, bytes_per_photo(built.faiss_index, built.dim)
    return {
        "build_s": seconds,
        "build_mib": peak_mib(),
        "factory": built.factory,
        "bytes_per_photo": per_photo,
        "settings": vars(built.settings),
    }


def search(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Recall and speed of every setting against exact search in this same process, and the process's peak memory."""
    with DescriptorFile(folder / "database.h5") as database, DescriptorFile(folder / "queries.h5") as query_file:
        queries, index = query_file.read(), open_index(folder / f"{kind}.index")
        expected = exact_search(queries, database, K)
        exact_mib, single = peak_mib(), queries[:ONE_BY_ONE]
        settings = [
            SearchSettings(nprobe=nprobe, rescore=rescore) for rescore in options.rescore for nprobe in options.nprobe
        ]
        finders: list[Callable[[np.ndarray], Any]] = [lambda some_queries: exact_search(some_queries, database, K)]
        finders += [functools.partial(index.search, k=K, settings=setting) for setting in settings]
        rankings, seconds = in_turns([functools.partial(find, queries) for find in finders], options.runs)
        _, single_s = in_turns([functools.partial(_one_at_a_time, find, single) for find in finders], 1)
    rows = [
        {
            "nprobe": setting.nprobe,
            "rescore": setting.rescore,
            "recall": recall_at(rankings[i].rows, expected.rows, K),
            "queries_per_s": len(queries) / seconds[0, i],
            "speedup": seconds[0, 0] / seconds[0, i],
            "cpu_ms": 1e3 * seconds[1, i] / len(queries),
            "cpu_speedup": seconds[1, 0] / seconds[1, i],
            "single_ms": 1e3 * single_s[0, i] / len(single),
        }
        for i, setting in enumerate(settings, start=1)
    ]
    exact = {
        "queries_per_s": len(queries) / seconds[0, 0],
        "cpu_ms": 1e3 * seconds[1, 0] / len(queries),
        "single_ms": 1e3 * single_s[0, 0] / len(single),
        "mib": exact_mib,
        "scores": [float(np.median(expected.scores[:, rank - 1])) for rank in (1, 10, K)],
    }
    return {"exact": exact, "rows": rows, "search_mib": peak_mib()}


def _one_at_a_time(find: Callable[[np.ndarray], Any], queries: np.ndarray) -> None:
    for i in range(len(queries)):
        find(queries[i : i + 1])


def in_child(step: str, kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs build or search in a process of its own, whose peak memory is then its own."""
    command = [
        sys.executable,
        __file__,
        "--step",
        step,
        "--folder",
        folder,
        "--kinds",
        kind,
        "--runs",
        options.runs,
        "--nprobe",
        *options.nprobe,
    ]
    command += ["--rescore", *options.rescore]
    return json.loads(
        subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True).stdout
    )


# Runs a command with as much memory as its first argument says, and prints its peak in MiB as the last line.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
from ultron_cli.cli import main
from ultron_cli.machine import peak_mib
code = main(sys.argv[2:])
print(peak_mib())
sys.exit(code)
"""


def commands_of(kinds: Sequence[str], folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(what it is, its arguments) of every command that is measured."""
    database, gnd = folder / "database.h5", folder / "gnd.json"
    exactly = ["--queries", folder / "queries.h5", "--database", database]

    def command(title: str, *arguments: object) -> tuple[str, list[str]]:
        return title, [str(argument) for argument in arguments]

    yield command("search, exact", "search", *exactly, "-k", K, "--out", folder / "ranks.h5")
    score = ["evaluate", *exactly, "--gnd", gnd, "--out", folder / "evaluation.json"]
    yield command("evaluate, exact, all ranked", *score)
    yield command("evaluate, exact, 1,000 ranked", *score, "-k", 1000)
    yield command("evaluate, all ranked, queries left out", *score, "--leave-out-queries")
    yield command("evaluate, rank file", "evaluate", "--ranks", folder / "ranks.h5", *score[5:])
    for kind in kinds:
        index = folder / f"{kind}.index"
        yield command(f"index, {kind}", "index", database, "--type", kind, "--out", index, "--overwrite")
        by_index = ["--index", index, "-k", K]
        yield command(f"search, {kind}", "search", *exactly, *by_index, "--out", folder / f"{kind}.h5")
        yield command(f"evaluate, {kind}", *score, *by_index)


def measure_commands(options: argparse.Namespace, folder: Path) -> bool:
    """Prints seconds and peak memory of every command. Returns whether all were done within MOST_MIB."""
    print(f"{'':<40}{'s':>8}{'peak, MiB':>11}")
    is_well = True
    for title, arguments in commands_of(options.kinds, folder):
        if options.only and not any(words in title for words in options.only):
            continue
        started_s = time.perf_counter()
        python = [sys.executable, "-c", LIMITED, str(MOST_MIB << 20)]
        completed = subprocess.run([*python, *arguments, "--workspace", str(folder)], capture_output=True, text=True)
        seconds = time.perf_counter() - started_s
        mib = float(completed.stdout.splitlines()[-1]) if completed.stdout else float("nan")
        print(f"{title:<40}{seconds:>8.1f}{mib:>11,.0f}", flush=True)
        if completed.returncode:
            print(f"  failed: {completed.stderr.strip()[-2000:]}", flush=True)
        is_well &= completed.returncode == 0 and mib <= MOST_MIB
    return is_well


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="database rows (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="dimensions (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", default=["ivfpq"], help="kinds of index, or Faiss factory strings (default: %(default)s)"
    )
    parser.add_argument("--nprobe", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], help="(default: %(default)s)")
    parser.add_argument(
        "--rescore",
        type=int,
        nargs="+",
        default=[3, 10],
        help="times k candidates are re-scored (default: %(default)s)",
    )
    parser.add_argument(
        "--storage",
        choices=("float32", "float16"),
        default="float32",
        help="number type in the file (default: %(default)s)",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs=4,
        default=SHARES,
        metavar=("THEME", "LANDMARK", "VIEW", "NOISE"),
        help="(default: %(default)s)",
    )
    parser.add_argument("--runs", type=int, default=3, help="timed runs after the warm-up (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the files are made and deleted again (the system's temporary folder)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the descriptor files in --folder, and use those that are there"
    )
    parser.add_argument("--commands", action="store_true", help="measure the commands, within 3 GiB each")
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="of --commands, those whose title has such words")
    add_save(parser)
    parser.add_argument("--step", choices=("build", "search"), help=argparse.SUPPRESS)  # a child process
    return parser.parse_args()


def report(kind: str, built: dict[str, Any], searched: dict[str, Any]) -> bool:
    """Prints one index's table. Returns whether it met the target."""
    exact, columns = (
        searched["exact"],
        ("nprobe", "re-scored", f"recall@{K}", "queries/s", "exact", "CPU ms/query", "exact", "one at a time, ms"),
    )
    body = [
        (
            "exact",
            "",
            "1.000",
            f"{exact['queries_per_s']:.1f}",
            "1.0x",
            f"{exact['cpu_ms']:.2f}",
            "1.0x",
            f"{exact['single_ms']:,.1f}",
        )
    ]
    body += [
        (
            str(row["nprobe"]),
            f"{row['rescore']} x k",
            f"{row['recall']:.3f}",
            f"{row['queries_per_s']:,.0f}",
            f"{row['speedup']:.1f}x",
            f"{row['cpu_ms']:.2f}",
            f"{row['cpu_speedup']:.1f}x",
            f"{row['single_ms']:.1f}",
        )
        for row in searched["rows"]
    ]
    print(f"\n{kind}: {built['factory']}, {built['bytes_per_photo']:.0f} bytes per photo")
    print(f"built in {built['build_s']:.0f} s, peak {built['build_mib']:,.0f} MiB")
    print(
        f"searching: peak {searched['search_mib']:,.0f} MiB (exact search alone {exact['mib']:,.0f}); "
        f"median similarity of the 1st, 10th and {K}th photo {', '.join(f'{score:.2f}' for score in exact['scores'])}"
    )
    print(table(columns, body, left=0), flush=True)
    fast = any(row["recall"] >= TARGET_RECALL and row["speedup"] >= TARGET_SPEEDUP for row in searched["rows"])
    return fast and max(built["build_mib"], searched["search_mib"]) <= MOST_MIB


def rows_of(kind: str, searched: dict[str, Any], options: argparse.Namespace) -> dict[str, Measurement]:
    """The rows of one index that are kept, one of each setting."""
    return {
        f"{kind}, nprobe {row['nprobe']}, {row['rescore']} x k re-scored": Measurement.of_rounds(
            [row["queries_per_s"]],
            unit="queries/s",
            of=f"{options.n:,} x {options.dim} {options.storage} in a file, {options.queries} queries, k {K}",
            others={"exact search": [searched["exact"]["queries_per_s"]]},
            equality=f"recall@{K} of exact search {row['recall']:.3f}",
        )
        for row in searched["rows"]
    }


def main() -> int:
    options = parse_options()
    start_log(0)
    if options.step:
        step = (
            build(options.kinds[0], options.folder)
            if options.step == "build"
            else search(options.kinds[0], options.folder, options)
        )
        print(json.dumps(step))
        return 0
    import faiss
    import torch

    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder if options.keep and options.folder else Path(temporary)
        if not (folder / "queries.h5").exists():
            log.info("writing %d x %d to %s", options.n, options.dim, folder)
            write_files(options, folder)
        print(
            f"{options.n:,} x {options.dim} {options.storage} in a file, {options.queries} queries, k {K}, "
            f"seed {options.seed}, median of {options.runs}"
        )
        versions = (
            f"python {platform.python_version()}, torch {torch.__version__}, faiss {faiss.__version__}, load "
            f"average {os.getloadavg()[0]:.1f}"
        )
        print(
            f"{cpu_name()}, {n_cores()} cores, threads: torch {torch.get_num_threads()}, faiss "
            f"{faiss.omp_get_max_threads()}; {versions}",
            flush=True,
        )
        if options.commands:
            is_well = measure_commands(options, folder)
            print(f"\ntarget: every command done within {MOST_MIB:,} MiB: {'met' if is_well else 'missed'}")
            return 0 if is_well else 1
        met, measurements = [], {}
        for kind in options.kinds:
            built, searched = (in_child(step, kind, folder, options) for step in ("build", "search"))
            met.append(report(kind, built, searched))
            measurements |= rows_of(kind, searched, options)
        save(options.save, __file__, measurements)
    target = f"recall@{K} of {TARGET_RECALL} at {TARGET_SPEEDUP:.0f} times exact search, within {MOST_MIB:,} MiB"
    verdicts = [f"{kind} {'met' if is_met else 'missed'}" for kind, is_met in zip(options.kinds, met, strict=True)]
    print(f"\n{target}: {', '.join(verdicts)}")
    return 0 if any(met) else 1


if __name__ == "__main__":
    sys.exit(main())
