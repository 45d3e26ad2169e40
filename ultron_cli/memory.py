"""How much memory reading one file may take: what the machine and its groups have free, or what the user allows."""

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ultron_cli.errors import UltronError


def available_bytes() -> int | None:
    """Memory that a program can have without swapping, where the system says it: what the machine has free, or what the
    container or the job that this process belongs to may still take."""
    limits = [_free_in_machine(), *_free_in_groups()]
    return min((limit for limit in limits if limit is not None), default=None)


def _free_in_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS tells only what is built in
    except (AttributeError, OSError, ValueError):
        return None


OWN_GROUPS = Path("/proc/self/cgroup")
# Control groups of the second version, then of the first: what OWN_GROUPS calls them, where they are, their files of
# limit and use, and what memory.stat calls cached files.
GROUPS = (
    ("", Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    ("memory", Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _free_in_groups() -> Iterator[int]:
    """What each control group with a limit, from this process's own upwards, may still take; files that the system
    caches for it and would drop count as free."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for kind, root, limit_file, use_file, cache_key in GROUPS:
        inside = next((path for _, kinds, path in (line.split(":", 2) for line in lines) if kinds == kind), "/")
        folder = root / inside.lstrip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError, KeyError):  # no limit ("max"), or not to be seen from here
                limit = int((group / limit_file).read_text())
                cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())[cache_key]
                yield max(0, limit - int((group / use_file).read_text()) + int(cached))
            if group == root:
                break


MEMORY_VARIABLE = "ULTRON_MAX_MEMORY"
SHARE_OF_MEMORY = 0.75  # of what was free at first asking; the rest is for the network and for what is computed
ASSUMED_BYTES = 4 * 2**30  # where the system does not tell
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_total_bytes: int | None = None  # what set_memory_budget said
_n_readers = 1  # at work at the same time, each with its part


def parse_bytes(text: str, name: str) -> int:
    """`4GiB`, `500M` or `1.5 TB` in bytes, by powers of 1024. Raises UltronError, naming the setting, for anything
    else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT])i?B?", text.strip(), re.IGNORECASE)
    n_bytes = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if not n_bytes:
        raise UltronError(f"{name} takes an amount of memory such as 4GiB or 500MiB; found {text!r}")
    return n_bytes


def bytes_text(n_bytes: float) -> str:
    """`512 B`, `1.3 GiB`."""
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    power = min(4, int(math.log2(n_bytes)) // 10)
    return f"{n_bytes / 2 ** (10 * power):,.1f} {'KMGT'[power - 1]}iB"


@functools.cache
def _default_budget() -> int:
    """Asked once, so that what was let in at the beginning of a command is not refused at its end."""
    return int(SHARE_OF_MEMORY * (available_bytes() or ASSUMED_BYTES))


def memory_budget() -> int:
    """The most bytes that reading one file may take: max_memory, which is the flag --max-memory or ULTRON_MAX_MEMORY,
    else three quarters of what is free. Readers at work at the same time have each their part of it."""
    if _total_bytes is not None:
        return _total_bytes // _n_readers
    text = os.environ.get(MEMORY_VARIABLE)
    return (parse_bytes(text, MEMORY_VARIABLE) if text else _default_budget()) // _n_readers


def set_memory_budget(n_bytes: int | None, n_readers: int = 1) -> None:
    """Sets the budget of this process and how many readers share it, here or in processes beside it. None asks the
    environment and the machine."""
    global _total_bytes, _n_readers
    _total_bytes, _n_readers = n_bytes, n_readers


@contextlib.contextmanager
def shared_memory(n_readers: int) -> Iterator[None]:
    """Inside, so many threads that read at the same time share the budget."""
    before = _total_bytes, _n_readers
    set_memory_budget(memory_budget(), n_readers)
    try:
        yield
    finally:
        set_memory_budget(*before)


class OverBudget(UltronError):
    """What a file holds would take more memory than the budget."""


def check_memory(n_bytes: int, what: str) -> None:
    """To be called before memory is taken for what a file says it holds. Raises OverBudget, with both figures, if
    `n_bytes` are more than the budget.

    what: the subject of the sentence, the file's name first: `PATH: an index of 2,000,000 photos`.
    """
    budget = memory_budget()
    if n_bytes > budget:
        part = f", of which each of {_n_readers} readers has its part," if _n_readers > 1 else ""
        raise OverBudget(
            f"{what} would take {bytes_text(n_bytes)} of memory, more than the {bytes_text(budget * _n_readers)} that "
            f"may be taken{part}; set `max_memory` (or the variable {MEMORY_VARIABLE}) to "
            f"{-(-n_bytes * _n_readers // 2**30)}GiB to allow it"
        )
