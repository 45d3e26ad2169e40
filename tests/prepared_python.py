"""Python processes that start at once: a fork server that has imported PyTorch, and what stands on it, for all tests.

For tests of what a process does. What a process loads, or how it starts, is tested with a new interpreter
(sys.executable): importing torch, torchvision and timm takes it seconds.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "ultron_cli.training.start",
        "ultron_cli.retrieval.extraction.dataset",
        "torchvision.transforms.v2",
        "scipy.stats",
        "sklearn",
        "PIL.Image",
        "pytest",
    ]
)


def start_python(
    arguments: Sequence[object],
    out: Path,
    err: Path | None = None,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Starts `python ARGUMENTS` in a folder; what it prints goes into the files `out` and `err`, or all into `out`.

    arguments: `-c CODE`, `-m MODULE` or a path, and the arguments of that program. Without a folder and an environment
    the process has those of this one.
    """
    texts = [str(argument) for argument in arguments]
    variables = dict(os.environ if environment is None else environment)
    process = SERVER.Process(target=_be_python, args=(texts, out, err or out, folder or Path.cwd(), variables))
    process.start()
    return process


def run_python(
    arguments: Sequence[object],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` did. Raises TimeoutExpired, and has killed the process, if that takes too long."""
    with tempfile.TemporaryDirectory(prefix="ultron-python-") as temporary:
        out, err = Path(temporary) / "out", Path(temporary) / "err"
        process = start_python(arguments, out, err, folder=folder, environment=environment)
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(str(arguments), timeout_s)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(list(arguments), process.exitcode, out.read_text(), err.read_text())


def _be_python(arguments: list[str], out: Path, err: Path, folder: Path, environment: dict[str, str]) -> None:
    """Makes this new process what the interpreter of a command line is."""
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    option, *rest = arguments
    if option == "-c":
        code, *sys.argv[1:] = rest
        sys.argv[0] = "-c"
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif option == "-m":
        module, *sys.argv[1:] = rest
        sys.path.insert(0, str(folder))
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(option).resolve().parent))
        runpy.run_path(option, run_name="__main__")
