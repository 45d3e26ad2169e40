"""Where a result comes from: versions, command, machine and time, stored in every artefact."""

import functools
import importlib.metadata
import platform
import sys
from datetime import UTC, datetime

from ultron_cli import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "onnxruntime",
    "openvino",
    "numpy",
    "scipy",
    "h5py",
    "pillow",
    "faiss-gpu",
    "faiss-cpu",
    "scikit-learn",
    "matplotlib",
    "grad-cam",
    "opencv-python-headless",
    "typer",
)


@functools.cache  # an extraction asks for each of its shards, and looking takes 13 ms
def package_versions() -> dict[str, str]:
    """Version of each package that results depend on; absent ones are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional package
    return versions


def utc_now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, object]:
    """What made a result: ultron and package versions, Python, platform, command line, time."""
    return {
        "ultron_version": __version__,
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": ["ultron", *sys.argv[1:]],
        "created": utc_now(),
    }
