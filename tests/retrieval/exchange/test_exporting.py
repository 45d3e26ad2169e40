"""What goes out for tools that reconstruct scenes, and what `--self` means."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.retrieval.exchange import literal_parsers
from tests.retrieval.exchange.rankings_for_tests import ranking_of
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.exporting import Exported, ExportRequest, export_ranking
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

NAMES = ["a", "sub/b", "c.png", "d"]


def collection(tmp_path: Path) -> Ranking:
    """Four photos searched among themselves; d has no file."""
    for name in ("a.jpg", "sub/b.jpeg", "c.png"):
        path = tmp_path / "set/jpg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    gnd = tmp_path / "set/gnd_set.json"
    gnd.write_text('{"imlist": ["a", "sub/b", "c.png", "d"], "qimlist": [], "gnd": []}')
    rows = [[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 0, 1], [3, 2, 1, 0]]
    origin = Origin(dataset="set", dataset_folder=str(tmp_path / "set"), ground_truth=str(gnd))
    return ranking_of(rows, [[0.9, 0.5, 0.25, 0.125]] * 4, queries=NAMES, photos=NAMES, origin=origin)


def export(ranking: Ranking, tmp_path: Path, format_name: str, **settings: object) -> tuple[list[str], Exported]:
    request = ExportRequest(format=format_name, **settings)  # type: ignore[arg-type]
    exported = export_ranking(ranking, tmp_path / "out", request)
    return (tmp_path / "out").read_text().splitlines(), exported


def test_pairs_name_files_and_no_photo_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranking = collection(tmp_path)
    lines, exported = export(ranking, tmp_path, "hloc", is_self=True, k=2)
    assert lines == [
        *("a.jpg sub/b.jpeg", "a.jpg c.png"),
        "sub/b.jpeg d",  # sub/b and a came before
        "c.png d",
        # d's best two, c and b, came before
    ]
    assert (exported.n_queries, exported.n_lines) == (4, 4)
    assert "1 query without a file in " in caplog.text and "which may lack a suffix: d" in caplog.text
    assert export(ranking, tmp_path, "colmap", is_self=True, k=2)[0] == lines
    both_ways, _ = export(ranking, tmp_path, "hloc", k=2)
    assert both_ways[:3] == ["a.jpg sub/b.jpeg", "a.jpg c.png", "sub/b.jpeg a.jpg"] and len(both_ways) == 8
    kapture, _ = export(ranking, tmp_path, "kapture", is_self=True, k=1)
    assert kapture == [
        *("# kapture format: 1.1", "# query_image, map_image, score"),
        *("a.jpg, sub/b.jpeg, 0.5", "c.png, d, 0.9"),
    ]


def test_of_a_run_each_photo_leaves_its_own_ranking(tmp_path: Path) -> None:
    ranking = collection(tmp_path)
    lines, _ = export(ranking, tmp_path, "csv", is_self=True, k=1)
    assert lines[1:] == ["a,sub/b,0.5", "sub/b,a,0.5", "c.png,d,0.9", "d,c.png,0.5"]
    assert export(ranking, tmp_path, "csv", k=1)[0][1:] == ["a,a,0.9", "sub/b,sub/b,0.9", "c.png,d,0.9", "d,d,0.9"]
    stranger = replace(ranking, query_names=["a", "x", "c.png", "d"])
    with pytest.raises(UltronError, match=r"`self` is for photos .*; 1 query is not in the database, for example 'x'"):
        export_ranking(stranger, tmp_path / "o", ExportRequest(format="csv", is_self=True))


def test_photos_that_are_gone_keep_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranking = ranking_of([[0, 1]], [[2, 1]], queries=["q"], photos=["a", "distractor:b"])
    assert export(ranking, tmp_path, "hloc")[0] == ["q a", "q distractor:b"]
    assert "1 query without a file in a folder that is recorded" in caplog.text
    gone = replace(ranking, origin=Origin(dataset_folder=str(tmp_path / "gone")))
    assert export(gone, tmp_path, "hloc")[0] == ["q a", "q distractor:b"]


@pytest.mark.parametrize(
    ("format_name", "name", "words"),
    [
        ("hloc", "a b", r"hloc needs a name without blanks, in UTF-8; found 'a b'; kapture can carry it"),
        ("colmap", "#a", r"colmap needs .*; found '#a'; hloc can carry it"),
        ("kapture", "a,b", r"kapture needs .*; found 'a,b'; hloc and colmap can carry it"),
        ("kapture", "a, b", r"kapture needs .*; found 'a, b'; rename the photo"),
        ("trec", "a\u2003b", r"trec needs a name without blanks, .*; csv and ranx and json and ilias can carry it"),
        ("csv", "a\udce9", r"csv needs a name in UTF-8 .*; ranx and json and ilias can carry it"),
    ],
)
def test_names_that_a_format_cannot_carry(tmp_path: Path, format_name: str, name: str, words: str) -> None:
    ranking = ranking_of([[0]], [[1]], photos=[name])
    with pytest.raises(UltronError, match=words):
        export_ranking(ranking, tmp_path / "o", ExportRequest(format=format_name))
    unused = ranking_of([[0]], [[1]], photos=["fine", name])
    export_ranking(unused, tmp_path / "o", ExportRequest(format=format_name))


def test_their_parsers_read_our_pairs(tmp_path: Path) -> None:
    ranking = collection(tmp_path)
    export(ranking, tmp_path, "hloc", k=2)
    assert literal_parsers.hloc_retrieval(tmp_path / "out") == {
        "a.jpg": ["sub/b.jpeg", "c.png"],
        "sub/b.jpeg": ["a.jpg", "d"],
        "c.png": ["d", "a.jpg"],
        "d": ["c.png", "sub/b.jpeg"],
    }
    export(ranking, tmp_path, "kapture", k=1)
    assert literal_parsers.kapture_ordered_pairs(tmp_path / "out")["c.png"] == [("d", 0.9)]
    assert literal_parsers.kapture_pairs(tmp_path / "out") == [("a.jpg", "sub/b.jpeg"), ("c.png", "d")]


def test_colmap_reads_our_pairs(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    ranking = collection(tmp_path)
    export(ranking, tmp_path, "colmap", is_self=True)
    with pycolmap.Database.open(tmp_path / "colmap.db") as database:
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=8, height=8, params=[8, 4, 4])
        camera.camera_id = database.write_camera(camera)
        files = ["a.jpg", "sub/b.jpeg", "c.png", "d"]
        id_of = {name: database.write_image(pycolmap.Image(name=name, camera_id=camera.camera_id)) for name in files}
        options = pycolmap.ImportedPairingOptions()
        options.match_list_path = str(tmp_path / "out")
        pairs = pycolmap.ImportedPairGenerator(options, database).all_pairs()
    name_of = {number: name for name, number in id_of.items()}
    expected = [tuple(line.split()) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(name_of[a], name_of[b]) for a, b in pairs] == expected
    assert len(expected) == 6  # of four photos
