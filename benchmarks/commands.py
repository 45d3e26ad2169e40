"""Commands as whole processes: how soon help answers, and how long commands on stored descriptors take.

    python benchmarks/commands.py [--rounds 5] [--rows 5000] [--dim 2048] [--only help search ...]

Help is that of `ultron` and of every command; the slowest counts, and it must show the command's example. The other
commands work on made-up descriptors with a made-up ground truth. Before they are timed, the ranking that `ultron
search` wrote must have the rows of the whole product in float64, and what `ultron evaluate` wrote the mAP of that
ranking. The exit code is 1 if a help takes half a second or more, or a command two seconds or more. Of each process the
CPU seconds stand beside the wall clock; they tell more on a machine with other work. The limit of a command is a
process that imports what the command imported and ends.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evaluate import rendered_truth
from limits import seconds_of
from rows import add_save, save
from search import literal_search, unit_rows

from ultron_cli.cli import COMMANDS
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth
from ultron_cli.evaluation.metrics import revisited_map
from ultron_cli.files import write_text
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import DescriptorProvenance
from ultron_cli.retrieval.rankings import read_ranks

HELP_LIMIT_S, LIMIT_S = 0.5, 2.0
FILES = "--queries queries.h5 --database database.h5"
# In their order: some read what an earlier one wrote.
WORK = {
    "search": f"search {FILES} -k 100 --out ranks.h5",
    "search, all photos": f"search {FILES} -k 1000000 --out all.h5",
    "search, all photos as JSON": f"search {FILES} -k 1000000 --out all.h5 --json",
    "search, superglobal": f"search {FILES} -k 100 --rerank superglobal --out superglobal.h5",
    "evaluate": f"evaluate {FILES} --gnd gnd.json --out exact.json",
    "evaluate of ranks": "evaluate --ranks all.h5 --gnd gnd.json --out ranks.json",
    "compare": "compare exact.json ranks.json",
    "whiten": "whiten database.h5 --out whitening.h5",
    "index": "index database.h5 --out flat.index --overwrite",
    "index, ivf": "index database.h5 --type ivf --out ivf.index --overwrite",
    "search, ivf": f"search {FILES} --index ivf.index -k 100 --out ivf.h5",
    "fuse": "fuse all.h5 ranks.h5 -k 100 --out fused.h5",
    "ranks info": "ranks info all.h5",
    "ranks export": "ranks export all.h5 --format trec --out all.trec",
    "ranks import": "ranks import all.trec --database database.h5 --queries queries.h5 --out imported.h5",
    "visualize precision-recall": "visualize precision-recall --ranks all.h5 --out curves.png",
    "weights list": "weights list",
    "datasets list": "datasets list",
}
CHECKED = ("search, all photos", "evaluate", "evaluate of ranks")
Run = tuple[float, float, str]  # wall seconds, CPU seconds, stdout
LIBRARIES = "Python and its libraries alone"
# Runs a command and says which modules it left; those that no import statement names are left out.
RECORDED = """
import sys
from ultron_cli.cli import main
main(sys.argv[1:])
specs = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
print()
print(*(name for name, spec in specs.items() if getattr(spec, "name", None) == name))
"""
IMPORTED = """
import importlib, sys
for name in sys.stdin.read().split():
    importlib.import_module(name)
"""


def timed(arguments: Sequence[str], folder: Path) -> Run:
    """Of `ultron ARGUMENTS` in a folder."""
    before, started_s = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "ultron_cli", *arguments]
    done = subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds, after = time.perf_counter() - started_s, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu_s, done.stdout


def modules_of(arguments: Sequence[str], folder: Path) -> str:
    """What `ultron ARGUMENTS` imports, in its order, with spaces between."""
    command = [sys.executable, "-c", RECORDED, *arguments]
    done = subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.splitlines()[-1]


def imports_alone(modules: str, folder: Path) -> float:
    """Seconds of a process that imports modules and ends."""
    command = [sys.executable, "-c", IMPORTED]
    return seconds_of(lambda: subprocess.run(command, check=True, cwd=folder, input=modules, text=True))


def beside_imports(arguments: Sequence[str], folder: Path, rounds: int) -> tuple[list[Run], list[float]]:
    """What `timed` gives of `ultron ARGUMENTS`, and in turns with it seconds of importing what it imports."""
    modules = modules_of(arguments, folder)
    runs, import_s = [], []
    for _ in range(rounds):
        runs.append(timed(arguments, folder))
        import_s.append(imports_alone(modules, folder))
    return runs, import_s


def row_of(runs: Sequence[Run], of: str, equality: str, limits: dict[str, list[float]] | None = None) -> Measurement:
    """The row that is kept of the runs of one command."""
    cpu_s = statistics.median(cpu for _, cpu, _ in runs)
    seconds = [wall for wall, _, _ in runs]
    note = f"{cpu_s:.2f} s of CPU"
    return Measurement.of_rounds(seconds, unit="s", of=of, note=note, limits=limits, equality=equality)


def arithmetic_of_whiten(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of what no whitening does without: LAPACK's eigenvectors of the covariance of the database."""
    with DescriptorFile(folder / "database.h5") as database:
        rows = database.read().astype(np.float64)
    covariance = np.cov(rows, rowvar=False, bias=True)
    return {"eigenvectors alone": [seconds_of(lambda: np.linalg.eigh(covariance)) for _ in range(rounds)]}


def measure_help(rounds: int, folder: Path) -> Measurement:
    """Of the slowest help. Raises SystemExit for one without an example."""
    runs_of: dict[str, list[Run]] = {}
    for command in ("", *COMMANDS):
        runs = [timed([*command.split(), "--help"], folder) for _ in range(rounds)]
        if command and "Example:" not in runs[0][2]:
            sys.exit(f"ultron {command} --help shows no example: no times are given")
        runs_of[command] = runs
        print(f"{f'{command} --help':<28} {row_of(runs, command, '')} s", flush=True)
    slowest = max(runs_of, key=lambda command: statistics.median(wall for wall, _, _ in runs_of[command]))
    runs, import_s = beside_imports([*slowest.split(), "--help"], folder, rounds)
    of = f"the slowest of {len(runs_of)}: ultron {slowest}"
    return row_of(runs, of, "each shows its example", {LIBRARIES: import_s})


def make_files(folder: Path, options: argparse.Namespace) -> GroundTruth:
    """Writes queries.h5, database.h5 and gnd.json. Returns the ground truth."""
    rng = np.random.default_rng(0)
    truth = rendered_truth(options.queries, options.rows, rng)
    gnd = [{label: getattr(query, label).tolist() for label in ("easy", "hard", "junk")} for query in truth.queries]
    write_text(
        folder / "gnd.json",
        json.dumps(
            {
                "imlist": truth.database_names,
                "qimlist": truth.query_names,
                "gnd": [{"bbx": [0, 0, 9, 9], **labels} for labels in gnd],
            }
        ),
    )
    for role, names in (("query", truth.query_names), ("database", truth.database_names)):
        info = DescriptorInfo(
            model="none",
            weights_sha256="",
            dataset="made-up",
            role=role,
            crop="none",
            scales=[1.0],
            provenance=DescriptorProvenance(dataset_folder=str(folder), ground_truth=str(folder / "gnd.json")),
        )
        path = folder / ("queries.h5" if role == "query" else "database.h5")
        write_descriptors(path, names, [unit_rows(rng, len(names), options.dim)], options.dim, info)
    return truth


def check(folder: Path, truth: GroundTruth) -> None:
    """Raises SystemExit where what search and evaluate wrote is not what a literal computation gives."""
    with DescriptorFile(folder / "queries.h5") as queries, DescriptorFile(folder / "database.h5") as database:
        expected = literal_search(queries.read(), database.read(), database.n)
    ranks = read_ranks(folder / "all.h5")
    if not (np.array_equal(ranks.rows, expected.rows) and np.array_equal(ranks.scores, expected.scores)):
        sys.exit("search differs from the literal product: no times are given")
    stored = json.loads((folder / "ranks.json").read_text())["protocols"]
    exact = json.loads((folder / "exact.json").read_text())["protocols"]
    if any(revisited_map(expected.rows, truth, name).mAP != stored[name]["mAP"] for name in PROTOCOLS):
        sys.exit("evaluate differs from the mAP of the literal ranking: no times are given")
    if stored != exact:
        sys.exit("evaluate of descriptors differs from that of their ranking: no times are given")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 5), ("rows", 5000), ("dim", 2048), ("queries", 70)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=["help", *WORK], metavar="COMMAND", help="some of them (all)")
    add_save(parser)
    options = parser.parse_args()
    measured_names = options.only or ["help", *WORK]
    measurements: dict[str, Measurement] = {}
    is_slow = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled to bytecode once
        os.environ |= {"ULTRON_WORKSPACE": str(folder / "runs"), "ULTRON_DATA": str(folder / "data")}
        if "help" in measured_names:
            measurements["--help"] = measure_help(options.rounds, folder)
            is_slow |= (measurements["--help"].value or 0.0) >= HELP_LIMIT_S
        truth = make_files(folder, options)
        for name, line in WORK.items():  # also the warm-up
            if name in CHECKED or name in measured_names:
                timed(line.split(), folder)
        check(folder, truth)
        of = f"{options.queries} queries, {options.rows:,} x {options.dim}, as a process"
        equality = "rows and scores, to the literal float64 product; mAP, to that of its ranking"
        for name in filter(measured_names.__contains__, WORK):
            runs, import_s = beside_imports(WORK[name].split(), folder, options.rounds)
            limits = {LIBRARIES: import_s}
            if name == "whiten":
                limits |= arithmetic_of_whiten(folder, options.rounds)
            row = row_of(runs, of, equality, limits)
            measurements[f"ultron {name}"] = row
            is_slow |= (row.value or 0.0) >= LIMIT_S
            beside = "".join(f"; {title} {side} s" for title, side in row.limits.items())
            print(f"{name:<28} {row} s, {row.note}{beside}", flush=True)
    save(options.save, __file__, measurements)
    return 1 if is_slow else 0


if __name__ == "__main__":
    sys.exit(main())
