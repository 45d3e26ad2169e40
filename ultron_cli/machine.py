"""What this machine has: devices to compute on, cores, threads, memory, disk space."""

import contextlib
import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.errors import UltronError

if TYPE_CHECKING:  # cores and memory are asked for without torch
    import torch


SPINS = "1000"  # some microseconds


def share_cores() -> None:
    """Has OpenMP's threads sleep while they wait, after some microseconds; to be called before NumPy and torch are
    imported. Where the environment has OMP_WAIT_POLICY, that holds.

    Its default is to wait spinning: with a decoding process or another program on the cores, 15 times slower. Asleep at
    once they wake anew for each layer, which takes a small network half its time (docs/operators.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # of GNU's OpenMP, which PyTorch brings


def check_device_name(name: str) -> None:
    """Raises UltronError for a name that is none of auto, cpu, cuda, cuda:N."""
    kind, colon, number = name.partition(":")
    if name not in ("auto", "cpu") and (kind != "cuda" or bool(colon) != number.isdigit()):
        raise UltronError(f"`device` takes auto, cpu, cuda or cuda:N; found {name!r}")


def may_have_gpu() -> bool:
    """Whether a driver for GPUs is there: False saves the two seconds in which torch finds no GPU."""
    if os.path.exists("/dev/kfd"):  # AMD's
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def resolve_device_name(name: str) -> str:
    """As resolve_device; torch is loaded only where there may be a GPU."""
    check_device_name(name)
    return "cpu" if name == "cpu" or (name == "auto" and not may_have_gpu()) else str(resolve_device(name))


def resolve_device(name: str) -> "torch.device":
    """auto (a GPU where there is one) | cpu | cuda[:N]. Raises UltronError if the device is not there."""
    import torch

    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UltronError(
            f"`device` {name} was asked for, but torch {torch.__version__} finds no CUDA GPU; use `device` cpu "
            "(`ultron doctor` says more)"
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise UltronError(
            f"`device` {name}: there are {torch.cuda.device_count()} GPUs (cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}); name one of them"
        )
    return torch.device(name)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    """Threads that a computation may take: as many as torch may where torch is loaded (a program can have set that),
    else OMP_NUM_THREADS, else one per core."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(limit) if limit.isdigit() and int(limit) else n_cores()


def free_bytes(folder: Path) -> int:
    """Free disk space where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(n_bytes: float) -> str:
    """`1.9 GB`, in powers of 1000 as disks and servers count; `?` for 0, an unknown size."""
    if not n_bytes:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if n_bytes >= 100 or unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """What the processor can do, by the system's names (avx2, amx_bf16); empty where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def bfloat16_units(flags: frozenset[str]) -> bool:
    """Whether a processor with these flags multiplies in bfloat16 by itself, faster than in float32."""
    return bool({"amx_bf16", "avx512_bf16"} & flags)


def memory_mib(device: "torch.device") -> float:
    """The most memory used so far, of the GPU or of this process, in MiB; 0 where the system does not tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_mib()


def peak_mib() -> float:
    """The most memory that this program has used so far, in MiB; 0 where the system does not tell.

    Linux hands getrusage's figure on from the parent to a started program; VmHWM begins anew with it.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    except ImportError:  # Windows
        return 0.0


@contextlib.contextmanager
def limited_threads(n_threads: int | None) -> Iterator[None]:
    """Inside, so many threads for arithmetic (None: as before); afterwards as many as before."""
    import torch

    n_before = torch.get_num_threads()
    torch.set_num_threads(n_threads or n_before)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)
