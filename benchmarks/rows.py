"""What benchmarks share: the rows they measure are kept by machine and commit.

A benchmark checks equality first, measures its sides in turns, and ends with

    save(options.save, __file__, {"exact search": Measurement.of_rounds(ms, unit="ms", of="200,000 x 512, 70 queries",
         others={"Faiss flat": faiss_ms}, limits={"product alone": product_ms}, equality="rows and scores of ...")})

performance.py makes the table of docs/performance.md from them; `ultron bench --compare A.json B.json` shows two files.
"""

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from ultron_cli.console import dump_json
from ultron_cli.files import make_folder, write_text
from ultron_cli.measurements import Measurement, Results, read_results

RESULTS = Path(__file__).resolve().parent / "results"


def add_save(parser: argparse.ArgumentParser) -> None:
    """Adds --save to a benchmark's options."""
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FOLDER",
        help="keep the rows in FOLDER/MACHINE-COMMIT.json (benchmarks/results)",
    )


def save(folder: Path | None, benchmark: str, rows: dict[str, Measurement], device: str = "cpu") -> None:
    """Puts the rows of a benchmark into the file of this machine and commit, in place of those that it had there.

    folder: None keeps nothing. benchmark: its file. Raises ValueError for a row that says of no equality.
    """
    if folder is None:
        return
    name = Path(benchmark).stem
    for title, row in rows.items():
        if not row.equality:
            raise ValueError(f"{title} must say what was seen to be equal")
    machine = facts(device)
    path = results_path(folder, device)
    before = read_results(path).results if path.is_file() else {}
    others = {title: row for title, row in before.items() if row.benchmark != name}
    named = {title: replace(row, benchmark=name) for title, row in rows.items()}
    results = Results(results=others | named, machine=machine)
    write_text(make_folder(folder) / path.name, dump_json(results.to_json()))
    print(f"kept in {path}", file=sys.stderr)


def facts(device: str = "cpu") -> dict[str, object]:
    """What is recorded of this machine and commit."""
    import torch

    from ultron_cli.bench import machine_facts

    return machine_facts(torch.device(device))


def results_path(folder: Path, device: str = "cpu") -> Path:
    """The file of this machine and commit."""
    return folder / f"{file_stem(facts(device))}.json"


def file_stem(machine: dict[str, object]) -> str:
    """MACHINE-COMMIT: the GPU, or the processor and its cores; `-changed` where files differ from the commit."""
    place = machine.get("gpu") or f"{machine['cpu']} {machine['cores']} cores"
    commit = str(machine.get("git_commit") or machine["ultron_version"])[:12]
    changed = "-changed" if machine.get("git_changed") else ""
    return re.sub(r"[^a-z0-9]+", "-", str(place).lower()).strip("-") + f"-{commit}{changed}"
