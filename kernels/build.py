"""Builds the compiled operators at first use and loads them into PyTorch.

Nothing is compiled at installation: an isolated build would download PyTorch twice. A library lies in a cache, under
a key of everything that shapes it. A build runs in a separate process under a file lock, so that several processes that
start at once build once. Its result is renamed into place, so a library that is there is whole.

`device_type` is "cpu" or "cuda" throughout.
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

SOURCES = Path(__file__).parent / "csrc"  # common/, cpu/ and cuda/
COMPILE = Path(__file__).with_name("compile.py")
SOURCE_SUFFIXES = (".h", ".inc", ".cpp", ".cu", ".cuh")
COMPILED_SUFFIXES = (".cpp", ".cu")
CUDA_ARCHITECTURES = "8.0;9.0+PTX"
BUILD_TIMEOUT_S = 1800
LOADED: set[str] = set()  # the device types whose library this process has loaded


class BuildError(RuntimeError):
    """Why an operator library cannot be built or loaded on this machine, in one line."""


def cache_folder() -> Path:
    """Where built libraries lie: ULTRON_KERNEL_CACHE, else a folder in the user's cache."""
    folder = os.environ.get("ULTRON_KERNEL_CACHE")
    if folder:
        return Path(folder)
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "ultron" / "kernels"


def compiler() -> str:
    """The C++ compiler: CXX, else c++. Raises BuildError if there is none."""
    name = os.environ.get("CXX") or "c++"
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"no C++ compiler ({name} is not on the path); install one, or set CXX")
    return path


@functools.cache
def cuda_toolkit() -> Path:
    """The folder of a CUDA toolkit that has a compiler and headers. Raises BuildError if there is none.

    torch looks only beside nvcc, where a wrapper or a link may stand without the headers.
    """
    nvcc = shutil.which("nvcc")
    candidates = [Path(folder) for name in ("CUDA_HOME", "CUDA_PATH") if (folder := os.environ.get(name))]
    if nvcc:
        candidates.append(Path(nvcc).resolve().parent.parent)
    candidates += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    for toolkit in candidates:
        if (toolkit / "bin" / "nvcc").exists() and (toolkit / "include" / "cuda_runtime.h").exists():
            return toolkit
    raise BuildError("no CUDA toolkit (nvcc with its headers) found; install one, or set CUDA_HOME")


def check_buildable(device_type: str) -> None:
    """Raises BuildError if this machine lacks what building needs."""
    if sys.platform == "win32":
        raise BuildError("the operators are not built on Windows")
    compiler()
    if device_type == "cuda":
        if torch.version.cuda is None:
            raise BuildError("this PyTorch is built without CUDA")
        cuda_toolkit()


@functools.cache
def version_of(program: str) -> str:
    """What a compiler prints for --version."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60)
    return result.stdout.strip()


@functools.cache
def library_path(device_type: str) -> Path:
    """The file of the library that this source, PyTorch, compiler and CUDA give, whether it is built yet or not.

    Raises BuildError where it cannot be built.
    """
    check_buildable(device_type)
    parts = [torch.__version__, platform.machine(), platform.python_version(), version_of(compiler())]
    if device_type == "cuda":
        parts += [version_of(str(cuda_toolkit() / "bin" / "nvcc")), cuda_architectures()]
    parts += [path.read_text(encoding="utf-8") for path in (Path(__file__), COMPILE)]
    for path in source_files(device_type):
        parts += [path.relative_to(SOURCES).as_posix(), path.read_text(encoding="utf-8")]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / key / f"ultron_{device_type}.so"


def source_files(device_type: str) -> list[Path]:
    """The files that a library is made from, headers included."""
    folders = (SOURCES / "common", SOURCES / device_type)
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in SOURCE_SUFFIXES)


def cuda_architectures() -> str:
    """TORCH_CUDA_ARCH_LIST if set, else the devices that the kernels are tuned for, with PTX for later ones."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHITECTURES


def build(device_type: str, *, retry: bool = False) -> Path:
    """Returns the library's file and builds it if it is not there.

    A build that failed is not tried again unless `retry`. Raises BuildError.
    """
    library = library_path(device_type)
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
            message = f"ultron: compiling the {device_type} operators, once for this machine (1 to 3 minutes) ..."
            print(message, file=sys.stderr, flush=True)
            compile_library(device_type, library, failure)
    except OSError as error:
        raise BuildError(
            f"cannot write to the cache of compiled operators: {error}; set ULTRON_KERNEL_CACHE to a folder of yours"
        ) from error
    return library


def compile_library(device_type: str, library: Path, failure: Path) -> None:
    """Compiles in a temporary folder and renames the result to `library`.

    library: the file to make. failure: the file that keeps the reason where compiling fails. Raises BuildError.
    """
    environment = dict(os.environ)
    if device_type == "cuda":
        environment |= {"CUDA_HOME": str(cuda_toolkit()), "TORCH_CUDA_ARCH_LIST": cuda_architectures()}
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{device_type}-") as folder:
        command = [sys.executable, "-m", "ultron_kernels.compile", device_type, folder]
        try:
            result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
            output = result.stdout + result.stderr
        except subprocess.TimeoutExpired:
            output = f"error: not done after {BUILD_TIMEOUT_S} s"
        compiled = Path(folder) / library.name
        if compiled.exists():
            os.replace(compiled, library)
            failure.unlink(missing_ok=True)
            return
    log = library.with_suffix(".log")
    log.write_text(output, encoding="utf-8")
    problem = first_error(output)
    reason = (
        f"compiling the {device_type} operators failed: {problem} (all output: {log}; try again: ultron doctor --build)"
    )
    failure.write_text(reason, encoding="utf-8")
    raise BuildError(reason)


def first_error(output: str) -> str:
    """The first line of a compiler's output that speaks of an error, else its last line; at most 300 characters."""
    lines = output.splitlines()
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no output"])[0].strip()[:300]


def load(device_type: str, *, retry: bool = False) -> None:
    """Makes torch.ops.ultron.* run on "cpu" or "cuda" tensors, building first if need be. Raises BuildError."""
    if device_type in LOADED:
        return
    if device_type == "cuda" and not torch.cuda.is_available():
        raise BuildError("no CUDA device")
    library = build(device_type, retry=retry)
    try:
        torch.ops.load_library(str(library))
    except (OSError, RuntimeError) as error:
        raise BuildError(
            f"{library} does not load: {str(error).splitlines()[0]}; delete it and run `ultron doctor --build`"
        ) from error
    LOADED.add(device_type)
