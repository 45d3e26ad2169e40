"""The table of docs/performance.md, from the rows that the benchmarks keep (rows.py).

    python benchmarks/performance.py [RESULTS.json ...]      prints it (the newest of benchmarks/results)
    python benchmarks/performance.py --measure --write docs/performance.md      measures all of it first

Each row has our median, what a user would take instead and what the machine allows, from one run on one machine. What
none of the files has is `not measured`.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rows import RESULTS

from ultron_cli.console import markdown_table
from ultron_cli.errors import UltronError
from ultron_cli.files import replace_between
from ultron_cli.measurements import Measurement, Results, Spread, machine_text, number_text, read_results

BEGIN, END = "<!-- begin: benchmarks/performance.py -->", "<!-- end: benchmarks/performance.py -->"
# In the order of the table: a benchmark and its arguments where they are not its defaults.
BENCHMARKS = {
    "extract": "",
    "commands": "",
    "search": "",
    "evaluate": "",
    "rerank": "",
    "local": "",
    "diffusion": "",
    "kernels": "",
    "train": "--rounds 5",
}
ON_A_GPU = {"kernels": "--device cuda", "gpu_networks": ""}
NOT_MEASURED = "not measured"
COLUMNS = ("what", "ours", "instead", "limit of the machine", "seen to be equal")


def measure_all() -> None:
    """Runs every benchmark in a process of its own and keeps its rows, those of a missed target too."""
    for name, arguments in BENCHMARKS.items():
        print(f"== {name} {arguments}", file=sys.stderr, flush=True)
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments.split(), "--save"]
        subprocess.run(command, check=False)


def cell(sides: Mapping[str, Spread], row: Measurement, *, as_share: bool) -> str:
    """The other sides of a row, each with our speed against it: `12.3x`, or as a share of a limit."""
    texts = []
    for name, side in sides.items():
        gain = row.gain_over(side)
        ratio = "" if gain is None else f": {gain:.0%}" if as_share else f": {gain:.2f}x"
        texts.append(f"{name} {number_text(side.value)}{ratio}")
    return "; ".join(texts)


def rows_of(files: Sequence[Results]) -> list[list[str]]:
    """The rows of the table."""
    is_gpu = [bool(results.machine.get("gpu")) for results in files]
    table = []
    for names, on_gpu in ((BENCHMARKS, False), (ON_A_GPU, True)):
        for name in names:
            measured = [
                (title, row)
                for results, has_gpu in zip(files, is_gpu, strict=True)
                if has_gpu == on_gpu
                for title, row in results.results.items()
                if row.benchmark == name
            ]
            place = " on a GPU" if on_gpu else ""
            for title, row in measured:
                what = f"{title}{place}: {row.of}"
                ours = f"{row!s} {row.unit}"
                others, limits = cell(row.others, row, as_share=False), cell(row.limits, row, as_share=True)
                table.append([what, ours, others, limits, row.equality])
            if not measured:
                table.append([f"`{name}.py`{place}", NOT_MEASURED, "", "", ""])
    return table


def note_of(results: Results) -> str:
    """When and where a file was measured."""
    commit = str(results.machine.get("git_commit", "none"))[:12]
    return f"{str(results.machine.get('created'))[:10]}, commit {commit}: {machine_text(results.machine)}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="RESULTS.json")
    parser.add_argument("--measure", action="store_true", help="run the benchmarks first; an hour of a quiet machine")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    options = parser.parse_args()
    if options.measure:
        measure_all()
    newest_last = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    files = [read_results(path) for path in options.files or newest_last]
    if not options.files:
        files = list({bool(results.machine.get("gpu")): results for results in files}.values())
    text = "\n\n".join([markdown_table(COLUMNS, rows_of(files)), *map(note_of, files)])
    print(text)
    if options.write:
        replace_between(options.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
