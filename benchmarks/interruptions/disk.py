"""A full disk, at sizes from one page to more than enough."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.interruptions.checking import faults_below, fork, leftovers_below, orphans_of
from benchmarks.interruptions.stage import Scene, Stage
from benchmarks.interruptions.trial import ended_by

PAGE = 4096
N_SIZES = 20
LONGEST_S = 120.0  # of a command on a full disk


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """Makes `folder` a file system of n_bytes; False where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    is_mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)], capture_output=True
    ).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a process may just be ending in it
        else:
            shutil.rmtree(folder)


def blocks_of(folder: Path) -> int:
    """Bytes that the files of a folder take, in whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def run_at(scene: Scene, place: str, disk: Path, elsewhere: Path) -> int:
    """Runs a command with its result, the workspace or temporary files on the disk; returns its exit code."""
    if place == "workspace":
        return scene.run_in_workspace(disk)
    if place == "tmp":
        os.environ["TMPDIR"] = str(disk)
        tempfile.tempdir = None
        return scene.run(elsewhere)
    return scene.run(disk)


def full_disk(stage: Stage, scene: Scene, place: str) -> list[str]:
    """Runs one command at N_SIZES sizes of the disk; returns what was wrong.

    place: what lies on it: the result ("out"), the workspace ("workspace") or temporary files ("tmp").
    """
    if place == "workspace" and not scene.uses_workspace:
        return []
    measured = stage.folder / f"measured-{scene.name}"
    measured.mkdir(exist_ok=True)
    log = stage.folder / "log"
    if os.waitpid(fork(lambda: run_at(scene, place, measured, measured), log), 0)[1]:
        return [f"{scene.name} fails on a large disk: {log.read_text()[-500:]}"]
    n_needed = blocks_of(measured)
    shutil.rmtree(measured)
    wrong: list[str] = []
    outcomes: list[tuple[int, bool]] = []
    for i in range(N_SIZES):
        # From a page to more than all takes that is there at a time.
        n_bytes = max(PAGE, round(3 * n_needed * i / (N_SIZES - 1) / PAGE) * PAGE)
        outcome, faults = on_small_disk(stage, scene, place, n_bytes)
        outcomes.append(outcome)
        wrong += [f"{scene.name}, {place} on {n_bytes} bytes: {fault}" for fault in faults]
    n_failed = sum(code == 1 for code, _ in outcomes)
    n_told = sum(is_told for _, is_told in outcomes)
    print(
        f"{scene.name:<16} {place:<9} {N_SIZES} sizes: {n_failed} ended with 1 ({n_told} told what is missing), "
        f"{sum(code == 0 for code, _ in outcomes)} with 0: {len(wrong)} faults",
        flush=True,
    )
    return wrong


def on_small_disk(stage: Stage, scene: Scene, place: str, n_bytes: int) -> tuple[tuple[int, bool], list[str]]:
    """((exit code, whether the missing amount is told), what is wrong)."""
    disk, elsewhere = stage.folder / "disk", stage.folder / "elsewhere"
    log = stage.folder / "log"
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    with small_disk(disk, n_bytes) as is_mounted:
        older = disk / "older"
        with contextlib.suppress(OSError):
            older.write_text("x")
        limit_bytes = None if is_mounted else n_bytes
        pid = fork(lambda: run_at(scene, place, disk, elsewhere), log, limit_bytes=limit_bytes)
        started_s = time.monotonic()
        status = ended_by(pid, LONGEST_S)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            orphans_of(pid)
            return (-1, False), [f"not ended after {time.monotonic() - started_s:.0f} s"]
        faults = [f"{len(orphans)} workers outlive it" for orphans in [orphans_of(pid)] if orphans]
        text = log.read_text()
        code = os.waitstatus_to_exitcode(status)
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        if code not in (0, 1) or "Traceback" in text or (code == 1 and len(errors) != 1):
            faults.append(f"exit {code}: {text[-600:]}")
        elif code == 1 and not any(word in errors[0] for word in ("missing", "free")):
            faults.append(f"does not say what is missing: {errors}")
        faults += faults_below(disk) + faults_below(elsewhere)
        result = {"out": disk / scene.result, "tmp": elsewhere / scene.result}.get(place)
        if code == 0 and not (result.exists() if result else any(disk.iterdir())):
            faults.append("exit 0 without a result")
        if older.exists() and older.stat().st_size and older.read_text() != "x":
            faults.append("an older file was changed")
        if half := [*leftovers_below(disk), *leftovers_below(elsewhere)]:
            faults.append(f"left {half[:3]}")
        return (code, any("missing" in line for line in errors)), faults
