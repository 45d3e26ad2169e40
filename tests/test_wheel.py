"""What an installation holds: every module, preset, page and kernel of ultron_cli and kernels, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"ultron_cli": "ultron_cli", "kernels": "ultron_kernels"}  # folder -> name in the wheel
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
NEW_FILES = [
    "ultron_cli/retrieval/new_room/corner.py",
    "ultron_cli/visualization/new_room/page.html",
    "ultron_cli/training/presets/new_room/preset.toml",
    "kernels/new_room/corner.py",
    "kernels/csrc/new_room/kernel.cu",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, so that building leaves nothing behind, with folders that no list can know."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in NEW_FILES:
        (folder / name).parent.mkdir()
        (folder / name).touch()
    shutil.copytree(ROOT / "tests" / "kernels", folder / "tests" / "kernels")  # no part of an installation
    return folder


@pytest.fixture(scope="module")
def wheel_files(source: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the wheel that setuptools builds from `source`, without the wheel's description of itself."""
    folder = tmp_path_factory.mktemp("wheel")
    result = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    (wheel,) = folder.glob("ultron-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_and_nothing_else(source: Path, wheel_files: set[str]) -> None:
    expected = {
        (package / path.relative_to(source / folder)).as_posix()
        for folder, package in ((name, Path(package)) for name, package in PACKAGES.items())
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    assert sorted(expected - wheel_files) == [], "lost from the wheel: name its kind in pyproject.toml's package-data"
    assert sorted(wheel_files - expected) == []


def test_a_new_folder_is_in_the_wheel(wheel_files: set[str]) -> None:
    assert {name.replace("kernels/", "ultron_kernels/") for name in NEW_FILES} <= wheel_files


def test_what_only_an_installation_needs_is_in_the_wheel(wheel_files: set[str]) -> None:
    endings = {name.rsplit(".", 1)[-1] for name in wheel_files}
    assert {"py", "toml", "html", "css", "js", "h", "inc", "cpp", "cu", "cuh"} <= endings
    assert "ultron_kernels/csrc/cuda/scala_forward.cu" in wheel_files
