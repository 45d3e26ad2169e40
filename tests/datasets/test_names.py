"""Names of photos: one file for one name, one name for one file; every folder once; verify and training agree."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.conftest import jpeg
from ultron_cli.datasets import folder
from ultron_cli.datasets.build_gnd import GroundTruthConfig, build_ground_truth
from ultron_cli.datasets.folder import Dataset, list_photos, open_dataset
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.datasets.verify import verify
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.whitening_learning import pairs_of_labels


def folder_of(folder: Path, *names: str, truth: dict[str, Any] | None = None) -> Dataset:
    """A dataset of photos that all differ."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(i))
    if truth is not None:
        (folder / "gnd_set.json").write_text(json.dumps({"qimlist": [], "gnd": []} | truth))
    return open_dataset(str(folder), folder.parent)


@pytest.mark.parametrize(
    "names", [("IMG_1.jpg", "IMG_1.jpg.jpg"), ("x.png", "x.png.jpg"), ("a.jpg", "a.jpeg", "a.png"), ("b.JPG", "b.jpg")]
)
def test_in_a_folder_every_path_means_itself(tmp_path: Path, names: tuple[str, ...]) -> None:
    dataset = folder_of(tmp_path, *names)
    photo_files = dataset.photo_files(dataset.database_names)
    assert photo_files.problems == {}
    assert photo_files.files == {name: tmp_path / name for name in names}


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("IMG_1.jpg", "IMG_1.jpg.jpg"), "IMG_1.jpg"),
        (("x.png", "x.png.jpg"), "x.png"),
        (("a.png", "a.webp"), "a"),
        (("in/a.jpeg", "in/a.png"), "in/a"),
    ],
)
def test_a_name_of_two_photos_is_refused_by_name(tmp_path: Path, names: tuple[str, ...], name: str) -> None:
    dataset = folder_of(tmp_path, *names, truth={"imlist": [name]})
    with pytest.raises(UltronError) as raised:
        dataset.photo_path(name)
    assert f"{name!r} may mean {names[0]!r} or {names[1]!r}" in str(raised.value)
    report = verify(dataset)
    assert [(finding.path, finding.kind) for finding in report.bad] == [(f"{name}.jpg", "ambiguous")]
    assert report.n_used_bad == 1


def test_names_of_a_ground_truth_as_published(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, "a.jpg", "a.png", "b.png", "c.JPG", truth={"imlist": ["a", "a.png", "b", "c"]})
    photo_files = dataset.photo_files(dataset.database_names)
    assert [photo_files.files[name].name for name in dataset.database_names] == ["a.jpg", "a.png", "b.png", "c.JPG"]


def test_two_names_of_one_photo_are_refused_by_name(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, "a.jpg", "b.jpg", truth={"imlist": ["a", "b", "a.jpg", "gone"]})
    photo_files = dataset.photo_files(dataset.database_names)
    assert list(photo_files.files) == ["a", "b"]
    assert (list(photo_files.missing), list(photo_files.ambiguous)) == (["gone"], ["a.jpg"])
    assert f"'a' and 'a.jpg' both mean {tmp_path / 'a.jpg'}" in str(photo_files.problems["a.jpg"])
    report = verify(dataset)
    assert {(finding.path, finding.kind) for finding in report.bad} == {
        ("a.jpg.jpg", "ambiguous"),
        ("gone.jpg", "missing"),
    }


@pytest.mark.parametrize("name", ["n" * 255, "n" * 5000])
def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path, name: str) -> None:
    dataset = folder_of(tmp_path, "a.jpg", truth={"imlist": ["a", name]})
    assert list(dataset.photo_files(dataset.database_names).missing) == [name]


def test_only_the_first_of_many_missing_photos_is_held_against_all_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [f"a{i}" for i in range(30)]
    dataset = folder_of(tmp_path, "a.jpg", truth={"imlist": ["a", *missing]})
    suggested: list[str] = []
    monkeypatch.setattr(folder, "nearest_names", lambda name, known: suggested.append(name) or "; did you mean a?")
    photo_files = dataset.photo_files(dataset.database_names)
    assert list(photo_files.missing) == list(photo_files.problems) == missing
    assert suggested == ["a0"]
    assert "did you mean" in str(photo_files.problems["a0"]) and "did you mean" not in str(photo_files.problems["a1"])
    assert photo_files.problems is photo_files.problems  # asked for once per photo, it must not be made each time


@pytest.mark.parametrize("names", [("l/IMG_1.jpg", "l/IMG_1.jpg.jpg"), ("l/x.png", "l/x.png.jpg")])
def test_build_gnd_refuses_names_that_would_meet(tmp_path: Path, names: tuple[str, str]) -> None:
    folder_of(tmp_path / "set", *names)
    with pytest.raises(UltronError) as raised:
        build_ground_truth(GroundTruthConfig(source=tmp_path / "set"))
    assert f"{names[0]!r} would mean both {names[0]!r} and {names[1]!r}; rename one" in str(raised.value)
    assert not list((tmp_path / "set").glob("*.json"))


def test_a_table_may_spell_a_photo_twice_if_it_says_the_same(tmp_path: Path) -> None:
    folder_of(tmp_path / "set", "a.jpg", "b.jpg", "c.png")
    table = tmp_path / "labels.csv"
    table.write_text("photo,landmark\na,x\na.jpg,x\n./b,x\nb.jpg,x\nc.png,y\nc,y\n")
    summary = build_ground_truth(GroundTruthConfig(source=tmp_path / "set", labels=table))
    assert (summary["queries"], summary["database"], summary["labels"]["easy"]) == (1, 2, 1)
    table.write_text("photo,landmark\na,x\nb,x\na.jpg,y\n")
    with pytest.raises(UltronError, match=r"line 4: a\.jpg stands there before with other values"):
        build_ground_truth(GroundTruthConfig(source=tmp_path / "set", labels=table, overwrite=True))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,photo,label\na,b,easy\na.jpg,b.jpg,hard\n")
    with pytest.raises(UltronError, match=r"line 3: b\.jpg is hard for a\.jpg here and easy before"):
        build_ground_truth(GroundTruthConfig(source=tmp_path / "set", pairs=pairs, overwrite=True))
    pairs.write_text("query,photo\na,a.jpg\n")
    with pytest.raises(UltronError, match=r"a\.jpg is an answer to itself"):
        build_ground_truth(GroundTruthConfig(source=tmp_path / "set", pairs=pairs, overwrite=True))
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("photo,x1,y1,x2,y2\na,0,0,5,5\na.jpg,0,0,9,9\n")
    with pytest.raises(UltronError, match=r"line 3: a\.jpg has another box before"):
        build_ground_truth(GroundTruthConfig(source=tmp_path / "set", boxes=boxes, overwrite=True))


def test_whitening_takes_the_same_spellings(tmp_path: Path) -> None:
    names = ["in/a", "in/b.jpg", "c.png", "c.webp", "st.peter"]
    table = tmp_path / "labels.csv"
    table.write_text("photo,landmark\nin/a.jpg,x\nin/b,x\nelsewhere.jpg,x\nc.webp,y\nst.peter.jpg,y\n")
    pairs = pairs_of_labels(table, names, 10, 0)
    assert sorted(map(tuple, np.sort(pairs, axis=1).tolist())) == [(0, 1), (3, 4)]
    table.write_text("photo,landmark\nin/a.jpg,x\nin/a,y\n")
    with pytest.raises(UltronError, match="line 3: in/a stands there before with other values"):
        pairs_of_labels(table, names, 10, 0)


def test_a_folder_is_visited_once(tmp_path: Path) -> None:
    names = ["A/1.jpg", "A/deep/2.jpg", "B/3.jpg", "4.jpg"]
    folder_of(tmp_path / "set", *names)
    folder_of(tmp_path / "outside", "5.jpg")
    (tmp_path / "set/A/up").symlink_to("..")
    (tmp_path / "set/A/again").symlink_to("../A")
    (tmp_path / "set/B/round").symlink_to(tmp_path)  # leads to the folder above all
    (tmp_path / "set/0_first").symlink_to("B")  # its own path counts, not the link that comes before it
    (tmp_path / "set/loop").symlink_to("loop")
    (tmp_path / "set/gone").symlink_to("nowhere")
    (tmp_path / "set/loop.jpg").symlink_to("loop.jpg")
    outside = ["B/round/outside/5.jpg"]
    assert list_photos(tmp_path / "set") == sorted([*names, *outside, "loop.jpg"])
    assert len(open_landmark_photos(tmp_path / "set").paths) == 4


def test_two_links_to_one_folder_give_its_photos_once(tmp_path: Path) -> None:
    folder_of(tmp_path / "outside", "1.jpg", "in/2.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/b").symlink_to(tmp_path / "outside")
    (tmp_path / "set/a").symlink_to(tmp_path / "outside")
    (tmp_path / "set/c").symlink_to(tmp_path / "outside/in")
    assert list_photos(tmp_path / "set") == ["a/1.jpg", "a/in/2.jpg"]


@pytest.mark.parametrize("inner", ["train", ""])
def test_verify_and_training_agree_on_the_photos_of_a_published_list(tmp_path: Path, inner: str) -> None:
    for name in ("012a", "012b", "fff1"):
        path = tmp_path / inner / name[0] / name[1] / name[2] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(int(name, 16)))
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n5,9993 012a 012b\n7,fff1 9994\n")
    training = open_landmark_photos(tmp_path)
    missing = [training.relative(i) for i in range(5) if not training.paths[i].is_file()]
    report = verify(open_dataset(str(tmp_path), tmp_path))
    assert {finding.path: finding.kind for finding in report.bad} == {
        os.path.join(inner, path): "missing" for path in missing
    }
    assert (len(missing), report.n_checked, report.n_used_bad) == (2, 5, 2)
