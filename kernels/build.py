"""Builds the compiled operators at first use, into a cache keyed by everything that shapes them, and loads them into PyTorch.

Nothing is compiled at installation: an isolated build would download PyTorch twice. A build runs in a process of its own under a
file lock, so several processes that start at once build once; its result is renamed into place, so a name that exists is whole.
"""

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "csrc"
COMPILE = Path(__file__).with_name("compile.py")
SOURCE_SUFFIXES = (".h", ".inc", ".cpp", ".cu", ".cuh")
COMPILED_SUFFIXES = (".cpp", ".cu")
CUDA_ARCHITECTURES = "8.0;9.0+PTX"
BUILD_TIMEOUT_S = 1800
LOADED: set[str] = set()


class BuildError(RuntimeError):
    """Why an operator library cannot be built or loaded on this machine, in one line."""


def cache_folder() -> Path:
    """Where built libraries are kept: ULTRON_KERNEL_CACHE, else the user's cache folder."""
    own = os.environ.get("ULTRON_KERNEL_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ultron" / "kernels"


def compiler() -> str:
    """The C++ compiler: CXX, else c++. Raises BuildError if there is none."""
    name = os.environ.get("CXX") or "c++"
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"no C++ compiler ({name} is not on the path); install one, or set CXX")
    return found


@functools.cache
def cuda_toolkit() -> Path:
    """The folder of a CUDA toolkit that has a compiler and headers. Raises BuildError if there is none.

    torch looks only beside nvcc, where a wrapper or a link may stand without the headers.
    """
    nvcc = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), nvcc and Path(nvcc).resolve().parent.parent, "/usr/local/cuda"]
    places += sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
    for place in places:
        if place and (Path(place) / "bin" / "nvcc").exists() and (Path(place) / "include" / "cuda_runtime.h").exists():
            return Path(place)
    raise BuildError("no CUDA toolkit (nvcc with its headers) found; install one, or set CUDA_HOME")


def check_buildable(which: str) -> None:
    """Raises BuildError if this machine lacks what building needs. which: "cpu" or "cuda"."""
    if sys.platform == "win32":
        raise BuildError("the operators are not built on Windows")
    compiler()
    if which == "cuda":
        if torch.version.cuda is None:
            raise BuildError("this PyTorch is built without CUDA")
        cuda_toolkit()


@functools.cache
def version_of(program: str) -> str:
    """What a compiler says about itself."""
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@functools.cache
def library_path(which: str) -> Path:
    """Where the built library of this source, PyTorch, compiler and CUDA belongs. Raises BuildError where it cannot be built."""
    check_buildable(which)
    parts = [torch.__version__, platform.machine(), platform.python_version(), version_of(compiler())]
    parts += [version_of(str(cuda_toolkit() / "bin" / "nvcc")), cuda_architectures()] if which == "cuda" else []
    parts += [path.read_text(encoding="utf-8") for path in (Path(__file__), COMPILE)]
    parts += [path.relative_to(SOURCES).as_posix() + path.read_text(encoding="utf-8") for path in source_files(which)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / key / f"ultron_{which}.so"


def source_files(which: str) -> list[Path]:
    """The files that a library is made from, headers included."""
    return sorted(path for folder in ("common", which) for path in (SOURCES / folder).iterdir() if path.suffix in SOURCE_SUFFIXES)


def cuda_architectures() -> str:
    """TORCH_CUDA_ARCH_LIST if set, else what the project is tuned for, with PTX for the rest."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHITECTURES


def build(which: str, *, retry: bool = False) -> Path:
    """The built library, built now if need be; a build that failed is not tried again unless `retry`. Raises BuildError."""
    library = library_path(which)
    if library.exists():
        return library
    failure = library.with_suffix(".failed")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with open(library.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if library.exists():
                return library
            if failure.exists() and not retry:
                raise BuildError(failure.read_text(encoding="utf-8"))
            print(f"ultron: compiling the {which} operators, once for this machine (1 to 3 minutes) ...", file=sys.stderr, flush=True)
            compile_library(which, library, failure)
    except OSError as error:
        raise BuildError(f"cannot write to the cache of compiled operators: {error}; set ULTRON_KERNEL_CACHE to a folder of yours") from error
    return library


def compile_library(which: str, library: Path, failure: Path) -> None:
    """Compiles in a temporary folder and renames the result into place. Leaves the reason in `failure` and raises BuildError."""
    environment = dict(os.environ)
    if which == "cuda":
        environment |= {"CUDA_HOME": str(cuda_toolkit()), "TORCH_CUDA_ARCH_LIST": cuda_architectures()}
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{which}-") as folder:
        command = [sys.executable, "-m", "ultron_kernels.compile", which, folder]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            output = f"error: not done after {BUILD_TIMEOUT_S} s"
        built = Path(folder) / library.name
        if built.exists():
            os.replace(built, library)
            failure.unlink(missing_ok=True)
            return
        log = library.with_suffix(".log")
        log.write_text(output, encoding="utf-8")
        lines = [line for line in output.splitlines() if "error" in line.lower()] or output.splitlines()[-1:] or ["no output"]
        reason = f"compiling the {which} operators failed: {lines[0].strip()[:300]} (all output: {log}; try again: ultron doctor --build)"
        failure.write_text(reason, encoding="utf-8")
        raise BuildError(reason)


def load(which: str, *, retry: bool = False) -> None:
    """Makes torch.ops.ultron.* run on "cpu" or "cuda" tensors, building first if need be. Raises BuildError."""
    if which in LOADED:
        return
    if which == "cuda" and not torch.cuda.is_available():
        raise BuildError("no CUDA device")
    library = build(which, retry=retry)
    try:
        torch.ops.load_library(str(library))
    except (OSError, RuntimeError) as error:
        raise BuildError(f"{library} does not load: {str(error).splitlines()[0]}; delete it and run `ultron doctor --build`") from error
    LOADED.add(which)
