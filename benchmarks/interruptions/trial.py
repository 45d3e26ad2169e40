"""One command, disturbed at a random moment, then run to its end."""

import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.interruptions.checking import fork, result_of
from benchmarks.interruptions.stage import Scene, Stage


@dataclass
class Rehearsal:
    """An undisturbed run: what it makes and how long it takes."""

    scene: Scene
    folder: Path
    log: Path
    usual_s: float = 0.0
    expected: dict[str, object] = field(default_factory=dict)
    failure: str = ""

    def run_once(self) -> int:
        """Runs the command to its end; returns its wait status."""
        self.folder.mkdir(exist_ok=True)
        return os.waitpid(self.start(), 0)[1]

    def start(self, log: Path | None = None) -> int:
        """Begins the command; returns the number of its process."""
        self.folder.mkdir(exist_ok=True)
        return fork(lambda: self.scene.run(self.folder), log or self.log)

    def clear(self) -> None:
        """Nothing is there, or the older result that a command replaces."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.scene.resumes:
            self.run_once()


def rehearsed(stage: Stage, scene: Scene) -> Rehearsal:
    """Runs a command twice, the second time to measure it; its result is there afterwards, unless it resumes."""
    rehearsal = Rehearsal(scene, stage.folder / f"on-{scene.name}", stage.folder / "log")
    for _ in range(2):
        shutil.rmtree(rehearsal.folder, ignore_errors=True)
        started_s = time.monotonic()
        status = rehearsal.run_once()
        rehearsal.usual_s = time.monotonic() - started_s
        if status:
            rehearsal.failure = f"{scene.name} fails undisturbed: {rehearsal.log.read_text()[-500:]}"
            return rehearsal
    rehearsal.expected = result_of(rehearsal.folder)
    if scene.resumes:
        shutil.rmtree(rehearsal.folder)
    return rehearsal


def ended_by(pid: int, wait_s: float) -> int | None:
    """The wait status of a process that ends within so many seconds, else None."""
    deadline_s = time.monotonic() + wait_s
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() >= deadline_s:
            return None
        time.sleep(0.002)
    return done[1]


def random_moment(rehearsal: Rehearsal, draws: random.Random) -> float:
    """Seconds from the beginning of the command, to a little after its end."""
    return draws.uniform(0, 1.05 * rehearsal.usual_s)
