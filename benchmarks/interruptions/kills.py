"""SIGKILL at random moments."""

import os
import random
import signal

from benchmarks.interruptions.checking import faults_below, faults_of_end, orphans_of, result_of
from benchmarks.interruptions.stage import Scene, Stage
from benchmarks.interruptions.trial import ended_by, random_moment, rehearsed


def kills(stage: Stage, scene: Scene, n_trials: int, draws: random.Random) -> list[str]:
    """Kills one command n_trials times; returns what was wrong."""
    rehearsal = rehearsed(stage, scene)
    if rehearsal.failure:
        return [rehearsal.failure]
    folder, log, expected = rehearsal.folder, rehearsal.log, rehearsal.expected
    wrong: list[str] = []
    n_kills = n_ended = 0
    while n_kills < n_trials:
        pid = rehearsal.start()
        status = ended_by(pid, random_moment(rehearsal, draws))
        if status is not None:
            n_ended += 1
            wrong += faults_of_end(folder, status, expected, log)
            rehearsal.clear()
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        n_kills += 1
        if orphans := orphans_of(pid):
            wrong.append(f"{len(orphans)} workers outlive their parent")
        wrong += [f"after a kill: {fault}" for fault in faults_below(folder)]
        if not scene.resumes and result_of(folder) != expected:
            wrong.append("the older result is neither as it was nor replaced by an equal one")
    wrong += faults_of_end(folder, rehearsal.run_once(), expected, log)
    print(
        f"{scene.name:<16} {n_kills:4} kills, {n_ended + 1:4} runs to the end of {rehearsal.usual_s:.1f} s: "
        f"{len(wrong)} faults",
        flush=True,
    )
    return [f"{scene.name}: {fault}" for fault in wrong]
