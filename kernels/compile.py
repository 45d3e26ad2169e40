"""python -m ultron_kernels.compile cpu|cuda FOLDER: compiles one operator library into FOLDER. Run by build.py."""

import os
import sys

from torch.utils import cpp_extension
from ultron_kernels.build import COMPILED_SUFFIXES, SOURCES, source_files

try:
    import ninja  # its program need not be on the path: environments are often used without being activated
except ImportError:
    ninja = None  # torch then looks for it on the path

# Without -fopenmp torch's parallel_for runs on one thread, silently. Apple's compiler has no such flag.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]
CFLAGS = ["-O3", "-std=c++20", "-fno-math-errno", "-ffp-contract=fast", *OPENMP]
NVCC_FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr"]


def main(device_type: str, folder: str) -> None:
    """Compiles the library for "cpu" or "cuda" into `folder`, with all that the compilers say on stdout."""
    if ninja is not None:
        os.environ["PATH"] = ninja.BIN_DIR + os.pathsep + os.environ.get("PATH", "")
    is_cuda = device_type == "cuda"
    cpp_extension.load(
        name=f"ultron_{device_type}",
        sources=[str(path) for path in source_files(device_type) if path.suffix in COMPILED_SUFFIXES],
        extra_include_paths=[str(SOURCES)],
        extra_cflags=CFLAGS,
        extra_cuda_cflags=NVCC_FLAGS if is_cuda else None,
        extra_ldflags=OPENMP,
        build_directory=folder,
        with_cuda=is_cuda,
        is_python_module=False,
        verbose=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
