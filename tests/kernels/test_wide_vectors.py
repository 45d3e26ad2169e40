"""The kernels for AVX-512, with vectors made of two halves, against those for AVX2: processors with AVX-512 are not
everywhere."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tests.kernels.emulator.binding import CSRC, EMULATOR

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="needs AVX2"
)
def test_vectors_of_64_bytes_give_what_vectors_of_32_give(tmp_path: Path) -> None:
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
        "-o",
        str(tmp_path / "compare"),
    ]
    subprocess.run(command, check=True)
    process = subprocess.run([tmp_path / "compare"], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "28 cases equal\n")
