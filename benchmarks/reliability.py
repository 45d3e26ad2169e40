"""What is lost when commands are killed, stopped or the disk is full?  python benchmarks/reliability.py
kills|signals|full-disk|index-at-once [--commands extract index ...] [--trials 200] [--seed 0]

kills: SIGKILL at random moments. After each, every file under a final name must open, older results must be whole, no
worker may be alive; then the same command runs again on what is there. Where it ends, the result must equal that of a
run without kills, and nothing half written may lie about.

signals: SIGTERM, SIGHUP and SIGINT at random moments, half of them to all processes of the command, as a terminal sends
them. It must end with 1 and one line that says how to go on, and leave what a kill may leave but nothing half written.
SIGSTOP for a while, then SIGCONT: the result must equal that of an undisturbed run, and a second command that meets the
lock of the stopped one is told who holds it, or waits.

full-disk: every writing command on a file system of 20 sizes, from one page to more than enough (a tmpfs where this
user may mount one, else a limit of file sizes); the result, the workspace or temporary files lie there (--places). It
must end with 1 and one line with the amount that is missing, and an older result must be as it was; or with 0 and a
whole result.

index-at-once: two `ultron index` of different descriptors write one index at the same time. It must be one of the two,
whole.

Commands run in forks of this process, which has loaded torch once: a trial takes a second instead of ten.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

MODES = ("kills", "signals", "full-disk", "index-at-once")
PLACES = ("out", "workspace", "tmp")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MODES)
    parser.add_argument("--commands", nargs="*", help="those of extract, whiten, index ... (all)")
    parser.add_argument("--trials", type=int, default=200, help="kills of each command; of each signal a quarter")
    parser.add_argument("--signals", nargs="*", default=("TERM", "HUP", "INT", "STOP"), help="those of signals")
    parser.add_argument("--places", nargs="*", choices=PLACES, default=PLACES, help="what lies on the full disk")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Imported here, as processes that commands spawn import this file.
    import torch

    from benchmarks.interruptions.at_once import index_at_once
    from benchmarks.interruptions.disk import full_disk
    from benchmarks.interruptions.kills import kills
    from benchmarks.interruptions.signals import signals
    from benchmarks.interruptions.stage import Stage

    torch.set_num_threads(1)
    wrong: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="ultron-reliability-"))
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            stage = Stage(folder, arguments.commands)
        for scene in stage.scenes:
            draws = random.Random(f"{arguments.seed} {scene.name}")
            if arguments.what == "kills":
                faults = kills(stage, scene, arguments.trials, draws)
            elif arguments.what == "signals":
                faults = [
                    fault
                    for name in arguments.signals
                    for fault in signals(stage, scene, name, -(-arguments.trials // 4), draws)
                ]
            elif arguments.what == "full-disk":
                faults = [fault for place in arguments.places for fault in full_disk(stage, scene, place)]
            else:
                faults = index_at_once(stage, arguments.trials, draws) if scene.name == "index" else []
            for fault in sorted(set(faults)):
                print(f"  {faults.count(fault)} x {fault}", flush=True)
            wrong += faults
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
