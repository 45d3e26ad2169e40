"""Leaks between training photos, queries, database and distractors: walls of which some stand on two sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, read_json
from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from tests.retrieval.rerank.walls_for_tests import write_local
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.datasets.landmarks.exclusions import read_exclusions
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.leak_features import has_faint_features, leak_features
from ultron_cli.retrieval.leaks import LeakConfig, Side, leaks_between, sides_of

DIM = 16


def write_side(path: Path, prefix: str, pictures: list[np.ndarray], walls: list[int], *, local: bool = True) -> None:
    """Pictures of walls: descriptors that tell of the wall, and local features."""
    names = [f"{prefix}{i}.jpg" for i in range(len(pictures))]
    rows = unit_rows(1, 40, DIM)[walls] + 0.2 * unit_rows(ord(prefix), len(walls), DIM)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    role = "query" if path.stem == "queries" else "database"
    write_descriptors(path, names, [rows.astype(np.float32)], DIM, replace(INFO, role=role))
    if local:
        features: list[LocalFeatures] = [rootsift(np.ascontiguousarray(picture), 150) for picture in pictures]
        write_local(path.with_suffix(".local.h5"), names, features, role)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """q0 is t0 mirrored, q1 shows the wall of t1; p0 is t2 cut; q2 is p1; x0 is of the wall of p2."""
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "test").mkdir()
    walls = {i: facade(i, 200) for i in range(14)}
    turned = turned_wall(35, 200)
    write_side(folder / "train.h5", "t", [walls[0], walls[1], walls[2], walls[3], walls[4]], [0, 1, 2, 3, 4])
    queries = [walls[0][:, ::-1], seen_by(walls[1], turned), walls[5], walls[6]]
    write_side(folder / "test" / "queries.h5", "q", queries, [0, 1, 5, 6])
    database = [walls[2][20:180, 30:190], walls[5], walls[7], seen_by(walls[6], turned)]
    write_side(folder / "test" / "database.h5", "p", database, [2, 5, 7, 6])
    write_side(folder / "more.h5", "x", [seen_by(walls[7], turned), walls[8], walls[9]], [7, 8, 9])
    return folder


EXPECTED = {
    ("query-train", "q0.jpg", "t0.jpg", "mirrored copy"),
    ("query-train", "q1.jpg", "t1.jpg", "landmark"),
    ("database-train", "p0.jpg", "t2.jpg", "copy"),
    ("query-database", "q2.jpg", "p1.jpg", "copy"),
    ("database-distractors", "p2.jpg", "x0.jpg", "landmark"),
}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_leaks_are_told_by_side_and_kind(sides: Path, n_workers: int) -> None:
    files = sides_of(sides / "train.h5", sides / "test", [sides / "more.h5"])
    leaks = leaks_between(files, LeakConfig(n_workers=n_workers))
    assert {(leak.sides, leak.first, leak.second, leak.kind) for leak in leaks.leaks} == EXPECTED
    assert leaks.leaks[0].kind == "copy" and leaks.leaks[-1].kind == "landmark"
    assert leaks.training_photos == ["t0.jpg", "t1.jpg", "t2.jpg"] and leaks.queries == ["q0.jpg", "q1.jpg", "q2.jpg"]
    assert not leaks.by_similarity


def test_the_command_writes_lists_that_are_read_again(sides: Path, ultron: Run, tmp_path: Path) -> None:
    out = tmp_path / "leaks.json"
    content = read_json(ultron("--json", "datasets", "leaks", sides / "train.h5", sides / "test", "--out", out))
    assert read_exclusions(Path(content["exclude-train"])) == {"t0.jpg", "t1.jpg", "t2.jpg"}
    assert read_exclusions(Path(content["exclude-queries"])) == {"q0.jpg", "q1.jpg", "q2.jpg"}
    assert Path(content["picture"]).read_bytes()[:4] == b"\x89PNG" and out.is_file()


def test_without_local_features_similarity_decides_and_it_is_said(tmp_path: Path, ultron: Run) -> None:
    write_side(tmp_path / "train.h5", "t", [np.empty(0)] * 3, [0, 1, 2], local=False)
    write_side(tmp_path / "queries.h5", "q", [np.empty(0)] * 2, [0, 9], local=False)
    files = sides_of(tmp_path / "train.h5", tmp_path / "queries.h5", [])
    leaks = leaks_between(files, LeakConfig(similarity=0.8))
    assert [(leak.first, leak.second, leak.kind, leak.score) for leak in leaks.leaks] == [
        ("q0.jpg", "t0.jpg", "similar", None)
    ]
    sides = (tmp_path / "train.h5", tmp_path / "queries.h5")
    code, out, _ = ultron("datasets", "leaks", *sides, "--similarity", "0.999", "--no-detect")
    assert code == 0 and "0 leaks" in out and "descriptors alone" in out


def test_wrong_input_is_one_line(sides: Path, ultron: Run, tmp_path: Path) -> None:
    (tmp_path / "torn.h5").write_bytes((sides / "train.h5").read_bytes()[:900])
    for files in ([sides / "train.h5"], [tmp_path / "torn.h5", sides / "test"], [tmp_path, sides / "test"]):
        code, out, err = ultron("datasets", "leaks", *files)
        assert (code, out) == (2, "") and len([line for line in err.splitlines() if "error: " in line]) == 1
        assert "Traceback" not in err


def test_limits_of_settings() -> None:
    with pytest.raises(UltronError, match="`k` must lie between 1 and 1000"):
        LeakConfig(k=0)


@pytest.mark.parametrize(("n_photos", "is_right"), [(200, True), (120, False)])
def test_a_direction_that_all_photos_vary_in_hides_no_candidate(tmp_path: Path, n_photos: int, is_right: bool) -> None:
    """As a blur moves descriptors; 120 photos are too few to learn the direction from."""
    rows = unit_rows(3, n_photos, 64)
    common = unit_rows(4, 1, 64)[0]
    strengths = np.linspace(-2, 2, n_photos)[np.random.default_rng(5).permutation(n_photos)]
    blurred = rows[7] + 2.0 * common
    rows = rows + strengths[:, None] * common
    rows[7] -= (strengths[7] + 1.0) * common
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"t{i}.jpg" for i in range(n_photos)]
    write_descriptors(tmp_path / "train.h5", names, [rows.astype(np.float32)], 64, replace(INFO, role="database"))
    with Side(tmp_path / "train.h5", "train") as side:
        nearest = side.nearest((blurred / np.linalg.norm(blurred)).astype(np.float32)[None], 5)[0]
    assert (7 in nearest) is is_right


def test_faint_copies_are_told_by_features_that_are_found_for_it(tmp_path: Path, ultron: Run) -> None:
    """Walls in fog: the copy is seen in the photos, at once and again, and not where only what lies beside is taken."""
    for side, walls in (("train", [0, 1, 2]), ("test", [5, 1, 6])):
        (tmp_path / side).mkdir()
        for wall in walls:
            fog = 200 + 0.05 * (facade(wall, 200).astype(np.float32) - 128)
            part = fog[8:192, 16:196] if side == "test" else fog
            Image.fromarray(part.astype(np.uint8)).save(tmp_path / side / f"{wall}.png")
        network = ("--model", "gem", "--backbone", "test_resnet", "--untrained", "--scales", "1", "--max-side", "64")
        network += ("--workers", "0")
        local = ("--local", "rootsift") if side == "test" else ()
        code, _, error = ultron("extract", tmp_path / side, *network, *local, "--out", tmp_path / f"{side}-out")
        assert code == 0, error
    written = [tmp_path / f"{side}-out" / "database.leaks.local.h5" for side in ("train", "test")]
    files = sides_of(tmp_path / "train-out", tmp_path / "test-out", [])
    for _ in range(2):
        leaks = leaks_between(files, LeakConfig(n_workers=1))
        assert [(leak.first, leak.second, leak.kind) for leak in leaks.leaks] == [("1.png", "1.png", "copy")]
        assert leaks.by_geometry == ["database-train"] and all(has_faint_features(path) for path in written)
    assert not has_faint_features(tmp_path / "test-out" / "database.local.h5")
    assert leaks_between(files, LeakConfig(n_workers=1, detect=False)).by_similarity == ["database-train"]
    (tmp_path / "test").rename(tmp_path / "moved")
    assert leak_features(tmp_path / "test-out" / "database.h5") == tmp_path / "test-out" / "database.local.h5"
    (tmp_path / "train").rename(tmp_path / "moved-too")
    assert leak_features(tmp_path / "train-out" / "database.h5") is None
