"""Splits and exclusion lists."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.landmarks.conftest import relative
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.datasets.landmarks.split import (
    Exclusion,
    exclude_photos,
    read_exclusions,
    require_same_photos,
    split_photos,
    write_split,
)
from ultron_cli.errors import UltronError


def test_split_by_landmarks() -> None:
    labels = np.repeat(np.arange(20), 5)
    split = split_photos(labels, 0.2, "landmarks", 1)
    assert len(np.unique(labels[split.held_out_rows])) == 4
    assert not set(labels[split.held_out_rows]) & set(labels[split.train_rows])
    assert sorted([*split.train_rows, *split.held_out_rows]) == list(range(100))
    assert split_photos(labels, 0.2, "landmarks", 1).held_out_rows.tolist() == split.held_out_rows.tolist()
    assert split_photos(labels, 0.2, "landmarks", 2).held_out_rows.tolist() != split.held_out_rows.tolist()
    assert (
        len(split_photos(labels[:15], 0.1, "landmarks", 1).held_out_rows) == 0
    )  # fewer than two landmarks say nothing


def test_split_by_photos_leaves_every_landmark_one() -> None:
    labels = np.array([0] * 50 + [1] * 49 + [2])
    for seed in range(5):
        split = split_photos(labels, 0.8, "photos", seed)
        assert set(labels[split.train_rows]) == {0, 1, 2}
        assert abs(len(split.held_out_rows) - 80) <= 1


def test_stored_split(folders: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(folders)
    split = split_photos(photos.labels, 0.3, "photos", 2)
    write_split(tmp_path / "split.json", split, photos, [])
    stored = json.loads((tmp_path / "split.json").read_text())
    assert (stored["by"], stored["n_train"], stored["n_held_out"], len(stored["held_out_photos"])) == (
        "photos",
        4,
        2,
        2,
    )
    require_same_photos(tmp_path / "split.json", photos)
    with pytest.raises(UltronError, match="no longer those"):
        require_same_photos(tmp_path / "split.json", photos.take(np.arange(5)))


def test_exclusion_lists(folders: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(folders)
    (tmp_path / "landmarks.txt").write_text("# landmarks of the evaluation sets\na\nnowhere\n")
    (tmp_path / "photos.csv").write_text("url,id\nhttp://x,b/2.jpg\n")
    remaining, report = exclude_photos(photos, [str(tmp_path / "landmarks.txt"), str(tmp_path / "photos.csv")])
    assert relative(remaining) == ["b/1.jpg", "c/1.jpg", "c/2.jpg"]
    assert (remaining.landmark_names, remaining.labels.tolist()) == (["b", "c"], [0, 1, 1])
    assert report == [
        Exclusion(list=str(tmp_path / "landmarks.txt"), entries=2, landmarks=1, photos=2, unmatched=1),
        Exclusion(list=str(tmp_path / "photos.csv"), entries=1, landmarks=0, photos=1, unmatched=0),
    ]
    (tmp_path / "all.txt").write_text("a\nb\nc\n")
    with pytest.raises(UltronError, match="leave none of 6 photos"):
        exclude_photos(photos, [str(tmp_path / "all.txt")])
    with pytest.raises(UltronError, match=r"none\.txt does not exist"):
        exclude_photos(photos, [str(tmp_path / "none.txt")])
    (tmp_path / "empty.csv").write_text("landmark_id\n")
    with pytest.raises(UltronError, match="names no landmark"):
        read_exclusions(tmp_path / "empty.csv")
