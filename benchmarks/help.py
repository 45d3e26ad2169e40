"""Seconds until `ultron --help` and each `COMMAND --help` have answered, the start of the process included.

    python benchmarks/help.py [COMMAND ...] [--rounds 5]

The exit code is 1 if the slowest takes half a second or more.
"""

import argparse
import statistics
import subprocess
import sys
import time

from ultron_cli.cli import COMMANDS

LIMIT_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", default=["", *COMMANDS], help="(all)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds = options.rounds
    slowest = 0.0
    for command in options.commands:
        seconds = []
        for _ in range(rounds):
            started_s = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "ultron_cli", *command.split(), "--help"], check=True, stdout=subprocess.DEVNULL
            )
            seconds.append(time.perf_counter() - started_s)
        slowest = max(slowest, statistics.median(seconds))
        print(
            f"{command or '(ultron)':<26} {statistics.median(seconds):.3f} s (median of {rounds}, "
            f"{min(seconds):.3f} to {max(seconds):.3f})"
        )
    return 0 if slowest < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
