"""Builds the compiled libraries at first use and loads them.

There are five: "cpu" and "cuda" have the operators, which are loaded into PyTorch; "search" has the first pass of
exact search and the nearest features of two photos, "rendering" draws rendered landmarks, "scaling" brings photos to
the scales of a network, and these three know nothing of PyTorch, which takes seconds to import.

Nothing is compiled at installation: an isolated build would download PyTorch twice. A library lies in a cache, under
a key of everything that shapes it. A build runs in a separate process under a file lock, so that several processes that
start at once build once. Its result is renamed into place, so a library that is there is whole.

`name` is that of a library throughout.
"""

import ctypes
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

SOURCES = Path(__file__).parent / "csrc"  # common/ and a folder for each library
COMPILE = Path(__file__).with_name("compile.py")
SOURCE_SUFFIXES = (".h", ".inc", ".cpp", ".cu", ".cuh")
COMPILED_SUFFIXES = (".cpp", ".cu")
CUDA_ARCHITECTURES = "8.0;9.0+PTX"
BUILD_TIMEOUT_S = 1800
# The libraries that need no PyTorch, in words.
ALONE = {"search": "the search", "rendering": "the rendering", "scaling": "the scaling of photos"}
NAMES = ("cpu", "cuda", *ALONE)
SETTINGS = ("auto", "off", "cpu", "cuda")
LOADED: dict[str, ctypes.CDLL | None] = {}  # what this process has loaded; PyTorch keeps those of the operators


class BuildError(RuntimeError):
    """Why a library cannot be built or loaded on this machine, in one line."""


def setting() -> str:
    """ULTRON_KERNELS: auto (what can be built), off (the reference), cpu or cuda (that one, or an error).

    Raises ValueError for anything else.
    """
    value = os.environ.get("ULTRON_KERNELS") or "auto"
    if value not in SETTINGS:
        raise ValueError(f"ULTRON_KERNELS must be one of {', '.join(SETTINGS)}, got {value!r}")
    return value


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


def described(name: str) -> str:
    """What a library has, in words."""
    return ALONE.get(name) or f"the {name} operators"


def check_buildable(name: str) -> None:
    """Raises BuildError if this machine lacks what building needs."""
    if sys.platform == "win32":
        raise BuildError("nothing is compiled on Windows")
    compiler()
    if name in ("search", "scaling") and platform.machine() not in ("x86_64", "AMD64"):
        raise BuildError(f"compiling {described(name)} takes an x86-64 processor, this one is {platform.machine()}")
    if name == "cuda":
        import torch

        if torch.version.cuda is None:
            raise BuildError("this PyTorch is built without CUDA")
        cuda_toolkit()


@functools.cache
def version_of(program: str) -> str:
    """What a compiler prints for --version. Raises BuildError if it does not answer."""
    try:
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"the compiler {program} does not say its version ({error}); mend it, or set CXX") from error
    return result.stdout.strip()


@functools.cache
def library_path(name: str) -> Path:
    """The file of the library that its source, compiler and, for operators, PyTorch and CUDA give, whether it is built
    yet or not.

    Raises BuildError where it cannot be built.
    """
    check_buildable(name)
    parts = [platform.machine(), version_of(compiler())]
    if name not in ALONE:
        import torch

        parts += [torch.__version__, platform.python_version()]
    if name == "cuda":
        parts += [version_of(str(cuda_toolkit() / "bin" / "nvcc")), cuda_architectures()]
    parts += [path.read_text(encoding="utf-8") for path in (Path(__file__), COMPILE)]
    for path in source_files(name):
        parts += [path.relative_to(SOURCES).as_posix(), path.read_text(encoding="utf-8")]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / key / f"ultron_{name}.so"


def source_files(name: str) -> list[Path]:
    """The files that a library is made from, headers included."""
    folders = (SOURCES / "common", SOURCES / name)
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in SOURCE_SUFFIXES)


def cuda_architectures() -> str:
    """TORCH_CUDA_ARCH_LIST if set, else the devices that the kernels are tuned for, with PTX for later ones."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHITECTURES


def build(name: str, *, retry: bool = False) -> Path:
    """Returns the library's file and builds it if it is not there.

    A build that failed is not tried again unless `retry`. Raises BuildError.
    """
    library = library_path(name)
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
            duration = "seconds" if name in ALONE else "1 to 3 minutes"
            message = f"ultron: compiling {described(name)}, once for this machine ({duration}) ..."
            print(message, file=sys.stderr, flush=True)
            compile_library(name, library, failure)
    except OSError as error:
        raise BuildError(
            f"cannot write to the cache of compiled libraries: {error}; set ULTRON_KERNEL_CACHE to a folder of yours"
        ) from error
    return library


def compile_library(name: str, library: Path, failure: Path) -> None:
    """Compiles in a temporary folder and renames the result to `library`.

    library: the file to make. failure: the file that keeps the reason where compiling fails. Raises BuildError.
    """
    environment = dict(os.environ)
    if name == "cuda":
        environment |= {"CUDA_HOME": str(cuda_toolkit()), "TORCH_CUDA_ARCH_LIST": cuda_architectures()}
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{name}-") as folder:
        command = [sys.executable, "-m", "ultron_kernels.compile", name, folder]
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
    reason = f"compiling {described(name)} failed: {problem} (all output: {log}; try again: ultron doctor --build)"
    failure.write_text(reason, encoding="utf-8")
    raise BuildError(reason)


def first_error(output: str) -> str:
    """The first line of a compiler's output that speaks of an error, else its last line; at most 300 characters."""
    lines = output.splitlines()
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no output"])[0].strip()[:300]


def load(name: str, *, retry: bool = False) -> None:
    """Loads a library, building it first if need be: torch.ops.ultron.* then run on "cpu" or "cuda" tensors; one
    that needs no PyTorch is in LOADED. Raises BuildError."""
    if name in LOADED:
        return
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BuildError("no CUDA device")
    library = build(name, retry=retry)
    try:
        LOADED[name] = ctypes.CDLL(str(library)) if name in ALONE else load_operators(library)
    except (OSError, RuntimeError) as error:
        raise BuildError(
            f"{library} does not load: {str(error).splitlines()[0]}; delete it and run `ultron doctor --build`"
        ) from error


def ready_library(name: str, *, worth_building: bool) -> ctypes.CDLL | None:
    """A library of ALONE, built first where that is worth its seconds. None where it cannot be used: the caller's own
    way gives the same, later, and `ultron doctor` tells the reason."""
    if setting() not in ("auto", "cpu"):
        return None
    try:
        if name not in LOADED and (worth_building or library_path(name).exists()):
            load(name)
    except BuildError:
        return None
    return LOADED.get(name)


def load_operators(library: Path) -> None:
    """Gives a library of operators to PyTorch."""
    import torch

    torch.ops.load_library(str(library))
