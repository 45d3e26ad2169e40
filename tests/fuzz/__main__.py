"""`python -m tests.fuzz [READER ...]`: damaged files for every reader, 200,000 each.

Exit code 1 if one of them is neither read nor refused in one line.
"""

import os

# Before Faiss: the threads of a process are not there in its forks, which would wait for them.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import sys
import time
from pathlib import Path

from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS
from tests.fuzz.running import Limits, fuzz, problem_of, report


def with_atheris(name: str, reader: Reader) -> None:
    """Lets atheris choose the damage by what code it reaches; ends at the first failure."""
    import tempfile

    import atheris  # pyright: ignore[reportMissingImports]  # only where it is installed

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    reader.seeds[0](folder)

    def one_input(data: bytes) -> None:
        (folder / reader.file).write_bytes(data)
        if problem := problem_of(reader.read, folder):
            raise RuntimeError(f"{name}: {problem}")

    atheris.instrument_all()
    atheris.Setup([sys.argv[0]], one_input)
    atheris.Fuzz()


def table(logs: list[Path]) -> str:
    """The rows of docs/reliability.md of what runs have printed, the last one of each reader; the commit is left to
    fill in."""
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines() if line.startswith("{")]
    rows = {}
    for line in lines:
        counts = [f"{line[key]:,}" for key in ("inputs", "answered", "refused in one line")]
        n_guarded = line.get("through the guard", 0)
        guarded = f"{n_guarded:,} ({line['rescued by it']:,})" if n_guarded else ""
        rows[line["reader"]] = " | ".join((line["reader"], *counts, guarded, str(len(line["failures"]))))
    return "\n".join(f"| {rows[name]} |  |" for name in READERS if name in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all without")
    parser.add_argument("--inputs", type=int, default=200_000, help="damaged files per reader")
    parser.add_argument("--seconds", type=float, help="per reader, if that is less")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-mib", type=int, default=Limits.memory_mib, help="that one reading may take")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder of the files that fail")
    parser.add_argument("--atheris", action="store_true", help="atheris chooses the damage (one reader)")
    parser.add_argument("--table", type=Path, nargs="+", metavar="LOG", help="print the table of what runs printed")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return 0
    if unknown := [name for name in arguments.readers if name not in READERS]:
        parser.error(f"no reader {unknown[0]!r}; there are {', '.join(READERS)}")
    names = arguments.readers or list(READERS)
    if arguments.atheris:
        with_atheris(names[0], READERS[names[0]])
    n_failures = 0
    for name in names:
        started_s = time.monotonic()
        outcome = fuzz(
            READERS[name],
            arguments.inputs,
            seed=arguments.seed,
            limits=Limits(memory_mib=arguments.memory_mib),
            seconds=arguments.seconds,
        )
        print(report(name, outcome, arguments.out, time.monotonic() - started_s), flush=True)
        n_failures += len(outcome.failures)
    return 1 if n_failures else 0


if __name__ == "__main__":
    sys.exit(main())
