"""Examines the installation for `ultron doctor`."""

import platform
from typing import Any

from ultron_cli import __version__
from ultron_cli.datasets.folder import summaries
from ultron_cli.machine import n_cores
from ultron_cli.provenance import package_versions
from ultron_cli.workspace import KINDS, Workspace


def examine(workspace: Workspace, *, build: bool = False) -> dict[str, Any]:
    """Facts by heading; a part that is missing says why. build: the compiled operators are built first, also those that
    failed before."""
    return {
        "ultron": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cores": n_cores(),
        "gpu": _gpus(),
        "operators": _operators(build),
        "faiss": _faiss(),
        "workspace": str(workspace.root.absolute()),
        "data root": str(workspace.data_root.absolute()),
        "packages": package_versions(),
        "datasets": {
            entry["name"]: entry["error"] or f"{entry['database']} photos, {entry['queries']} queries"
            for entry in summaries(workspace.data_root)
        },
        "latest results": {kind: str(path) for kind in KINDS if (path := workspace.latest(kind))},
    }


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else f"torch {torch.__version__} is built without CUDA"
        )
        return f"none ({built})"
    return ", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))


def _operators(build: bool) -> dict[str, str]:
    """The ULTRON network's operators: which compiled versions load, and the reason where one does not."""
    import ultron_kernels

    return ultron_kernels.build_all() if build else ultron_kernels.status()


def _faiss() -> str:
    try:
        import faiss
    except ImportError as error:
        return f"not importable ({error}); exact search works without, `ultron index` needs it: pip install faiss-cpu"
    n_gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return f"{faiss.__version__} ({faiss.get_compile_options().strip()}), GPUs it can use: {n_gpus}"
