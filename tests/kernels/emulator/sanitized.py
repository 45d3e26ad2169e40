"""Shapes with every kind of border, run under the address sanitizer by test_sanitizer.py in a process of its own.

python -m tests.kernels.emulator.sanitized LIBRARY
"""

import sys
from pathlib import Path

from tests.kernels.emulator.binding import load_emulator
from tests.kernels.emulator.cdconv_runs import CONV_CASES, check_cdconv
from tests.kernels.emulator.scala_runs import Case, run_scala

SANITIZED_CASES = [
    Case(size=(2, 17, 9, 1, dim), k=k, dtype=dtype, dropout_p=p)
    for dtype in ("float16", "float32")
    for dim, k, p in ((8, 3, 0.0), (24, 7, 0.2), (72, 9, 0.0))
] + [Case(size=(1, 9, 22, 1, 128), k=13, dtype=dtype, layout="split") for dtype in ("bfloat16", "float32")]


def run_sanitized(library: str) -> None:
    """Runs the shapes with a library that was built for the sanitizer."""
    kernels = load_emulator(Path(library))
    for case in SANITIZED_CASES:
        run_scala(kernels, case)
    for case in CONV_CASES:
        check_cdconv(kernels, case)


if __name__ == "__main__":
    run_sanitized(sys.argv[1])
