"""Memory that stays: minor page faults of a process that frees and asks again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

ROUNDS = """
import resource, sys
from ultron_cli.allocator import keep_memory
says = keep_memory() if "keep" in sys.argv else None
def touch():
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * (len(block) // 4096)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(says, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, "torch" in sys.modules)
"""
needs_glibc = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="memory is not glibc's here"
)


def faults(*arguments: str, **environment: str) -> tuple[str, int]:
    """(what keep_memory says, page faults of four rounds over 64 MB) of a fresh process."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", ROUNDS, *arguments]
    completed = subprocess.run(command, env={**bare, **environment}, capture_output=True, text=True, check=True)
    says, n_faults, loads_torch = completed.stdout.split()
    assert loads_torch == "False"
    return says, int(n_faults)


@needs_glibc
def test_freed_memory_stays() -> None:
    assert faults()[1] > 4 * 16000  # of 16,384 pages a round
    says, n_faults = faults("keep")
    assert says == "True" and n_faults < 1000


@needs_glibc
@pytest.mark.parametrize("tuned", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}])
def test_what_the_environment_tunes_is_left_alone(tuned: dict[str, str]) -> None:
    says, n_faults = faults("keep", **tuned)
    assert says == "False" and n_faults > 4 * 16000


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultron_cli import allocator

    monkeypatch.setattr(allocator.os, "confstr_names", {}, raising=False)
    assert not allocator.keep_memory()


@pytest.mark.parametrize("command", ["extract", "train", "serve"])
def test_commands_that_run_a_network_keep_memory(
    command: str, ultron: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("ultron_cli.allocator.keep_memory", lambda: calls.append(True))
    nothing = ("--database",) if command == "serve" else ("--dataset",)
    code, _, _ = ultron(command, *nothing, tmp_path / "nothing")
    assert code == 2 and calls == [True]
