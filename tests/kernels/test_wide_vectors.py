"""The kernels for AVX-512, with vectors made of two halves, against those for AVX2: processors with AVX-512 are not
everywhere."""

import platform
import shutil
import subprocess

import pytest
import torch

from tests.kernels.compiled import CSRC, EMULATOR, compiled

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="needs AVX2"
)
def test_vectors_of_64_bytes_give_what_vectors_of_32_give() -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    sources = [
        CSRC / "cpu" / "avx2.cpp",
        CSRC / "cpu" / "avx512.cpp",
        EMULATOR / "compare_vectors.cpp",
    ]
    command = [
        compiler,
        "-O1",
        "-std=c++20",
        "-fno-math-errno",
        "-DULTRON_WITHOUT_AVX512",
        f"-I{CSRC}",
        *map(str, sources),
    ]
    program, _ = compiled("compare", command)
    process = subprocess.run([program], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "28 cases equal\n")
