"""python -m ultron_kernels.compile NAME FOLDER: compiles one library of build.NAMES into FOLDER. Run by build.py."""

import os
import subprocess
import sys

from ultron_kernels.build import ALONE, COMPILED_SUFFIXES, SOURCES, compiler, source_files

# Without -fopenmp torch's parallel_for runs on one thread, silently. Apple's compiler has no such flag.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]
CFLAGS = ["-O3", "-std=c++20", "-fno-math-errno"]
CONTRACTED = "-ffp-contract=fast"
ROUNDED = "-ffp-contract=off"  # as it is written
NVCC_FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr"]


def main(name: str, folder: str) -> None:
    """Compiles a library into `folder`, with all that the compilers say on stdout."""
    sources = [str(path) for path in source_files(name) if path.suffix in COMPILED_SUFFIXES]
    if name in ALONE:
        rounding = CONTRACTED if name == "search" else ROUNDED
        compile_alone([rounding, *sources], os.path.join(folder, f"ultron_{name}.so"))
    else:
        compile_operators(name, sources, folder)


def compile_alone(arguments: list[str], library: str) -> None:
    """A library that stands on nothing. arguments: its sources, and how they are rounded."""
    command = [compiler(), *CFLAGS, "-shared", "-fPIC", f"-I{SOURCES}", *arguments, "-o", library]
    sys.exit(subprocess.run(command, stdout=sys.stdout, stderr=sys.stdout).returncode)


def compile_operators(device_type: str, sources: list[str], folder: str) -> None:
    """A library of operators for PyTorch, by its own way of building."""
    from torch.utils import cpp_extension

    try:
        import ninja  # its program need not be on the path: environments are often used without being activated
    except ImportError:
        pass  # torch then looks for it on the path
    else:
        os.environ["PATH"] = ninja.BIN_DIR + os.pathsep + os.environ.get("PATH", "")
    is_cuda = device_type == "cuda"
    cpp_extension.load(
        name=f"ultron_{device_type}",
        sources=sources,
        extra_include_paths=[str(SOURCES)],
        extra_cflags=[*CFLAGS, CONTRACTED, *OPENMP],
        extra_cuda_cflags=NVCC_FLAGS if is_cuda else None,
        extra_ldflags=OPENMP,
        build_directory=folder,
        with_cuda=is_cuda,
        is_python_module=False,
        verbose=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
