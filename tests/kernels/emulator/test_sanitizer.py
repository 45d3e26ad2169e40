"""The emulated CUDA kernels under the address sanitizer."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.emulator.binding import build_emulator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(
    platform.system() != "Linux", reason="the sanitizer is put before Python's own libraries by the Linux loader"
)
def test_address_sanitizer_finds_nothing() -> None:
    """Every access to shared and global memory lies within its array, exactly: a process of its own runs some shapes
    under the sanitizer."""
    sanitizer = (
        shutil.which("g++")
        and subprocess.run(
            ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    if not sanitizer or not Path(sanitizer).is_absolute():
        pytest.skip("no g++ with the address sanitizer")
    library = build_emulator("-O0", "-fsanitize=address")
    environment = os.environ | {"LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.kernels.emulator.sanitized", str(library)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
