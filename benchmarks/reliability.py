"""What is lost when commands are killed or the disk is full?  python benchmarks/reliability.py kills|full-disk
[--commands extract index ...] [--trials 200] [--seed 0]

kills: SIGKILL at random moments. After each, every file under a final name must open, older results must be whole, no
worker may be alive; then the same command runs again on what is there. Where it ends, the result must equal that of a
run without kills, and nothing half written may lie about.

full-disk: every writing command on a file system of 20 sizes, from one page to more than enough (a tmpfs where this
user may mount one, else a limit of file sizes). It must end with 1 and one line with the amount that is missing, and
an older result must be as it was; or with 0 and a whole result.

Commands run in forks of this process, which has loaded torch once: a trial takes a second instead of ten.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import h5py  # noqa: E402  # after the path
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from tests.datasets.download.test_install import ROXFORD, ground_truth, installation, tar_of  # noqa: E402
from tests.datasets.misbehaving_server import MisbehavingServer  # noqa: E402
from ultron_cli.cli import main as run_ultron  # noqa: E402
from ultron_cli.datasets.download import install  # noqa: E402
from ultron_cli.datasets.toy import ToyConfig, make_toy  # noqa: E402
from ultron_cli.locks import LOCK_FILE  # noqa: E402
from ultron_cli.retrieval.extraction import shards  # noqa: E402

PAGE = 4096
N_SIZES = 20
ORPHAN_PATIENCE_S = 20.0  # a worker that is being started first imports what this module does
LONGEST_S = 120.0  # of a command on a full disk
DESCRIBE = ["--untrained", "--model", "gem", "--backbone", "test_resnet", "--scales", "1", "--batch-size", "4"]
RUN_SETTINGS = (
    *("model.name=gem", "model.backbone=test_resnet", "epochs=3", "side_px=32", "batch_size=8", "workers=1"),
    *("threads=1", "checkpoint_minutes=0", "log_every=1", "schedule=constant"),
)
# What says when, where and how fast, and not what.
VOLATILE = {
    *("created", "provenance", "searched_by", "evaluated_by", "ms_per_query", "seconds", "downloaded", "descriptors"),
    *("photos_per_s", "wait_share", "memory_mib", "index", "address", "command", "dataset_folder", "ground_truth"),
}
LEFT_OUT = {
    "training-curves.png",
    "environment.json",
    "config.json",
    "source.json",
    "seen_checksums.json",
    "curves.png",
}


@dataclass(frozen=True)
class Scene:
    """A command that writes."""

    name: str
    work: Callable[[Path], int]  # runs it into a folder and returns its exit code
    result: str  # what it makes in the folder
    resumes: bool = False  # an unfinished result is gone on with


class Stage:
    """Inputs of all commands, made once, and the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toy = folder / "toy"
        self.server = MisbehavingServer()
        config = ToyConfig(n_train_landmarks=4, n_eval_landmarks=3, n_distractors=4, max_side_px=64)
        make_toy(self.toy, config, workers=0)
        os.environ["ULTRON_WORKSPACE"] = str(folder / "workspace")
        shards.PHOTOS_PER_SHARD = 4
        install.RESERVE_BYTES = 0
        described = folder / "described"
        command = self.ultron
        assert command("extract", self.toy, *DESCRIBE, "--out", described, "--workers", "0") == 0
        database = described / "database.h5"
        between = ["--queries", described / "queries.h5", "--database", database]
        assert command("search", *between, "--out", folder / "ranks.h5") == 0
        gnd = ["--gnd", self.toy / "gnd_toy.json"]
        ranks = ["--ranks", folder / "ranks.h5"]
        extract = ["extract", self.toy, *DESCRIBE, "--workers", "1"]
        hnsw = ["index", database, "--type", "hnsw", "--overwrite"]
        tiny = ["datasets", "make-toy", "--train-landmarks", "1", "--eval-landmarks", "1", "--max-side", "48"]
        self.scenes = [
            Scene("extract", lambda out: command(*extract, "--out", out / "x"), "x", True),
            Scene("whiten", lambda out: command("whiten", database, "--method", "pca", "--out", out / "w.h5"), "w.h5"),
            Scene("index", lambda out: command(*hnsw, "--out", out / "x.index"), "x.index"),
            Scene("search", lambda out: command("search", *between, "-k", "10", "--out", out / "r.h5"), "r.h5"),
            Scene("evaluate", lambda out: command("evaluate", *between, *gnd, "--out", out / "e.json"), "e.json"),
            Scene("ranks", lambda out: command("visualize", "ranks", *ranks, "--out", out / "r.png"), "r.png"),
            Scene("train", self._train, "run", True),
            Scene("make-toy", lambda out: command(*tiny, "--out", out / "t"), "t", True),
            Scene("download", self._download, "roxford5k", True),
        ]
        self._serve_oxford()

    def _serve_oxford(self) -> None:
        paths = sorted(self.toy.glob("jpg/*.jpg"))[:4]
        photos = {f"oxford_{i:06d}.jpg": path.read_bytes() for i, path in enumerate(paths)}
        self.server.files["roxford5k/oxbuild_images-v1.tgz"] = tar_of(photos)
        names = [f"oxford_{i:06d}" for i in range(3)]
        self.server.files["roxford5k/gnd_roxford5k.pkl"] = ground_truth(names, ["oxford_000003"])

    @staticmethod
    def ultron(*arguments: object) -> int:
        return run_ultron([str(argument) for argument in arguments])

    def _train(self, out: Path) -> int:
        run = out / "run"
        if (run / "checkpoint.pt").exists():  # killed after its results: the pictures can be drawn at any time
            return self.ultron("visualize", "curves", "--run", run)
        if list(run.glob("checkpoints/step-*.pt")):
            return self.ultron("train", "--out", run, "--resume")
        settings = [part for setting in RUN_SETTINGS for part in ("--set", setting)]
        return self.ultron("train", "--dataset", self.toy / "train", *settings, "--out", run)

    def _download(self, out: Path) -> int:
        try:
            installation(self.server, out, ROXFORD).run()
        except Exception as error:
            print(f"error: {error}", file=sys.stderr)
            return getattr(error, "exit_code", 3)
        return 0


def fork(work: Callable[[], int], log: Path, *, limit_bytes: int | None = None) -> int:
    """Runs `work` in a child with a session of its own; returns its number."""
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
        sys.stdout.flush()
        sys.stderr.flush()
        from multiprocessing import util

        util._exit_function()  # as at the end of a program
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


def h5_values(handle: h5py.File, name: str) -> object:
    """A dataset's bytes, or its texts."""
    values = handle[name][:]
    return values.tolist() if values.dtype.kind == "O" else values.tobytes()


def leftovers_below(folder: Path) -> list[str]:
    """What no finished command leaves. The lock of a killed one is taken over by whoever writes there next."""
    half_written = [path.name for path in folder.rglob(".ultron-*") if not path.name.endswith(LOCK_FILE)]
    return [*half_written, *(path.name for path in folder.rglob("*.parts"))]


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


def run_once(scene: Scene, folder: Path, log: Path) -> int:
    """Runs a command to its end; returns its wait status."""
    folder.mkdir(exist_ok=True)
    return os.waitpid(fork(lambda: scene.work(folder), log), 0)[1]


def kills(stage: Stage, scene: Scene, n_trials: int, draws: random.Random) -> list[str]:
    """Kills one command n_trials times; returns what was wrong."""
    folder = stage.folder / f"kills-{scene.name}"
    log = stage.folder / "log"
    started_s = time.monotonic()
    status = run_once(scene, folder, log)
    usual_s = time.monotonic() - started_s
    if status:
        return [f"{scene.name} fails without a kill: {log.read_text()[-500:]}"]
    expected = result_of(folder)
    wrong: list[str] = []

    def check_end(status: int) -> None:
        result = result_of(folder)
        differing = [name for name in {*result, *expected} if result.get(name) != expected.get(name)]
        if status or differing:
            wrong.append(f"going on ended with {status}, differing: {differing[:5]}: {log.read_text()[-300:]}")
        if leftovers := leftovers_below(folder):
            wrong.append(f"left over: {leftovers[:3]}")

    n_kills = n_ended = 0
    if scene.resumes:
        shutil.rmtree(folder)
    while n_kills < n_trials:
        folder.mkdir(exist_ok=True)
        pid = fork(lambda: scene.work(folder), log)
        deadline_s = time.monotonic() + draws.uniform(0, 1.05 * usual_s)
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline_s:
            time.sleep(0.002)
        if done != (0, 0):
            n_ended += 1
            check_end(done[1])
            shutil.rmtree(folder)
            if not scene.resumes:
                run_once(scene, folder, log)
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        n_kills += 1
        if orphans := orphans_of(pid):
            wrong.append(f"{len(orphans)} workers outlive their parent")
        wrong += [f"after a kill: {fault}" for fault in faults_below(folder)]
        if not scene.resumes and result_of(folder) != expected:
            wrong.append("the older result is neither as it was nor replaced by an equal one")
    check_end(run_once(scene, folder, log))
    print(
        f"{scene.name:<10} {n_kills:4} kills, {n_ended + 1:4} runs to the end of {usual_s:.1f} s: {len(wrong)} faults",
        flush=True,
    )
    return [f"{scene.name}: {fault}" for fault in wrong]


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


def full_disk(stage: Stage, scene: Scene) -> list[str]:
    """Runs one command at N_SIZES sizes of the disk; returns what was wrong."""
    measured = stage.folder / f"measured-{scene.name}"
    run_once(scene, measured, stage.folder / "log")
    n_needed = blocks_of(measured)
    wrong: list[str] = []
    outcomes: list[tuple[int, bool]] = []
    for i in range(N_SIZES):
        # From a page to more than all takes that is there at a time.
        n_bytes = max(PAGE, round(3 * n_needed * i / (N_SIZES - 1) / PAGE) * PAGE)
        outcome, faults = on_small_disk(stage, scene, n_bytes)
        outcomes.append(outcome)
        wrong += [f"{scene.name} on {n_bytes} bytes: {fault}" for fault in faults]
    n_failed = sum(code == 1 for code, _ in outcomes)
    n_told = sum(is_told for _, is_told in outcomes)
    print(
        f"{scene.name:<10} {N_SIZES} sizes: {n_failed} ended with 1 ({n_told} told what is missing), "
        f"{sum(code == 0 for code, _ in outcomes)} with 0: {len(wrong)} faults",
        flush=True,
    )
    return wrong


def on_small_disk(stage: Stage, scene: Scene, n_bytes: int) -> tuple[tuple[int, bool], list[str]]:
    """((exit code, whether the missing amount is told), what is wrong)."""
    disk = stage.folder / "disk"
    log = stage.folder / "log"
    with small_disk(disk, n_bytes) as is_mounted:
        older = disk / "older"
        with contextlib.suppress(OSError):
            older.write_text("x")
        started_s = time.monotonic()
        pid = fork(lambda: scene.work(disk), log, limit_bytes=None if is_mounted else n_bytes)
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() - started_s < LONGEST_S:
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            orphans_of(pid)
            return (-1, False), [f"not ended after {LONGEST_S:.0f} s"]
        faults = [f"{len(orphans)} workers outlive it" for orphans in [orphans_of(pid)] if orphans]
        text = log.read_text()
        code = os.waitstatus_to_exitcode(done[1])
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        if code not in (0, 1) or "Traceback" in text or (code == 1 and len(errors) != 1):
            faults.append(f"exit {code}: {text[-300:]}")
        faults += faults_below(disk)
        if code == 0 and not (disk / scene.result).exists():
            faults.append("exit 0 without a result")
        if older.exists() and older.stat().st_size and older.read_text() != "x":
            faults.append("an older file was changed")
        if half := [name for name in leftovers_below(disk) if name.startswith(".ultron-")]:
            faults.append(f"left {half[:3]}")
        return (code, any("missing" in line for line in errors)), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "full-disk"))
    parser.add_argument("--commands", nargs="*", help="those of extract, whiten, index ... (all)")
    parser.add_argument("--trials", type=int, default=200, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ultron-reliability-") as folder:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            stage = Stage(Path(folder))
        for scene in stage.scenes:
            if arguments.commands and scene.name not in arguments.commands:
                continue
            if arguments.what == "kills":
                faults = kills(stage, scene, arguments.trials, random.Random(f"{arguments.seed} {scene.name}"))
            else:
                faults = full_disk(stage, scene)
            for fault in sorted(set(faults)):
                print(f"  {faults.count(fault)} x {fault}", flush=True)
            wrong += faults
    print(f"{len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
