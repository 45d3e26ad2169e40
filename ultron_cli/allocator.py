"""Memory that stays with the process, so that a network's next pass finds what the last one has freed.

glibc gives every block of more than some megabytes back to the system when it is freed. A network frees and asks for
hundreds of them in a pass, and the system clears each page anew: half of the processor's time where maps are large.
"""

import contextlib
import ctypes
import os

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
M_ARENA_MAX = -8
LARGEST_KEPT_BYTES = 2**30  # a block of more, a database's descriptors say, goes back when it is freed
MOST_FREE_BYTES = 2**31 - 1  # at the end of the heap; the largest number that mallopt takes


def keep_memory() -> bool:
    """Has this process, and those that it forks, keep freed memory. Returns whether it does so now.

    The commands that run a network call it before they load torch; from Python, call it first too. It costs memory that
    lies between blocks in use: up to a third more at the most were seen. Where memory is not glibc's (musl, macOS,
    Windows) and where the environment tunes malloc already (MALLOC_..., GLIBC_TUNABLES), nothing is changed.
    """
    environment_tunes = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}) or environment_tunes:
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Heaps of other threads hold 64 MB at most: what a server's threads ask for would not stay there.
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, MOST_FREE_BYTES)
        # glibc before 2.35 takes 32 MB at most; blocks of their own are then forbidden altogether.
        return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) or mallopt(M_MMAP_MAX, 0))
    return False
