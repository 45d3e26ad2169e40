"""`ultron visualize match --geometry`: what it draws and says."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import Run, read_json
from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from tests.retrieval.rerank.walls_for_tests import write_search
from ultron_cli.visualization.drawing import BOX_COLOUR


def test_inliers_are_drawn_as_lines_and_the_box_where_it_goes(ultron: Run, tmp_path: Path) -> None:
    truth = turned_wall(25, 200)
    walls = {"q0": facade(0, 200), "p00": seen_by(facade(0, 200), truth), "p01": facade(7, 200)}
    (tmp_path / "jpg").mkdir()
    for name, pixels in walls.items():
        Image.fromarray(pixels).convert("RGB").save(tmp_path / "jpg" / f"{name}.jpg", quality=95)
    labels = {"bbx": [20, 30, 180, 170], "easy": [0], "hard": [], "junk": []}
    content = {"imlist": ["p00", "p01"], "qimlist": ["q0"], "gnd": [labels]}
    (tmp_path / "gnd_walls.json").write_text(json.dumps(content))
    photos = [rootsift(walls["p00"]), rootsift(walls["p01"])]
    write_search(tmp_path, [rootsift(walls["q0"])], photos, [0, 0, 1], photo_folder=tmp_path)
    files = ("--queries", tmp_path / "queries.h5", "--database", tmp_path / "database.h5")
    result = read_json(ultron("visualize", "match", "--geometry", *files, "--out", tmp_path / "m.png", "--json"))
    by_name = {photo["name"]: photo for photo in result["photos"]}
    assert by_name["p00"]["n_inliers"] > 30 > 8 > by_name["p01"]["n_inliers"]
    assert by_name["p00"]["verdict"] == "right" and by_name["p01"]["transform"] is None
    transform = np.array(by_name["p00"]["transform"])
    np.testing.assert_allclose(transform / transform[2, 2], truth / truth[2, 2], atol=2, rtol=0.1)
    pixels = np.asarray(Image.open(tmp_path / "m.png")).astype(int)
    assert (np.abs(pixels - BOX_COLOUR).sum(axis=2) < 30).sum() > 500
    code, _, err = ultron("visualize", "match", "--geometry", "--at", "5,5", *files)
    assert code == 2 and "--geometry verifies the whole query; leave out --at" in err
    (tmp_path / "queries.local.h5").unlink()
    code, _, err = ultron("visualize", "match", "--geometry", *files)
    assert code == 2 and "queries.local.h5 is absent; make local features with `ultron extract --local rootsift`" in err
