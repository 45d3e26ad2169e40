"""Runs the tests with the lowest or with the newest versions that pyproject.toml allows: `make test-lowest`,
`make test-newest`. Each has an environment of its own in build/versions, made anew where the versions have changed.

What comes after the name goes to pytest: `python tests/versions.py lowest -m "not slow"`.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}  # of direct dependencies; what those need is newest


def run(*command: str | Path, **variables: str) -> None:
    """Runs a command in the project's folder. Raises CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, env={**os.environ, **variables})


def make_environment(name: str) -> Path:
    """The interpreter of the environment with these versions, installed unless it is there."""
    folder = ROOT / "build" / "versions"
    tools = folder / "tools"
    if not tools.exists():
        venv.create(tools, with_pip=True)
        run(tools / "bin" / "python", "-m", "pip", "install", "--quiet", "uv")
    uv, python = tools / "bin" / "uv", folder / name / "bin" / "python"
    resolved, installed = folder / f"{name}.txt", folder / name / "installed.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    choice = ("--resolution", RESOLUTIONS[name], "--python-version", version)
    run(uv, "pip", "compile", "pyproject.toml", "--extra", "test", *choice, "--quiet", "--output-file", resolved)
    if not installed.exists() or installed.read_text() != resolved.read_text():
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder / name)
        run(uv, "pip", "install", "--quiet", "--python", python, "--requirement", resolved)
        run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--editable", ".")
        installed.write_text(resolved.read_text())
    return python


def main(name: str, *arguments: str) -> None:
    """Makes the environment and runs the tests in it."""
    python = make_environment(name)
    run(python, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-q", *arguments, OMP_NUM_THREADS="1")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in RESOLUTIONS:
        sys.exit(f"name the versions: {' or '.join(RESOLUTIONS)}")
    main(*sys.argv[1:])
