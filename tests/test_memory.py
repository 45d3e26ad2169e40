"""The memory budget: what is refused, and how readers share it; and the peak that is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from ultron_cli import memory
from ultron_cli.errors import UltronError
from ultron_cli.machine import peak_mib
from ultron_cli.memory import (
    MEMORY_VARIABLE,
    available_bytes,
    bytes_text,
    check_memory,
    memory_budget,
    parse_bytes,
    set_memory_budget,
    shared_memory,
)

GIB = 2**30
CHILD = "from ultron_cli.machine import peak_mib; print(peak_mib())"


@pytest.fixture(autouse=True)
def no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without one."""
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    set_memory_budget(None)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4GiB", 4 * GIB), ("500M", 500 * 2**20), ("1.5 tb", 1.5 * 2**40), ("64KB", 65536), (" 2g ", 2 * GIB)],
)
def test_amounts_are_read(text: str, n_bytes: int) -> None:
    assert parse_bytes(text, "--max-memory") == n_bytes


@pytest.mark.parametrize("text", ["", "4", "GiB", "-1GiB", "0M", "4 parsec", "1e3M", "nan", "4GiB 2MiB"])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(UltronError, match="--max-memory takes an amount of memory such as 4GiB or 500MiB; found"):
        parse_bytes(text, "--max-memory")


def test_amounts_are_told() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1024, 1.3 * GIB, 5 * 2**40, 3 * 2**50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.3 GiB",
        "5.0 TiB",
        "3,072.0 TiB",
    ]


def test_the_budget_comes_from_the_setting_then_the_environment_then_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = available_bytes()
    assert free is not None
    assert memory_budget() == pytest.approx(0.75 * free, rel=0.5)
    monkeypatch.setenv(MEMORY_VARIABLE, "3GiB")
    assert memory_budget() == 3 * GIB
    set_memory_budget(2 * GIB)
    assert memory_budget() == 2 * GIB
    set_memory_budget(None)
    monkeypatch.setenv(MEMORY_VARIABLE, "much")
    with pytest.raises(UltronError, match="ULTRON_MAX_MEMORY takes an amount"):
        memory_budget()


def test_what_does_not_fit_is_refused_with_the_figure() -> None:
    set_memory_budget(GIB)
    check_memory(GIB, "a.faiss: the index")
    with pytest.raises(UltronError) as caught:
        check_memory(int(1.5 * GIB), "a.faiss: an index of 9 photos")
    assert str(caught.value) == (
        "a.faiss: an index of 9 photos would take 1.5 GiB of memory, more than the 1.0 GiB that may be taken; set "
        "`max_memory` (or the variable ULTRON_MAX_MEMORY) to 2GiB to allow it"
    )


def test_readers_at_the_same_time_share_the_budget() -> None:
    set_memory_budget(4 * GIB)
    with shared_memory(4):
        check_memory(GIB, "x")
        with pytest.raises(UltronError, match=r"4\.0 GiB that may be taken, of which each of 4 readers.* to 8GiB"):
            check_memory(2 * GIB, "x")
    assert memory_budget() == 4 * GIB


def test_a_container_or_job_bounds_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit, use, cached in (("", "max", 0, 0), ("job", 3 * GIB, GIB, GIB // 2), ("job/step", "max", 1, 0)):
        group = tmp_path / name
        group.mkdir(exist_ok=True)
        for file, text in (
            ("memory.max", limit),
            ("memory.current", use),
            ("memory.stat", f"anon 5\ninactive_file {cached}"),
        ):
            (group / file).write_text(f"{text}\n")
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/job/step\n")
    monkeypatch.setattr(memory, "GROUPS", [("", tmp_path, *memory.GROUPS[0][2:])])
    monkeypatch.setattr(memory, "OWN_GROUPS", cgroup)
    assert list(memory._free_in_groups()) == [int(2.5 * GIB)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program's peak from its parent's")
def test_the_peak_is_the_program_s_own() -> None:
    """A started program does not take over the peak of the one that started it, as getrusage has it on Linux."""
    block = b"1" * (300 << 20)
    assert peak_mib() > len(block) / 2**20
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert 1 < float(child.stdout) < 150
