"""Forks that run a command, and what is wrong with what they leave: files that do not open, results that differ,
leftovers, workers that outlive their parent."""

import atexit
import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from ultron_cli.locks import LOCK_FILE

ORPHAN_PATIENCE_S = 20.0  # a worker that is being started first imports what its parent does
# What says when, where and how fast, and not what.
VOLATILE = {
    *(
        "created",
        "checked",
        "provenance",
        "searched_by",
        "evaluated_by",
        "ms_per_query",
        "seconds",
        "downloaded",
        "descriptors",
    ),
    *("photos_per_s", "wait_share", "memory_mib", "index", "address", "command", "dataset_folder", "ground_truth"),
    *("queries_per_s", "exact_queries_per_s", "figure", "file"),
}
LEFT_OUT = {
    *("training-curves.png", "environment.json", "config.json", "source.json", "seen_checksums.json", "curves.png"),
    *("x.report.png", "r.html"),
}


def fork(work: Callable[[], int], log: Path, *, limit_bytes: int | None = None) -> int:
    """Runs `work` in a child with a session of its own, which ends as a program does; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def session_members(session: int) -> list[int]:
    """Living processes of a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, of = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if int(of) == session and state != "Z":
                    members.append(int(entry.name))
    return members


def orphans_of(session: int) -> list[int]:
    """Processes of a session that are still alive after a while; they are ended."""
    deadline_s = time.monotonic() + ORPHAN_PATIENCE_S
    while (alive := session_members(session)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return alive


def final_files(folder: Path) -> Iterator[Path]:
    """Files under final names, by path."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def faults_below(folder: Path) -> list[str]:
    """Files under final names that do not open."""
    faults = []
    for path in final_files(folder):
        try:
            open_whole(path)
        except Exception as error:
            faults.append(f"{path.name}: {type(error).__name__} {error}")
    return faults


def open_whole(path: Path) -> None:
    """Reads all of a file by its kind. Raises whatever its reader raises."""
    if path.suffix == ".h5":
        with h5py.File(path) as handle:
            for name in handle:
                h5_values(handle, name)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix in (".jpg", ".png"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "the page has no end"


def h5_values(handle: h5py.File, name: str) -> object:
    """A dataset's bytes, or its texts."""
    values = handle[name][:]
    return values.tolist() if values.dtype.kind == "O" else values.tobytes()


def leftovers_below(folder: Path, *, locks: bool = False) -> list[str]:
    """What no finished command leaves. The lock of a killed one is taken over by whoever writes there next; a stopped
    one leaves none (`locks`)."""
    return [path.name for path in folder.rglob(".*ultron-*") if locks or not path.name.endswith(LOCK_FILE)]


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in VOLATILE}
    return [plain(part) for part in value] if isinstance(value, list) else value


def content_of(path: Path) -> object:
    """What a file says, without what tells of its making."""
    if path.suffix == ".h5":
        with h5py.File(path) as handle:
            return {name: h5_values(handle, name) for name in handle}
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".pt":
        weights = torch.load(path, weights_only=True).get("state_dict", {})
        return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in weights.items()}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def result_of(folder: Path) -> dict[str, object]:
    """All that a command made, by path; of a run without its checkpoints on the way."""
    return {
        str(path.relative_to(folder)): content_of(path)
        for path in final_files(folder)
        if path.name not in LEFT_OUT and not {"events", "checkpoints"} & set(path.parts)
    }


def faults_of_end(folder: Path, status: int, expected: dict[str, object], log: Path) -> list[str]:
    """What is wrong after a command that should have ended well. status: its wait status."""
    faults = []
    result = result_of(folder)
    differing = sorted(name for name in {*result, *expected} if result.get(name) != expected.get(name))
    if status or differing:
        faults.append(f"going on ended with {status}, differing: {differing[:5]}: {log.read_text()[-300:]}")
    if leftovers := [*leftovers_below(folder), *(path.name for path in folder.rglob("*.parts"))]:
        faults.append(f"left over: {leftovers[:3]}")
    return faults
