"""Landmark lists: described by landmarks.json, and Google Landmarks v2 as published."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.datasets.conftest import plain_photo
from tests.datasets.landmarks.conftest import relative, touch
from ultron_cli.datasets.bad_photos import Finding, write_bad_photos
from ultron_cli.datasets.download import layouts
from ultron_cli.datasets.landmarks import photos
from ultron_cli.datasets.landmarks.lists import open_landmark_list, write_landmark_list
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError


@pytest.fixture
def gldv2(tmp_path: Path) -> Path:
    """gldv2-train with four photos of two landmarks, and gldv2-clean, which lists three of them."""
    train = tmp_path / "gldv2-train"
    for name in ("0123456789abcdef", "0a23456789abcdef", "fff3456789abcdef", "fff3456789abcde0"):
        plain_photo(train / "train" / name[0] / name[1] / name[2] / f"{name}.jpg")
    rows = [
        "0123456789abcdef,http://x,5",
        "0a23456789abcdef,http://x,5",
        "fff3456789abcdef,http://x,11",
        "fff3456789abcde0,http://x,11",
    ]
    (train / "train.csv").write_text("id,url,landmark_id\n" + "\n".join(rows) + "\n")
    layouts.gldv2_train(train)
    (tmp_path / "gldv2-clean").mkdir()
    (tmp_path / "gldv2-clean/train_clean.csv").write_text(
        "landmark_id,images\n5,0123456789abcdef 0a23456789abcdef\n11,fff3456789abcdef\n"
    )
    layouts.gldv2_clean(tmp_path / "gldv2-clean")
    return tmp_path


def test_gldv2_lists(gldv2: Path) -> None:
    everything, clean = open_landmark_photos(gldv2 / "gldv2-train"), open_landmark_photos(gldv2 / "gldv2-clean")
    assert (len(everything.paths), everything.landmark_names) == (
        4,
        ["11", "5"],
    )  # landmarks of the list, not the folders 0/1/2
    assert (len(clean.paths), clean.labels.tolist()) == (3, [1, 1, 0])
    assert clean.paths[2] == (gldv2 / "gldv2-train/train/f/f/f/fff3456789abcdef.jpg").resolve()
    assert all(path.is_file() for path in [*everything.paths, *clean.paths])
    paths = open_landmark_list(gldv2 / "gldv2-clean").paths
    assert [path.name for path in paths[1:]] == ["0a23456789abcdef.jpg", "fff3456789abcdef.jpg"]


def test_bad_photos_are_left_out_of_training(gldv2: Path) -> None:
    bad = gldv2 / "gldv2-train/train/0/1/2/0123456789abcdef.jpg"
    status = bad.stat()
    finding = Finding(
        path="train/0/1/2/0123456789abcdef.jpg",
        kind="truncated",
        reason="r",
        n_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
    write_bad_photos(gldv2 / "gldv2-train", [finding], [], 4)
    assert [len(open_landmark_photos(gldv2 / name).paths) for name in ("gldv2-train", "gldv2-clean")] == [3, 2]
    plain_photo(bad, (61, 41))  # replaced: the list no longer counts
    assert [len(open_landmark_photos(gldv2 / name).paths) for name in ("gldv2-train", "gldv2-clean")] == [4, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("landmark,photos\n1,a\n", "must name the columns landmark_id, images or landmark_id, id"),
        ("landmark_id,images\n1,../../etc/passwd\n", "line 2: '../../etc/passwd' is no photo id"),
        ("landmark_id,images\n", "names no photo"),
        (None, "does not exist; run `ultron datasets download gldv2-clean`"),
    ],
)
def test_unsound_lists(gldv2: Path, text: str | None, words: str) -> None:
    path = gldv2 / "gldv2-clean/train_clean.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UltronError) as raised:
        open_landmark_photos(gldv2 / "gldv2-clean")
    assert words in str(raised.value)


def test_lists_whose_photos_are_absent(tmp_path: Path) -> None:
    write_landmark_list(tmp_path, "train_clean.csv", "../gldv2-train/train", "gldv2")
    with pytest.raises(UltronError, match="run `ultron datasets download gldv2-train`"):
        open_landmark_photos(tmp_path)
    (tmp_path / "landmarks.json").write_text(json.dumps({"list": "x"}))
    with pytest.raises(UltronError, match="lacks photos"):
        open_landmark_photos(tmp_path)


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


def test_index_of_a_list_follows_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "LEAST_TO_CACHE", 1)
    touch(tmp_path / "0/1/2/012a.jpg")
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,012a\n11,012b\n")
    assert len(open_landmark_photos(tmp_path).paths) == 2
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,012a\n11,012b 012c\n")
    os.utime(tmp_path / "train_clean.csv", (time.time() + 5, time.time() + 5))
    assert len(open_landmark_photos(tmp_path).paths) == 3


@pytest.mark.parametrize(
    "text",
    ["landmark_id,images\n5,012a\n11", "id,url,landmark_id\n012a,u,5\n012b,http", "id,url,landmark_id\n012a,u,\n"],
    ids=["images", "landmark", "empty landmark"],
)
def test_a_list_cut_in_its_last_line_is_refused(tmp_path: Path, text: str) -> None:
    touch(tmp_path / "0/1/2/012a.jpg")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(
        UltronError, match=r"line [23] (must have \d fields.* cut off, download|names no landmark; download)"
    ):
        open_landmark_photos(tmp_path)


def test_a_last_line_without_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "0/1/2/012a.jpg")
    (tmp_path / "train.csv").write_text("id,url,landmark_id\n012a,u,5\n012b,u,1")  # of landmark 1234
    assert open_landmark_photos(tmp_path).landmark_names == ["1", "5"]
    assert f"the last line of {tmp_path / 'train.csv'} has no end" in capsys.readouterr().err
