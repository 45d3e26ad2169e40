"""The emulator, loaded once in a session of tests."""

import ctypes
import shutil

import pytest

from tests.kernels.emulator.binding import build_emulator, load_emulator


@pytest.fixture(scope="session")
def kernels() -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the emulator with")
    return load_emulator(build_emulator())
