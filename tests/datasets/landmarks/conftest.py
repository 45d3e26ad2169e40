"""Shared by the tests of training photos: a folder of empty photos, and their paths."""

from pathlib import Path

import pytest

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three landmarks with two photos each."""
    for landmark in "abc":
        for photo in "12":
            touch(tmp_path / "set" / landmark / f"{photo}.jpg")
    return tmp_path / "set"


def relative(photos: LandmarkPhotos) -> list[str]:
    return [path.relative_to(photos.folder).as_posix() for path in photos.paths]
