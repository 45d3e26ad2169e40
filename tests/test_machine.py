"""What the machine is asked for."""

import subprocess
import sys

import pytest

from ultron_cli.machine import peak_mib

CHILD = "from ultron_cli.machine import peak_mib; print(peak_mib())"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program's peak from its parent's")
def test_the_peak_is_the_program_s_own() -> None:
    """A started program does not take over the peak of the one that started it, as getrusage has it on Linux."""
    block = b"1" * (300 << 20)
    assert peak_mib() > len(block) / 2**20
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert 1 < float(child.stdout) < 150
