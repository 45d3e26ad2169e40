"""Photos that are missing, empty, cut, of another type, or there twice: found, listed, and left out by those who read
the list."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets.conftest import jpeg, photo_bytes
from ultron_cli.datasets.bad_photos import read_bad_photos, write_bad_photos
from ultron_cli.datasets.download.source_record import SourceRecord
from ultron_cli.datasets.folder import Dataset, open_dataset
from ultron_cli.datasets.landmarks.lists import write_landmark_list
from ultron_cli.datasets.verify import report_lines, tell_version, verify
from ultron_cli.errors import UltronError


def spoiled(folder: Path) -> Dataset:
    """A dataset with one photo of every kind of trouble, two good ones, and a ground truth that names some."""
    photos = folder / "jpg"
    photos.mkdir(parents=True)
    good, png = jpeg(1, 400), io.BytesIO()
    Image.new("RGB", (30, 20)).save(png, "PNG")
    contents = {
        "good": good,
        "copy": good,
        "query": jpeg(2, 64),
        "cut": jpeg(3, 400)[:-2000],
        "empty": b"",
        "page": b" <!DOCTYPE html><p>not found",
        "noise": b"\x01\x02" * 50,
        "png": png.getvalue(),
        "unused": b"",
    }
    for name, data in contents.items():
        (photos / f"{name}.jpg").write_bytes(data)
    (photos / "cut.png").write_bytes(photo_bytes(5, 64, "PNG")[:-1500])
    truth = {
        "imlist": ["good", "copy", "cut", "empty", "page", "noise", "png", "gone"],
        "qimlist": ["query"],
        "gnd": [{"easy": [0], "hard": [], "bbx": None}],
    }
    (folder / f"gnd_{folder.name}.json").write_text(json.dumps(truth))
    return open_dataset(str(folder), folder.parent)


def test_every_kind_of_trouble_is_found(tmp_path: Path) -> None:
    report = verify(spoiled(tmp_path / "set"), 2)
    assert {finding.path: finding.kind for finding in report.bad} == {
        "jpg/cut.jpg": "truncated",
        "jpg/cut.png": "truncated",
        "jpg/empty.jpg": "empty",
        "jpg/unused.jpg": "empty",
        "jpg/page.jpg": "not-a-photo",
        "jpg/noise.jpg": "not-a-photo",
        "jpg/gone.jpg": "missing",
    }
    odd = {(finding.path, finding.kind): finding.reason for finding in report.odd}
    assert odd[("jpg/png.jpg", "wrong-type")] == "the content is PNG, the name says .jpg"
    assert odd[("jpg/good.jpg", "duplicate")] == "the same bytes as jpg/copy.jpg"
    assert len(odd) == 2
    assert (report.n_checked, report.n_used_bad) == (11, 5)
    assert "a web page" in next(finding.reason for finding in report.bad if finding.path == "jpg/page.jpg")
    text = "\n".join(report_lines(report, "set", None))
    assert "11 photos checked, 2 empty, 2 not-a-photo, 2 truncated, 1 duplicate, 1 missing, 1 wrong-type" in text
    assert "bad: 7 (2 of them not in the ground truth)" in text


def test_threads_change_nothing(tmp_path: Path) -> None:
    dataset = spoiled(tmp_path / "set")
    assert verify(dataset, 1) == verify(dataset, 7)


def test_the_list_counts_as_long_as_the_file_is_as_found(tmp_path: Path) -> None:
    dataset = spoiled(tmp_path / "set")
    report = verify(dataset, 1)
    write_bad_photos(dataset.folder, report.bad, report.odd, report.n_checked)
    photos = dataset.folder / "jpg"
    listed = read_bad_photos(dataset.folder)
    assert set(listed) == {dataset.folder / finding.path for finding in report.bad}
    assert listed[photos / "empty.jpg"] == f"{photos / 'empty.jpg'}: the file is empty (listed in bad_photos.json)"
    (photos / "empty.jpg").write_bytes(jpeg())
    (photos / "gone.jpg").write_bytes(jpeg())
    os.utime(photos / "cut.jpg", ns=(1, 1))
    assert set(read_bad_photos(dataset.folder)) == set(listed) - {
        photos / name for name in ("empty.jpg", "gone.jpg", "cut.jpg")
    }


@pytest.mark.parametrize(
    "text", ["[]", '{"format": "x"}', '{"format": "ultron-bad-photos", "version": 2, "bad": []}', "{"]
)
def test_an_unsound_list_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad_photos.json").write_text(text)
    with pytest.raises(UltronError, match=r"bad_photos\.json"):
        read_bad_photos(tmp_path)


def test_training_folders_and_plain_folders(tmp_path: Path) -> None:
    for name in ("train/a/1.jpg", "train/b/1.jpg", "jpg/q.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(len(name)))
    (tmp_path / "train/a/1.jpg").write_bytes(b"")
    dataset = open_dataset(str(tmp_path), tmp_path)
    report = verify(dataset)
    assert (report.n_checked, [finding.path for finding in report.bad], report.n_used_bad) == (3, ["train/a/1.jpg"], 1)
    with pytest.raises(UltronError, match="has no photos"):
        (tmp_path / "empty").mkdir()
        verify(open_dataset(str(tmp_path / "empty"), tmp_path))


def test_listed_photos_without_suffix_or_of_another_set(tmp_path: Path) -> None:
    sfm, name = tmp_path / "sfm", "0123456789abcdef"
    (sfm / "ims/ef/cd/ab").mkdir(parents=True)
    (sfm / "ims/ef/cd/ab" / name).write_bytes(jpeg())
    (sfm / "landmarks.csv").write_text(f"landmark_id,images\n1,{name} ffffffffffffffff\n")
    write_landmark_list(sfm, "landmarks.csv", "ims", "sfm120k")
    report = verify(open_dataset(str(sfm), tmp_path))
    assert [(finding.path, finding.kind) for finding in report.bad] == [("ims/ff/ff/ff/ffffffffffffffff", "missing")]
    assert report.n_checked == 2
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / "landmarks.csv").write_text(f"landmark_id,images\n1,{name}\n")
    write_landmark_list(clean, "landmarks.csv", "../sfm/ims", "sfm120k")
    with pytest.raises(UltronError, match="has no photos of its own"):
        verify(open_dataset(str(clean), tmp_path))


def test_a_foreign_copy_is_told_by_the_digest_of_an_earlier_download(tmp_path: Path) -> None:
    def oxford(root: Path) -> Dataset:
        (root / "roxford5k/jpg").mkdir(parents=True)
        (root / "roxford5k/jpg/a.jpg").write_bytes(photo)
        (root / "roxford5k/gnd_roxford5k.json").write_text(json.dumps({"imlist": ["a"], "qimlist": [], "gnd": []}))
        return open_dataset("roxford5k", root)

    photo = jpeg()
    foreign_copy = oxford(tmp_path / "own")
    assert tell_version(foreign_copy, verify(foreign_copy), tmp_path) == "unknown version"
    downloaded = oxford(tmp_path / "downloaded")
    SourceRecord(dataset="roxford5k", complete=True, photos_version="original").write(downloaded.folder)
    assert tell_version(downloaded, verify(downloaded), tmp_path) == "original"
    assert tell_version(foreign_copy, verify(foreign_copy), tmp_path) == "original"
