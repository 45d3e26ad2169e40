"""Lists of training photos: GLDv2 as published, the cached index, splits and exclusion lists."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.datasets.landmarks import photos
from ultron_cli.datasets.landmarks.path_table import TABLE_FILE, PathTable, Texts
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.datasets.landmarks.split import (
    Exclusion,
    exclude_photos,
    read_exclusions,
    require_same_photos,
    split_photos,
    write_split,
)
from ultron_cli.errors import UltronError


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


def test_texts() -> None:
    texts = Texts.of(["", "ä/b.jpg", "c"])
    assert list(texts) == ["", "ä/b.jpg", "c"]
    assert list(texts.take(np.array([2, 0]))) == list(Texts.of(["c", ""]))
    assert texts.take(np.array([2, 0])).sha256() == Texts.of(["c", ""]).sha256() != Texts.of(["", "c"]).sha256()
    assert Texts.of(["ab", "c"]).sha256() != Texts.of(["a", "bc"]).sha256()
    assert list(Texts.of([])) == []


@pytest.mark.parametrize("inner", ["train", ""])
def test_gldv2_as_published(tmp_path: Path, inner: str) -> None:
    for name in ("0123456789abcdef", "0a23456789abcdef", "fff3456789abcdef"):
        touch(tmp_path / inner / name[0] / name[1] / name[2] / f"{name}.jpg")
    (tmp_path / "train.csv").write_text(
        "id,url,landmark_id\n0123456789abcdef,u,5\n0a23456789abcdef,u,5\nfff3456789abcdef,u,11\n"
    )
    photos = open_landmark_photos(tmp_path)
    assert (photos.labels.tolist(), photos.landmark_names) == ([1, 1, 0], ["11", "5"])
    assert all(path.is_file() for path in photos.paths)
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,0123456789abcdef\n11,fff3456789abcdef\n")
    assert relative(open_landmark_photos(tmp_path)) == ["0/1/2/0123456789abcdef.jpg", "f/f/f/fff3456789abcdef.jpg"]


def test_gldv2_without_its_photos(tmp_path: Path) -> None:
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,0123456789abcdef\n11,fff3456789abcdef\n")
    with pytest.raises(UltronError, match=r"must lie in .*train or .* as 0/1/2/0123456789abcdef\.jpg"):
        open_landmark_photos(tmp_path)


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


def test_index_of_a_list_follows_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "LEAST_TO_CACHE", 1)
    touch(tmp_path / "0/1/2/012a.jpg")
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,012a\n11,012b\n")
    assert len(open_landmark_photos(tmp_path).paths) == 2
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,012a\n11,012b 012c\n")
    os.utime(tmp_path / "train_clean.csv", (time.time() + 5, time.time() + 5))
    assert len(open_landmark_photos(tmp_path).paths) == 3


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
    kept, report = exclude_photos(photos, [str(tmp_path / "landmarks.txt"), str(tmp_path / "photos.csv")])
    assert relative(kept) == ["b/1.jpg", "c/1.jpg", "c/2.jpg"]
    assert (kept.landmark_names, kept.labels.tolist()) == (["b", "c"], [0, 1, 1])
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


def test_take_shares_the_block(folders: Path) -> None:
    photos = open_landmark_photos(folders)
    taken = photos.take(np.array([5, 0]))
    assert isinstance(taken.paths, PathTable)
    assert relative(taken) == ["c/2.jpg", "a/1.jpg"]
    assert (taken.labels.tolist(), taken.landmark_names) == ([1, 0], ["a", "c"])
