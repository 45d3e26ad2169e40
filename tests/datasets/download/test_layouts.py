"""Publishers' labels made readable: small copies of each layout, with answers known beforehand."""

import base64
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.datasets.conftest import plain_photo
from ultron_cli.datasets.download import layouts
from ultron_cli.datasets.download.holidays import holidays
from ultron_cli.datasets.folder import open_dataset
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError


def test_ilias(tmp_path: Path) -> None:
    folder = tmp_path / "ilias"
    core = folder / "jpg" / "ilias_core"
    for thing, number in (("bold_bimp_000", "000"), ("zippy_999", "999")):
        plain_photo(core / thing / "query" / f"Q{number}_00.jpg")
        for i in range(2):
            plain_photo(core / thing / "pos" / f"P{number}_0{i}.jpg")
    (core / "bold_bimp_000/query/Q000_00_bbox.txt").write_text("10 5 20 10\n20 2 30 8\n")
    layouts.ilias(folder)
    dataset = open_dataset(str(folder), tmp_path)
    assert len(dataset.database_names) == 4
    query = dataset.query("ilias_core/bold_bimp_000/query/Q000_00")
    assert query.bbx == (10.0, 2.0, 50.0, 15.0)
    assert [dataset.database_names[row] for row in query.easy] == [
        f"ilias_core/bold_bimp_000/pos/P000_0{i}" for i in range(2)
    ]
    assert dataset.query("ilias_core/zippy_999/query/Q999_00").bbx is None
    assert dataset.photo_path("ilias_core/zippy_999/pos/P999_01").is_file()
    (core / "zippy_999/query/Q999_00_bbox.txt").write_text("1 2 3")
    with pytest.raises(UltronError, match="lines of x, y, width and height; found 3 numbers"):
        layouts.ilias(folder)


CRASHES_SCIPY = (
    b"MATLAB 5.0 MAT-file".ljust(124)
    + b"\0\1IM"
    + zlib.decompress(
        base64.b85decode("c-rG*U|{$F#B4y!0mO_95WtGWXNJ-sHJQ0NnZ+dx417Sg1(H4%Ec#fH=tRA&f^-H{ePAE}Rgi?Fpn?%$FcX@=03}ff&j")
    )
)  # found by fuzzing: lengths of a matrix within another that do not add up


@pytest.mark.parametrize("prefix", ["", "instre/"])
@pytest.mark.parametrize(
    ("boxes", "corners"),
    [([[40, 20, 55, 38], [1, 1, 30, 30]], [40, 20, 55, 38]), ([[40, 20, 15, 18], [1, 1, 30, 30]], [40, 20, 55, 38])],
)
def test_instre(tmp_path: Path, prefix: str, boxes: list[list[int]], corners: list[int]) -> None:
    folder = tmp_path / "instre"
    names = ["INSTRE-S1/01a/001.jpg", "INSTRE-S1/01a/002.jpg", "INSTRE-S1/02b/001.jpg"]
    queries = ["INSTRE-S1/01a/009.jpg", "INSTRE-S1/02b/009.jpg"]
    for name in (*names, *queries):
        plain_photo(folder / "jpg" / (prefix + name))
    gnd = np.zeros(2, dtype=[("ok", object), ("bbx", object)])
    gnd["ok"] = [np.array([1, 2]), np.array([3])]
    gnd["bbx"] = [np.array(box, dtype=float) for box in boxes]
    savemat(
        folder / "gnd_instre.mat",
        {"imlist": np.array(names, dtype=object), "qimlist": np.array(queries, dtype=object), "gnd": gnd},
    )
    layouts.instre(folder)
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.database_names == [prefix + name for name in names]
    assert dataset.query(prefix + queries[0]).bbx == tuple(corners)
    assert dataset.query(prefix + queries[0]).easy.tolist() == [0, 1]
    assert dataset.query(prefix + queries[1]).easy.tolist() == [2]
    assert dataset.photo_path(prefix + queries[1]).is_file()


def test_instre_unsound(tmp_path: Path) -> None:
    (tmp_path / "gnd_instre.mat").write_bytes(b"no matlab file")
    with pytest.raises(UltronError, match="is not the ground truth of INSTRE"):
        layouts.instre(tmp_path)
    gnd = np.zeros(2, dtype=[("ok", object), ("bbx", object)])
    gnd["ok"], gnd["bbx"] = [np.array([1]), np.array([4])], [np.arange(4.0), np.arange(4.0)]
    names = np.array(["a", "b", "c"], dtype=object)
    savemat(tmp_path / "gnd_instre.mat", {"imlist": names, "qimlist": names, "gnd": gnd})
    with pytest.raises(UltronError, match="a box for each of its 3 queries, found 2 and 2"):
        layouts.instre(tmp_path)
    savemat(tmp_path / "gnd_instre.mat", {"imlist": names, "qimlist": names[:2], "gnd": gnd})
    with pytest.raises(UltronError, match="rows must lie between 1 and 3, found 1 to 4"):
        layouts.instre(tmp_path)


def test_an_instre_that_crashes_scipy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gnd_instre.mat").write_bytes(CRASHES_SCIPY)
    with pytest.raises(UltronError, match=r"is not the ground truth of INSTRE \(.*\); download it again"):
        layouts.instre(tmp_path)


def test_sfm120k_clusters_become_landmarks(tmp_path: Path) -> None:
    folder = tmp_path / "sfm120k"
    ids = [f"{i:032x}" for i in range(5)]
    parts = {
        "train": {"cids": ids[:4], "cluster": [7, 9, 7, 9], "qidxs": [0]},
        "val": {"cids": ids[4:], "cluster": [3], "qidxs": []},
    }
    for name in ids:
        plain_photo(folder / "ims" / name[-2:] / name[-4:-2] / name[-6:-4] / name)
    (folder / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(parts))
    layouts.sfm120k(folder)
    photos = open_landmark_photos(folder)
    assert photos.landmark_names == ["7", "9"]
    assert dict(zip([path.name for path in photos.paths], photos.labels.tolist(), strict=True)) == {
        ids[0]: 0,
        ids[2]: 0,
        ids[1]: 1,
        ids[3]: 1,
    }
    assert all(path.is_file() for path in photos.paths)
    assert (folder / "landmarks_val.csv").read_text() == f"landmark_id,images\n3,{ids[4]}\n"
    (folder / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps({"train": []}))
    with pytest.raises(UltronError, match=r"120k.pkl: train must be an object, found a list; download it again"):
        layouts.sfm120k(folder)


def test_holidays(tmp_path: Path) -> None:
    folder = tmp_path / "holidays"
    for name in ("100000", "100001", "100002", "100100", "100101"):
        plain_photo(folder / "jpg" / f"{name}.jpg")
    holidays(folder)
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.query_names == ["100000", "100100"]
    answers = [(list(query.easy), list(query.junk)) for query in map(dataset.query, dataset.query_names)]
    assert answers == [([1, 2], [0]), ([4], [3])]
    plain_photo(folder / "jpg" / "10010.jpg")
    with pytest.raises(UltronError, match="photos named by six digits, found 10010; download them again"):
        holidays(folder)
