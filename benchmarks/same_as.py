"""Are the numbers of two commits the same, bit for bit?

    python benchmarks/same_as.py BEFORE [AFTER]        (default: v-before HEAD)
    python benchmarks/same_as.py HEAD HEAD --first 2   the first two commands of the chain, to see that it runs

Both commits are checked out into temporary git worktrees, and one chain of commands runs in each, with this
interpreter. The chain renders landmarks; trains networks, one of which is stopped and resumed; searches for an
attention; extracts, whitens, indexes, searches, re-ranks, evaluates and compares. Then all that was written is
compared: photos, losses of every step, weights, descriptors, whitenings, indexes, ranks, scores, evaluations. What
tells of the making and not of the numbers (provenance, origin, times, speeds, paths) is left out. Each artefact is a
row of the output. Where one differs, the row says the largest difference, and the exit code is 1.

The files are read by h5py, json, numpy and torch alone, so that modules may move between the two commits. Operators are
compiled first where their sources differ from those compiled before, which can take minutes.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# Keys of JSON that tell how, when or how fast something was made, not what. sha256 is that of files which hold the time
# of their making; their arrays are compared.
IGNORED = {
    "provenance",
    "origin",
    "created",
    "checked",
    "seconds",
    "photos_per_s",
    "wait_share",
    "memory_mib",
    "ms_per_query",
    "sha256",
    "descriptors_sha256",
    "mtime_ns",
    "ultron_version",
    "descriptors",
}
IGNORED_FILES = ("environment.json", "events/", "checkpoints/", ".png", ".lock", "stderr.txt")
CPU = "--set workers=0 --set threads=1 --set validation.share=0.2 --set batch_size=12 --set log_every=1"
PAPER = (
    f"{CPU} --set pretrained=false --set precision=float32 --set side_px=48 --set warmup_epochs=1 --set "
    "model.descriptor_dim=32"
)
GEM = f"--preset gem-r50-arcface {PAPER} --set model.backbone=test_resnet --set epochs=4 --set lr=0.01"
CFCD = f"--preset cfcd-r50 {PAPER} --set model.backbone=cifar_resnet8 --set epochs=2"
SIZES = "--set model.depths=1,1,1,1 --set model.widths=8,16,16,32 --set model.heads=1,2 --set model.descriptor_dim=32"
ULTRON = f"--preset ultron-t {CPU} {SIZES} --set side_px=64 --set epochs=3"
SEARCH = "--preset autola-search --set backbone=cifar_resnet8 --set width=8 --set epochs=2 --set batch_size=8"
RERANKERS = ("superglobal", "aqe", "dba", "diffusion", "kreciprocal", "aqe,superglobal")
STOPPED = f"train --dataset toy {GEM} --out resumed"
STOPPED_AFTER = ("resumed/steps.jsonl", 9)  # it gets SIGTERM when the file has so many of its 16 lines
FIRST_QUERY = "FIRST_QUERY"  # stands for a photo whose name is known only when it is rendered


def chain() -> list[str]:
    """The commands in the order in which they run, all in one folder."""
    files = "--queries gem-described/queries.h5 --database gem-described/database.h5"
    commands = [
        "datasets make-toy --seed 5 --train-landmarks 8 --eval-landmarks 6 --max-side 96",
        "datasets info toy",
        f"train --dataset toy {GEM} --out gem",
        STOPPED,
        "train --resume --out resumed",
        f"train --dataset toy {ULTRON} --out ultron",
        f"train --dataset toy {CFCD} --out cfcd",
        f"train --dataset toy {SEARCH} --set workers=0 --set threads=1 --out attention",
        "extract --dataset toy --run gem --scales 5 --workers 0 --out gem-described",
        "extract --dataset toy --run ultron --scales 3 --workers 0 --storage float16 --out ultron-described",
        "extract --dataset data/toy/train --run gem --scales 5 --workers 0 --out distractors",
        "whiten distractors/database.h5 --dim 16 --out pca.h5",
        "whiten gem-described/database.h5 --method lw --gnd data/toy/gnd_toy.json --out lw.h5",
        "extract --dataset toy --run gem --scales 5 --workers 0 --whiten pca.h5 --out whitened",
        "index gem-described/database.h5 --type flat --out flat.index",
        "index gem-described/database.h5 --type ivf --out ivf.index",
        f"search {files} -k 50 --out search-exact.h5",
        f"search {files} -k 50 --index flat.index --out search-flat.h5",
        f"search {files} -k 50 --index ivf.index --out search-ivf.h5",
        f"evaluate {files} --out evaluate-exact.json",
        f"evaluate {files} --index flat.index --out evaluate-flat.json",
        f"evaluate {files} --whiten lw.h5 --dim 8 --out evaluate-lw.json",
        f"evaluate {files} --distractors distractors/database.h5 --out evaluate-distractors.json",
        f"evaluate {files} --distractors distractors/database.h5 --rerank superglobal --out "
        "evaluate-distractors-superglobal.json",
        "evaluate --queries whitened/queries.h5 --database whitened/database.h5 --out evaluate-whitened.json",
        "evaluate --queries ultron-described/queries.h5 --database ultron-described/database.h5 --out "
        "evaluate-ultron.json",
    ]
    for step in RERANKERS:
        commands.append(f"search {files} -k 50 --rerank {step} --out search-{step}.h5")
        commands.append(f"evaluate {files} --rerank {step} --out evaluate-{step}.json")
    return [
        *commands,
        "evaluate --ranks search-superglobal.h5 --out evaluate-ranks.json",
        "compare evaluate-exact.json evaluate-superglobal.json",
        f"search data/toy/jpg/{FIRST_QUERY} --database gem-described/database.h5 -k 10",
    ]


def run_chain(commands: list[str]) -> None:
    """Runs every command by main(), in the child process and inside the folder of results. What a command prints on
    stdout goes to a file in said/.

    Raises SystemExit if a command fails, or if it does not stop where it should.
    """
    import ultron_cli
    from ultron_cli.cli import main

    if not Path(str(ultron_cli.__file__)).resolve().is_relative_to(Path.cwd().parent / "code"):
        raise SystemExit(f"ultron_cli must come from the commit's own worktree, found {ultron_cli.__file__}")
    Path("said").mkdir()
    for number, command in enumerate(commands):
        if FIRST_QUERY in command:
            name = json.loads(Path("data/toy/gnd_toy.json").read_text())["qimlist"][0]
            command = command.replace(FIRST_QUERY, f"{name.removesuffix('.jpg')}.jpg")
        if command == STOPPED:
            threading.Thread(target=stop_self, args=STOPPED_AFTER, daemon=True).start()
        started_s, stdout = time.monotonic(), io.StringIO()
        with contextlib.redirect_stdout(stdout):
            code = main([*command.split(), "--json"])
        print(f"{time.monotonic() - started_s:6.1f} s  ultron {command}", file=sys.stderr, flush=True)
        if code != (1 if command == STOPPED else 0):
            raise SystemExit(f"ultron {command} ended with {code}")
        Path(f"said/{number:02d}-{command.split()[0]}.json").write_text(stdout.getvalue() or "null")


def stop_self(lines_file: str, n_lines: int) -> None:
    """Sends this process SIGTERM when the file has so many lines."""
    path = Path(lines_file)
    while not (path.is_file() and path.read_text().count("\n") >= n_lines):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGTERM)


# --- what was written


def plain(value: Any) -> Any:
    """The JSON value without the keys that are ignored."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in IGNORED}
    return [plain(part) for part in value] if isinstance(value, list) else value


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested data, as (key, leaf): a leaf is an array, a number, a text or None."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{key}/{name}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from leaves(part, f"{key}/{i}")
    elif hasattr(value, "detach"):  # it is a tensor
        yield key, value.detach().cpu().contiguous().view(-1).numpy() if value.ndim else np.asarray(value.item())
    else:
        yield key, value


def read_h5(path: Path) -> dict[str, Any]:
    """The datasets of a file by name, and its attributes under the name attributes. JSON in an attribute is decoded."""
    content: dict[str, Any] = {}
    with h5py.File(path) as handle:
        for name, dataset in handle.items():
            if name.endswith("_states"):  # times of the photos' files
                continue
            content[name] = (
                [str(text) for text in dataset.asstr()[:]] if h5py.check_string_dtype(dataset.dtype) else dataset[:]
            )
        attributes: dict[str, Any] = {}
        for name, value in handle.attrs.items():
            attributes[name] = value.item() if isinstance(value, np.generic) else value
            with contextlib.suppress(TypeError, ValueError):
                attributes[name] = json.loads(value)
    return content | {"attributes": plain(attributes)}


def read_pt(path: Path) -> dict[str, Any]:
    import torch

    return plain(torch.load(path, weights_only=True, map_location="cpu"))


def read(path: Path, root: Path) -> dict[str, Any]:
    """The leaves of a file by key; a file of an unknown kind has one leaf, its bytes."""
    if path.suffix == ".h5":
        return dict(leaves(read_h5(path)))
    if path.suffix == ".pt":
        return dict(leaves(read_pt(path)))
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text().replace(str(root), "RUN")
        return dict(
            leaves(
                plain([json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text))
            )
        )
    if path.suffix in (".csv", ".txt"):
        return {"text": path.read_text().replace(str(root), "RUN")}
    return {"bytes": np.frombuffer(path.read_bytes(), np.uint8)}


def artefacts(root: Path) -> dict[str, list[Path]]:
    """The files behind each row of the output; all photos share one row."""
    files_of: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not any(part in name for part in IGNORED_FILES) and not name.startswith("workspace/"):
            files_of.setdefault("rendered photos" if path.suffix == ".jpg" else name, []).append(path)
    return files_of


def difference(before: Any, after: Any) -> float | None:
    """None if two leaves are equal bit for bit, else their largest difference; it is infinite where they cannot be
    subtracted."""
    if isinstance(before, (np.ndarray, np.generic)) or isinstance(after, (np.ndarray, np.generic)):
        a, b = np.asarray(before), np.asarray(after)
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.tobytes() == b.tobytes():
            return None
        return (
            float(np.nanmax(np.abs(a.astype(np.float64) - b.astype(np.float64))))
            if a.dtype.kind in "fiub"
            else float("inf")
        )
    if type(before) is type(after) and (before == after or (before != before and after != after)):
        return None
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (before, after))
    return abs(before - after) if numbers else float("inf")


def compare(before_root: Path, after_root: Path) -> list[tuple[str, int, str]]:
    """Rows of (artefact, number of values compared, "equal" or what differs), for everything that either side wrote."""
    before, after = artefacts(before_root), artefacts(after_root)
    rows = []
    for name in sorted(before.keys() | after.keys()):
        sides = []
        for root, files in ((before_root, before.get(name)), (after_root, after.get(name))):
            content = {
                f"{path.relative_to(root)}:{key}": leaf
                for path in files or ()
                for key, leaf in read(path, root).items()
            }
            sides.append(content)
        n_values = sum(np.size(leaf) for leaf in sides[0].values())
        if name not in before or name not in after:
            rows.append((name, n_values, f"only {'before' if name in before else 'after'}"))
            continue
        worst: tuple[float, str] | None = None
        for key in sorted(sides[0].keys() | sides[1].keys()):
            gap = (
                float("inf") if key not in sides[0] or key not in sides[1] else difference(sides[0][key], sides[1][key])
            )
            if gap is not None and (worst is None or gap > worst[0]):
                worst = gap, key
        rows.append((name, n_values, "equal" if worst is None else f"differs by {worst[0]:.3g} at {worst[1]}"))
    return rows


def same_training(root: Path) -> str:
    """Whether the run that was stopped and resumed ended as the undisturbed one did: "equal" or "differs"."""
    whole, resumed = (read(root / name / "checkpoint.pt", root) for name in ("gem", "resumed"))
    keys = [key for key in whole if key.startswith(("/state_dict", "/loss_state"))]
    return "equal" if all(difference(whole[key], resumed.get(key)) is None for key in keys) else "differs"


# --- both sides


def check_out(commit: str, folder: Path) -> str:
    """Makes a worktree of a commit in which its operators can be imported. Returns the commit's full name."""
    full = subprocess.run(
        ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if full.returncode:
        raise SystemExit(f"{commit} is no commit here; name one: python benchmarks/same_as.py BEFORE [AFTER]")
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(folder / "code"), commit], cwd=ROOT, check=True
    )
    (folder / "modules").mkdir()
    (folder / "modules/ultron_kernels").symlink_to(folder / "code/kernels")
    (folder / "run").mkdir()
    return full.stdout.strip()


def start(folder: Path, steps_file: Path) -> "subprocess.Popen[str]":
    """Starts the chain of one side, which writes to folder/stderr.txt how far it is."""
    run = folder / "run"
    environment = os.environ | {
        "PYTHONPATH": f"{folder / 'code'}{os.pathsep}{folder / 'modules'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ULTRON_WORKSPACE": str(run / "workspace"),
        "ULTRON_DATA": str(run / "data"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    with open(folder / "stderr.txt", "w") as log:
        command = [sys.executable, str(Path(__file__).resolve()), "--chain", str(steps_file)]
        return subprocess.Popen(command, cwd=run, env=environment, stdout=subprocess.DEVNULL, stderr=log, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", default="v-before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--one-by-one", action="store_true", help="run the two sides after each other, on one core")
    parser.add_argument("--first", type=int, metavar="N", help="only so many commands of the chain (all)")
    parser.add_argument("--chain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chain:
        # The child imports the modules of its worktree, not those beside this script.
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
        run_chain(json.loads(options.chain.read_text()))
        return 0
    started_s, work = time.monotonic(), Path(tempfile.mkdtemp(prefix="ultron-same-as-")).resolve()
    folders = {"before": work / "before", "after": work / "after"}
    try:
        steps_file = work / "steps.json"
        steps_file.write_text(json.dumps(chain()[: options.first]))
        for side, commit in (("before", options.before), ("after", options.after)):
            folders[side].mkdir()
            print(f"{side:<6} {check_out(commit, folders[side])}", flush=True)
        processes = {}
        for side, folder in folders.items():
            processes[side] = start(folder, steps_file)
            if options.one_by_one:
                processes[side].wait()
        for side, process in processes.items():
            if process.wait():
                print((folders[side] / "stderr.txt").read_text()[-4000:], file=sys.stderr)
                print(f"the chain of {side} ended with {process.returncode}", file=sys.stderr)
                return 1
        rows = compare(folders["before"] / "run", folders["after"] / "run")
        if (folders["after"] / "run/resumed").exists():
            rows.append(("the resumed run against the undisturbed one", 1, same_training(folders["after"] / "run")))
        width = max(len(name) for name, _, _ in rows)
        for name, n_values, verdict in rows:
            print(f"{name:<{width}}  {n_values:>9}  {verdict}")
        n_other = sum(verdict != "equal" for _, _, verdict in rows)
        print(f"{len(rows) - n_other} of {len(rows)} equal, {time.monotonic() - started_s:.0f} s")
        return int(n_other > 0)
    finally:
        for folder in folders.values():
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(folder / "code")], cwd=ROOT, capture_output=True
            )
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
