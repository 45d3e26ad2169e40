"""The machine and the code that a run was made with."""

import subprocess
from pathlib import Path

import torch

import ultron_cli
from ultron_cli import distributed
from ultron_cli.machine import n_cores
from ultron_cli.provenance import provenance


def git_commit() -> dict[str, object]:
    """Commit of the checkout that ultron runs from, and whether files differ from it; empty for an installed
    package."""
    root = Path(ultron_cli.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    try:
        return {
            "git_commit": git("rev-parse", "HEAD"),
            "git_changed": bool(git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}  # no git here, or not this user's checkout


def environment(device: torch.device) -> dict[str, object]:
    """Versions, commit, cores, threads, processes and GPU."""
    gpu: dict[str, object] = {}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = {
            "gpu": properties.name,
            "gpu_memory_mib": properties.total_memory // 2**20,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return (
        provenance()
        | git_commit()
        | {
            "device": str(device),
            "cores": n_cores(),
            "threads": torch.get_num_threads(),
            "processes": distributed.n_processes(),
            **gpu,
        }
    )
