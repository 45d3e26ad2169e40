"""Builds, tests and measures the operators on this machine's NVIDIA GPU: what `make gpu-check` runs.

    python benchmarks/gpu_check.py [--steps build tests memcheck racecheck benchmark networks]

The steps build the operators, run the tests marked gpu, run compute-sanitizer, and run the benchmarks. They work in any
environment that has PyTorch for CUDA and pytest; ultron need not be installed. The results are written to
benchmarks/results/GPU-NAME.md (operators) and GPU-NAME-networks.md (training and describing with every network), their
rows beside them (rows.py). Every step is run, also after one that failed, and its end and time are shown. The exit code
is 1 if any step failed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("build", "tests", "memcheck", "racecheck", "benchmark", "networks")


def environment(folder: Path) -> dict[str, str]:
    """Environment variables with which the checkout's packages are found without being installed. folder: an empty
    one, for a link to them."""
    (folder / "ultron_kernels").symlink_to(ROOT / "kernels")
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ULTRON_KERNELS": "auto"}


def run(title: str, command: list[str], env: dict[str, str]) -> bool:
    """Runs one step, and says how it ended and how long it took. Returns whether it succeeded."""
    print(f"\n== {title}", flush=True)
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=env)
    ending = "done" if done.returncode == 0 else f"FAILED, exit code {done.returncode}"
    print(f"== {title}: {ending}, {time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


def sanitizer() -> str | None:
    """The path of compute-sanitizer: from PATH, or of the toolkit that compiles the operators; None if neither has
    it."""
    on_path = shutil.which("compute-sanitizer")
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda") / "bin" / "compute-sanitizer"
    return on_path or (str(toolkit) if toolkit.exists() else None)


def files_with_gpu_tests() -> list[str]:
    """Where tests marked gpu are, below ROOT: those of the operators take their devices from a fixture, others say
    it. Collecting all tests would take longer than running these."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    of_kernels = ROOT / "tests" / "kernels"
    marked = [path for path in files if of_kernels in path.parents or "mark.gpu" in path.read_text(encoding="utf-8")]
    return [str(path.relative_to(ROOT)) for path in marked]


def steps(gpu: str, names: list[str]) -> dict[str, list[str]]:
    """Title -> command of each step that is named, in the order of STEPS. gpu: its name, for the files of results."""
    python, commands = sys.executable, {}
    if "build" in names:
        commands["building"] = [python, "-c", "from ultron_kernels.build import load; load('cuda', retry=True)"]
    if "tests" in names:
        commands["tests marked gpu"] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
        commands["tests marked gpu"] += files_with_gpu_tests()
    for tool in ("memcheck", "racecheck"):
        if tool in names and sanitizer():
            commands[f"compute-sanitizer {tool}"] = [
                sanitizer(),
                "--tool",
                tool,
                "--error-exitcode",
                "1",
                python,
                "benchmarks/sanitized.py",
            ]
        elif tool in names:
            print(f"compute-sanitizer is not there: {tool} is left out", flush=True)
    if "benchmark" in names:
        commands["benchmark"] = [
            python,
            "benchmarks/kernels.py",
            "--device",
            "cuda",
            "--out",
            f"benchmarks/results/{gpu}.md",
            "--save",
        ]
    if "networks" in names:
        commands["networks"] = [
            python,
            "benchmarks/gpu_networks.py",
            "--rounds",
            "3",
            "--out",
            f"benchmarks/results/{gpu}-networks.md",
            "--save",
        ]
    return commands


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=STEPS,
        default=list(STEPS),
        help="what to do (all); on a machine lent for minutes, a few at a time",
    )
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked", file=sys.stderr)
        return 1
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-").lower()
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder))
        results = [run(title, command, env) for title, command in steps(gpu, options.steps).items()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
