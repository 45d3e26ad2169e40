"""The table of docs/performance.md, from the rows that the benchmarks keep (rows.py).

    python benchmarks/performance.py [RESULTS.json ...]      prints it (the newest of benchmarks/results)
    python benchmarks/performance.py --measure --write docs/performance.md      measures all of it first (an hour)
    python benchmarks/performance.py --measure --short --write docs/performance.md     smaller sizes (a quarter of it)

A benchmark's rows are kept as soon as it ends. The same command goes on where it was stopped: what the file of this
machine and commit has is not measured again, unless --again asks for it. The table is written at the end.

Each row has our median, what a user would take instead and what the machine allows, from one run on one machine. What
none of the files has is `not measured`.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rows import RESULTS, results_path

from ultron_cli.console import markdown_table
from ultron_cli.errors import UltronError
from ultron_cli.files import replace_between
from ultron_cli.measurements import Measurement, Results, Spread, machine_text, number_text, read_results

BEGIN, END = "<!-- begin: benchmarks/performance.py -->", "<!-- end: benchmarks/performance.py -->"
# In the order of the table: a benchmark, its arguments, and those of its short form, which has as many rounds.
BENCHMARKS = {
    "extract": ("", "--scales 3 --n-photos 48"),
    "commands": ("", "--only search evaluate compare whiten index fuse 'ranks info' 'ranks export' 'ranks import'"),
    "search": ("--large", "--large --runs 5"),
    "evaluate": ("", "--rows 505000"),
    "rerank": ("", ""),
    "local": ("", "--landmarks 4 --pairs 60"),
    "diffusion": ("", ""),
    "kernels": ("", "--runs 9"),
    "runtimes": ("", ""),
    "train": ("--rounds 5", "--rounds 5 --n-photos 24 --share-epochs 0"),
}
ON_A_GPU = {"kernels": "--device cuda", "gpu_networks": ""}
NOT_MEASURED = "not measured"
COLUMNS = ("what", "ours", "instead", "limit of the machine", "seen to be equal")


def measure(options: argparse.Namespace) -> None:
    """Runs benchmarks, each in a process of its own, and keeps their rows, those of a missed target too. Those that the
    file of this machine and commit has are left out, unless they are asked for again."""
    path = results_path(options.results)
    measured = set()
    if path.is_file() and not options.again:
        measured = {row.benchmark for row in read_results(path).results.values()}
    for name in options.only or BENCHMARKS:
        arguments = BENCHMARKS[name][1 if options.short else 0]
        print(f"== {name} {arguments}", file=sys.stderr, flush=True)
        if name in measured:
            print(f"is in {path} already; --again measures it anew", file=sys.stderr)
            continue
        program = str(Path(__file__).with_name(f"{name}.py"))
        before, started_s = os.times(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, program, *shlex.split(arguments), "--save", os.path.relpath(options.results)]
        )
        seconds, after = time.perf_counter() - started_s, os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        print(
            f"{name}: {seconds:.0f} s, {cpu_s:.0f} s of CPU, exit code {done.returncode}", file=sys.stderr, flush=True
        )


def cell(sides: Mapping[str, Spread], row: Measurement, *, as_share: bool) -> str:
    """The other sides of a row, each with our speed against it: `12.3x`, or as a share of a limit."""
    texts = []
    for name, side in sides.items():
        gain = row.gain_over(side)
        ratio = "" if gain is None else f": {gain:.0%}" if as_share else f": {gain:.2f}x"
        texts.append(f"{name} {number_text(side.value)}{ratio}")
    return "; ".join(texts)


def last_files(files: Sequence[Results]) -> dict[tuple[str, bool], Results]:
    """The last file that has a benchmark, by its name and whether it ran on a GPU."""
    return {
        (row.benchmark, bool(results.machine.get("gpu"))): results
        for results in files
        for row in results.results.values()
    }


def rows_of(files: Sequence[Results]) -> list[list[str]]:
    """The rows of the table, those of a benchmark from the last of the files that has it."""
    file_of, table = last_files(files), []
    for names, on_gpu in ((BENCHMARKS, False), (ON_A_GPU, True)):
        for name in names:
            results = file_of.get((name, on_gpu), Results(results={}))
            measured = [(title, row) for title, row in results.results.items() if row.benchmark == name]
            place = " on a GPU" if on_gpu else ""
            for title, row in measured:
                what = f"{title}{place}: {row.of}"
                ours = f"{row!s} {row.unit}"
                others, limits = cell(row.others, row, as_share=False), cell(row.limits, row, as_share=True)
                table.append([what, ours, others, limits, row.equality])
            if not measured:
                table.append([f"`{name}.py`{place}", NOT_MEASURED, "", "", ""])
    return table


def notes_of(files: Sequence[Results]) -> list[str]:
    """Of each file, which benchmarks the table has of it, and when and where they were measured."""
    file_of, notes = last_files(files), []
    for results in files:
        commit = str(results.machine.get("git_commit", "none"))[:12]
        names = ", ".join(name for (name, _), of_name in file_of.items() if of_name is results)
        day = str(results.machine.get("created"))[:10]
        notes.append(f"{day}, commit {commit} ({names}): {machine_text(results.machine)}.")
    return notes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files_help = "rows of a benchmark are of the last file that has it (default: the newest of each machine)"
    parser.add_argument("files", type=Path, nargs="*", metavar="RESULTS.json", help=files_help)
    parser.add_argument("--measure", action="store_true", help="run the benchmarks first; an hour of a quiet machine")
    parser.add_argument("--short", action="store_true", help="with --measure: smaller sizes, a quarter of an hour")
    parser.add_argument("--only", nargs="*", choices=list(BENCHMARKS), help="with --measure: some of them (all)")
    parser.add_argument("--again", action="store_true", help="with --measure: those too that have been measured")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows (benchmarks/results)")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    options = parser.parse_args()
    if options.measure:
        measure(options)
    newest_last = sorted(options.results.glob("*.json"), key=lambda path: path.stat().st_mtime)
    files = [read_results(path) for path in options.files or newest_last]
    if not options.files:
        files = list({bool(results.machine.get("gpu")): results for results in files}.values())
    text = "\n\n".join([markdown_table(COLUMNS, rows_of(files)), *notes_of(files)])
    print(text)
    if options.write:
        replace_between(options.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; what had ended is kept, and the same command goes on")
