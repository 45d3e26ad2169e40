"""make gpu-check: builds the operators, runs the tests marked gpu, compute-sanitizer and the benchmark on this machine's NVIDIA GPU.

    python benchmarks/gpu_check.py [--skip-sanitizer]

Works in any environment that has PyTorch for CUDA and pytest; ultron need not be installed. Writes benchmarks/results/GPU-NAME.md.
The exit code is 1 if any step failed; every step is run and its end is shown.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(folder: Path) -> dict[str, str]:
    """Environment variables with which the checkout's packages are found without installing them."""
    (folder / "ultron_kernels").symlink_to(ROOT / "kernels")
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ULTRON_KERNELS": "auto"}


def run(title: str, command: list[str], env: dict[str, str]) -> bool:
    print(f"\n== {title}", flush=True)
    done = subprocess.run(command, cwd=ROOT, env=env)
    print(f"== {title}: {'done' if done.returncode == 0 else f'FAILED, exit code {done.returncode}'}", flush=True)
    return done.returncode == 0


def sanitizer() -> str | None:
    """compute-sanitizer, on the path or in the toolkit that builds use."""
    found = shutil.which("compute-sanitizer")
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda") / "bin" / "compute-sanitizer"
    return found or (str(toolkit) if toolkit.exists() else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-sanitizer", action="store_true")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked", file=sys.stderr)
        return 1
    name = re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-").lower()
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder))
        steps = [("building", [python, "-c", "from ultron_kernels.build import load; load('cuda', retry=True)"])]
        steps += [("tests marked gpu", [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests"])]
        program = None if options.skip_sanitizer else sanitizer()
        for tool in ("memcheck", "racecheck") if program else ():
            steps.append((f"compute-sanitizer {tool}", [program, "--tool", tool, "--error-exitcode", "1", python, "benchmarks/sanitized.py"]))
        if not program:
            print("compute-sanitizer is not there or not wanted: memcheck and racecheck are left out", flush=True)
        steps += [("benchmark", [python, "benchmarks/kernels.py", "--device", "cuda", "--out", f"benchmarks/results/{name}.md"])]
        results = [run(title, command, env) for title, command in steps]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
