"""Training photos: one folder per landmark, the cached list, and parts of it."""

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.landmarks.conftest import relative, touch
from ultron_cli.datasets.landmarks import photos
from ultron_cli.datasets.landmarks.path_table import TABLE_FILE, PathTable
from ultron_cli.datasets.landmarks.photos import open_landmark_photos


def test_cached_index_is_used_until_a_photo_comes_or_goes(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "LEAST_TO_CACHE", 1)
    first = open_landmark_photos(folders)
    assert (folders / TABLE_FILE).is_file()
    with monkeypatch.context() as patched:
        patched.setattr(photos, "list_photos", lambda folder: pytest.fail("listed again"))
        again = open_landmark_photos(folders)
    assert (relative(again), again.labels.tolist(), again.landmark_names) == (
        relative(first),
        first.labels.tolist(),
        first.landmark_names,
    )
    touch(folders / "b/3.jpg")
    assert "b/3.jpg" in relative(open_landmark_photos(folders))
    touch(folders / "d/1.jpg")
    assert open_landmark_photos(folders).landmark_names == ["a", "b", "c", "d"]
    (folders / "a/1.jpg").unlink()
    assert "a/1.jpg" not in relative(open_landmark_photos(folders))
    (folders / TABLE_FILE).write_bytes(b"damaged")
    assert len(open_landmark_photos(folders).paths) == 7


def test_take_shares_the_block(folders: Path) -> None:
    photos = open_landmark_photos(folders)
    taken = photos.take(np.array([5, 0]))
    assert isinstance(taken.paths, PathTable)
    assert relative(taken) == ["c/2.jpg", "a/1.jpg"]
    assert (taken.labels.tolist(), taken.landmark_names) == ([1, 0], ["a", "c"])
