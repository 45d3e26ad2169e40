"""Own photos become a dataset: folders, labels, pairs; queries by rule and seed; every mistake in a table named with
its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.conftest import files_below, jpeg
from ultron_cli.datasets.build_gnd import GroundTruthConfig, build_ground_truth
from ultron_cli.datasets.folder import open_dataset
from ultron_cli.errors import UltronError

PHOTOS = {
    "castle/1.jpg": 40,
    "castle/2.jpg": 44,
    "castle/3.jpg": 64,
    "market/a.jpg": 30,
    "market/b.png": 34,
    "lonely/x.jpg": 24,
    "distractors/d.jpg": 24,
    "loose.jpg": 28,
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, (name, side_px) in enumerate(PHOTOS.items()):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(jpeg(i, side_px))
    return tmp_path / "mine"


def build(source: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(summary, ground truth)"""
    summary = build_ground_truth(GroundTruthConfig(source=source, **options))
    return summary, json.loads(Path(str(summary["ground_truth"])).read_text())


def test_a_folder_per_landmark(photos: Path) -> None:
    summary, truth = build(photos, query_rule="first")
    assert truth["qimlist"] == ["castle/1", "market/a"]
    assert truth["imlist"] == ["castle/2", "castle/3", "distractors/d", "lonely/x", "loose", "market/b.png"]
    assert truth["gnd"] == [
        {"bbx": None, "easy": [0, 1], "hard": [], "junk": []},
        {"bbx": None, "easy": [5], "hard": [], "junk": []},
    ]
    assert (summary["landmarks"], summary["single_photo_landmarks"]) == (3, ["lonely"])
    dataset = open_dataset(str(photos), photos.parent)
    assert all(dataset.photo_path(name).is_file() for name in [*dataset.database_names, *dataset.query_names])


def test_query_rules(photos: Path) -> None:
    assert build(photos, query_rule="largest")[1]["qimlist"] == ["castle/3", "market/b.png"]
    several = build(photos, query_rule="first", queries_per_landmark=5, overwrite=True)[1]
    assert several["qimlist"] == ["castle/1", "castle/2", "market/a"]  # one is always left to find
    by_seed = {seed: tuple(build(photos, seed=seed, overwrite=True)[1]["qimlist"]) for seed in range(12)}
    assert len(set(by_seed.values())) > 2
    assert tuple(build(photos, seed=3, overwrite=True)[1]["qimlist"]) == by_seed[3]
    (photos / "another").mkdir()
    for i in range(2):
        (photos / f"another/{i}.jpg").write_bytes(jpeg(50 + i))
    assert set(by_seed[3]) <= set(
        build(photos, seed=3, overwrite=True)[1]["qimlist"]
    )  # a new landmark changes no other


def test_another_folder_gets_the_photos(photos: Path, tmp_path: Path) -> None:
    summary, _ = build(photos, out=tmp_path / "set", query_rule="first")
    assert summary["name"] == "set"
    assert files_below(tmp_path / "set") == {"gnd_set.json", *(f"jpg/{name}" for name in PHOTOS)}
    with pytest.raises(UltronError, match="is there already; replace it with `overwrite`"):
        build(photos, out=tmp_path / "set")
    build(photos, out=tmp_path / "set", overwrite=True)
    (tmp_path / "set/gnd_set.json").unlink()
    (tmp_path / "set/jpg/loose.jpg").unlink()
    (tmp_path / "set/jpg/loose.jpg").write_bytes(b"another")
    with pytest.raises(UltronError, match="is there already and is another photo"):
        build(photos, out=tmp_path / "set")
    dataset = tmp_path / "set"
    build(photos, out=dataset, overwrite=True)
    assert (dataset / "jpg/loose.jpg").read_bytes() == (photos / "loose.jpg").read_bytes()


def test_labels(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(
        "\ufeffphoto;landmark;label;role;x1;y1;x2;y2\r\ncastle/1.jpg;castle;;query;2;3;30;38\r\ncastle\\2.jpg;castle;hard;;;;;\r\n"
        "castle/3.jpg;castle;junk;;;;;\r\n./market/a;castle;easy;database;;;;\r\nloose.jpg;;;;;;;\r\n;;;;;;;\r\n".encode()
    )
    summary, truth = build(photos, labels=table)
    assert truth["qimlist"] == ["castle/1"]
    row = {name: i for i, name in enumerate(truth["imlist"])}
    assert truth["gnd"] == [
        {"bbx": [2, 3, 30, 38], "easy": [row["market/a"]], "hard": [row["castle/2"]], "junk": [row["castle/3"]]}
    ]
    assert summary["labels"] == {"easy": 1, "hard": 1, "junk": 1}
    assert "lonely/x" in row  # without a line: a distractor


def test_pairs_and_boxes(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(
        "query\tphoto\tlabel\ncastle/1\tcastle/2\t\ncastle/1\tcastle/3\thard\nmarket/a\tcastle/3\teasy\n"
    )
    (tmp_path / "boxes.csv").write_text("photo,x1,y1,x2,y2\nmarket/a.jpg,0,0,29.5,30\ncastle/2.jpg,0,0,5,5\n")
    summary, truth = build(photos, pairs=tmp_path / "pairs.csv", boxes=tmp_path / "boxes.csv")
    row = {name: i for i, name in enumerate(truth["imlist"])}
    assert truth["qimlist"] == ["castle/1", "market/a"]
    assert [entry["easy"] for entry in truth["gnd"]] == [[row["castle/2"]], [row["castle/3"]]]
    assert truth["gnd"][0]["hard"] == [row["castle/3"]]
    assert [entry["bbx"] for entry in truth["gnd"]] == [None, [0, 0, 29.5, 30]]
    assert summary["boxes"] == 1


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("labels", "photo\ncastle/1.jpg\n", ("must name the columns photo, landmark", "landmark is missing")),
        ("labels", "photo,landmark,lable\nx,y,z\n", ("unknown column 'lable'", "did you mean label")),
        (
            "labels",
            "photo,landmark\ncastle/9.jpg,castle\n",
            ("line 2: 'castle/9.jpg' is no photo of the folder", "did you mean castle/"),
        ),
        ("labels", "photo,landmark\n,castle\n", ("line 2: photo is empty",)),
        ("labels", "photo,landmark\na,b,c\n", ("line 2 must have 2 fields",)),
        (
            "labels",
            "photo,landmark,label\ncastle/1.jpg,castle,simple\n",
            ("line 2: label must be one of easy, hard, junk; found 'simple'",),
        ),
        ("labels", "photo,landmark,role\ncastle/1.jpg,castle,asked\n", ("role must be one of query, database",)),
        (
            "labels",
            "photo,landmark\ncastle/1.jpg,castle\ncastle/1.jpg,market\n",
            ("line 3: castle/1.jpg stands there before",),
        ),
        ("labels", "photo,landmark\ncastle/1.jpg,castle\n", ("gives 1 landmark and none with two photos",)),
        ("labels", "photo,landmark,x1,y1,x2,y2\ncastle/1.jpg,castle,1,2,3,\n", ("line 2: a box is four numbers",)),
        ("labels", "photo,landmark,x1,y1,x2,y2\ncastle/1.jpg,castle,9,2,3,4\n", ("line 2: 0 <= x1 < x2",)),
        (
            "labels",
            "photo,landmark,role,x1,y1,x2,y2\ncastle/1.jpg,c,query,1,2,300,4\ncastle/2.jpg,c,,,,,\n",
            ("reaches outside the photo of 40 x 40",),
        ),
        ("labels", "photo,landmark,label\ncastle/1.jpg,c,junk\ncastle/2.jpg,c,junk\n", ("none with two photos",)),
        ("pairs", "query,photo\ncastle/1,castle/1\n", ("castle/1.jpg is an answer to itself",)),
        (
            "pairs",
            "query,photo,label\ncastle/1,castle/2,easy\ncastle/1,castle/2,hard\n",
            ("line 3: castle/2.jpg is hard for castle/1.jpg here and easy before",),
        ),
        ("pairs", "query,photo\ncastle/1,castle/2\ncastle/2,castle/3\n", ("castle/2.jpg is a query and an answer",)),
        ("pairs", "query,photo,label\ncastle/1,castle/2,junk\n", ("castle/1.jpg has junk answers only",)),
        ("pairs", "query,photo\n", ("the table has no pairs",)),
        ("pairs", "query,photo\ncastle/1,castle/9\n", ("line 2: 'castle/9' is no photo",)),
        ("boxes", "photo,x1,y1,x2,y2\nnowhere,1,1,2,2\n", ("line 2: 'nowhere' is no photo",)),
        ("boxes", "photo,x1,y1,x2,y2\nloose,1,1,2,2\nloose,1,1,2,3\n", ("line 3: loose.jpg has another box before",)),
    ],
)
def test_mistakes_in_tables(photos: Path, tmp_path: Path, table: str, text: str, words: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UltronError) as raised:
        build(photos, **{table: tmp_path / "t.csv"})
    for word in words:
        assert word in str(raised.value)
    assert not list(photos.glob("gnd_*"))


def test_other_mistakes(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("photo,landmark\ncastle/1.jpg,Schloß\n".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    for options, words in (
        ({"labels": tmp_path / "latin.csv"}, "save it as a CSV in UTF-8"),
        ({"labels": tmp_path / "nowhere.csv"}, "does not exist"),
        ({"labels": tmp_path / "a", "pairs": tmp_path / "b"}, "exclude each other"),
        ({"query_rule": "best"}, "`query_rule` must be one of random, first, largest"),
        ({"name": "a/b"}, "`name` takes letters"),
        ({"queries_per_landmark": 0}, "`queries_per_landmark` must lie between 1"),
    ):
        with pytest.raises(UltronError, match=words):
            build(photos, **options)  # type: ignore[arg-type]
    for source, words in ((tmp_path / "nowhere", "is not a folder"), (tmp_path / "empty", "has no photos")):
        with pytest.raises(UltronError, match=words):
            build(source)
