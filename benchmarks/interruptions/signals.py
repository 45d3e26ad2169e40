"""SIGTERM, SIGHUP and SIGINT, which ask a command to stop, and SIGSTOP with SIGCONT, at random moments."""

import os
import random
import signal
import time
from pathlib import Path

from benchmarks.interruptions.checking import faults_below, faults_of_end, leftovers_below, orphans_of, result_of
from benchmarks.interruptions.stage import Scene, Stage
from benchmarks.interruptions.trial import Rehearsal, ended_by, random_moment, rehearsed
from ultron_cli.locks import LOCK_FILE, UNNAMED

PATIENCE_S = 60.0  # to the end of a command that was asked to stop, on a machine with other work
STOPPED_S = 0.5  # between SIGSTOP and SIGCONT


def signals(stage: Stage, scene: Scene, name: str, n_trials: int, draws: random.Random) -> list[str]:
    """Disturbs one command n_trials times by a signal; returns what was wrong."""
    rehearsal = rehearsed(stage, scene)
    if rehearsal.failure:
        return [rehearsal.failure]
    number = signal.Signals[f"SIG{name}"]
    wrong: list[str] = []
    n_sent = n_after = 0
    while n_sent < n_trials:
        pid = rehearsal.start()
        wait_until_caught(pid)
        status = ended_by(pid, random_moment(rehearsal, draws))
        if status is None:
            n_sent += 1
            if number == signal.SIGSTOP:
                wrong += while_stopped(rehearsal, pid, n_sent)
                rehearsal.clear()
                continue
            (os.killpg if n_sent % 2 else os.kill)(pid, number)
            status = ended_by(pid, PATIENCE_S)
            faults, is_done = faults_of_stop(rehearsal, pid, status, name)
            wrong += faults
            n_after += is_done
            if not is_done:
                continue
        wrong += faults_of_end(rehearsal.folder, 0, rehearsal.expected, rehearsal.log)
        rehearsal.clear()
    wrong += faults_of_end(rehearsal.folder, rehearsal.run_once(), rehearsal.expected, rehearsal.log)
    print(f"{scene.name:<16} SIG{name:<4} {n_sent:4} times, {n_after} after its work: {len(wrong)} faults", flush=True)
    return [f"{scene.name}, SIG{name}: {fault}" for fault in wrong]


def wait_until_caught(pid: int) -> None:
    """Until a command that has begun hears SIGTERM; before, it ends as any program that is being loaded."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            text = Path(f"/proc/{pid}/status").read_text()
            caught = int(text.split("SigCgt:")[1].split()[0], 16)
        except (OSError, IndexError):
            return  # it has ended
        if caught >> (signal.SIGTERM - 1) & 1 or "State:\tZ" in text:
            return
        time.sleep(0.001)


def faults_of_stop(rehearsal: Rehearsal, pid: int, status: int | None, name: str) -> tuple[list[str], bool]:
    """(What is wrong after a signal that asks to stop, whether the work was done when it came)."""
    if status is None:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return [f"not ended after {PATIENCE_S:.0f} s: {rehearsal.log.read_text()[-300:]}"], False
    code = os.waitstatus_to_exitcode(status)
    faults = [f"{len(orphans)} workers outlive it" for orphans in [orphans_of(pid)] if orphans]
    is_whole = result_of(rehearsal.folder) == rehearsal.expected
    text = rehearsal.log.read_text()
    # Between the end of the work, when the result is told, and that of the process the signal ends it as any other.
    if code == 0 or (code == -signal.Signals[f"SIG{name}"] and is_whole and rehearsal.scene.result in text):
        return faults, True
    lines = [line for line in text.splitlines() if "stopped by" in line or "interrupted" in line]
    if code != 1 or "Traceback" in text or "Exception ignored" in text:
        faults.append(f"exit {code}: {text[-600:]}")
    elif len(lines) != 1 or not any(way in lines[0] for way in ("the same command", "`ultron ")):
        faults.append(f"does not say in one line how to go on: {lines}")
    faults += [f"after it: {fault}" for fault in faults_below(rehearsal.folder)]
    if leftovers := leftovers_below(rehearsal.folder, locks=True):
        faults.append(f"left {leftovers[:3]}")
    if not rehearsal.scene.resumes and not is_whole:
        faults.append("the older result is neither as it was nor replaced by an equal one")
    return faults, False


def while_stopped(rehearsal: Rehearsal, pid: int, n_sent: int) -> list[str]:
    """Stops the command, runs another where it holds a lock, lets it go on to its end; returns what was wrong."""
    send = os.killpg if n_sent % 2 else os.kill
    send(pid, signal.SIGSTOP)
    other_log = rehearsal.log.with_name("other-log")
    is_locked = any(path.name.endswith(LOCK_FILE) for path in rehearsal.folder.rglob(".*"))
    other = rehearsal.start(other_log) if is_locked else None
    other_status = ended_by(other, 4 * STOPPED_S) if other else None
    if not other:
        time.sleep(STOPPED_S)
    text = other_log.read_text() if other else ""
    faults = []
    # One that finds the work done, or the lock so new that it names nobody, has done right.
    is_done = other_status == 0 and result_of(rehearsal.folder) == rehearsal.expected
    is_told = other_status != 0 and (f"process {pid} on" in text or UNNAMED in text)
    if other_status is not None and not is_done and not is_told:
        faults.append(f"another, while it was stopped, ended with {other_status}: {text[-300:]}")
    if "was left by" in text:
        faults.append("its lock was taken over while it was stopped")
    send(pid, signal.SIGCONT)
    status = ended_by(pid, PATIENCE_S)
    if other and other_status is None and ended_by(other, PATIENCE_S) != 0 and f"process {pid} on" not in text:
        faults.append(f"another, which waited for it, failed: {other_log.read_text()[-300:]}")
    if status is None:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return [*faults, f"not ended {PATIENCE_S:.0f} s after SIGCONT"]
    faults += [f"{len(orphans)} workers outlive it" for orphans in [orphans_of(pid)] if orphans]
    return [*faults, *faults_of_end(rehearsal.folder, status, rehearsal.expected, rehearsal.log)]
