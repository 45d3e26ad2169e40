"""`ultron visualize match --geometry`: what it draws and says."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, read_json
from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from tests.retrieval.rerank.walls_for_tests import write_search
from tests.visualization.report.test_report import data_of
from ultron_cli.retrieval.rankings import read_ranks
from ultron_cli.visualization.drawing import BOX_COLOUR

TRUTH = turned_wall(25, 200)


@pytest.fixture
def files(tmp_path: Path) -> list[str | Path]:
    """The flags of a query of a wall and two photos, the first of the same wall as TRUTH moves it."""
    walls = {"q0": facade(0, 200), "p00": seen_by(facade(0, 200), TRUTH), "p01": facade(7, 200)}
    (tmp_path / "jpg").mkdir()
    for name, pixels in walls.items():
        Image.fromarray(pixels).convert("RGB").save(tmp_path / "jpg" / f"{name}.jpg", quality=95)
    labels = {"bbx": [20, 30, 180, 170], "easy": [0], "hard": [], "junk": []}
    content = {"imlist": ["p00", "p01"], "qimlist": ["q0"], "gnd": [labels]}
    (tmp_path / "gnd_walls.json").write_text(json.dumps(content))
    photos = [rootsift(walls["p00"]), rootsift(walls["p01"])]
    write_search(tmp_path, [rootsift(walls["q0"])], photos, [0, 0, 1], photo_folder=tmp_path)
    return ["--queries", tmp_path / "queries.h5", "--database", tmp_path / "database.h5"]


def test_inliers_are_drawn_as_lines_and_the_box_where_it_goes(
    ultron: Run, tmp_path: Path, files: list[str | Path]
) -> None:
    result = read_json(ultron("visualize", "match", "--geometry", *files, "--out", tmp_path / "m.png", "--json"))
    by_name = {photo["name"]: photo for photo in result["photos"]}
    assert by_name["p00"]["n_inliers"] > 30 > 8 > by_name["p01"]["n_inliers"]
    assert by_name["p00"]["verdict"] == "right" and by_name["p01"]["transform"] is None
    transform = np.array(by_name["p00"]["transform"])
    np.testing.assert_allclose(transform / transform[2, 2], TRUTH / TRUTH[2, 2], atol=2, rtol=0.1)
    pixels = np.asarray(Image.open(tmp_path / "m.png")).astype(int)
    assert (np.abs(pixels - BOX_COLOUR).sum(axis=2) < 30).sum() > 500
    code, _, err = ultron("visualize", "match", "--geometry", "--at", "5,5", *files)
    assert code == 2 and "--geometry verifies the whole query; leave out --at" in err
    (tmp_path / "queries.local.h5").unlink()
    code, _, err = ultron("visualize", "match", "--geometry", *files)
    assert code == 2 and "queries.local.h5 is absent; make local features with `ultron extract --local rootsift`" in err


@pytest.fixture
def ranks(files: list[str | Path], ultron: Run, tmp_path: Path) -> list[str | Path]:
    """The flags of two rank files, without and with verification."""
    flags: list[str | Path] = []
    for name, steps in (("plain.h5", []), ("verified.h5", ["--rerank", "geometry"])):
        assert ultron("search", *files, *steps, "--out", tmp_path / name)[0] == 0
        flags += ["--ranks", tmp_path / name]
    return flags


def test_several_searches_side_by_side(ranks: list[str | Path], ultron: Run, tmp_path: Path) -> None:
    out = tmp_path / "m.png"
    result = read_json(ultron("visualize", "match", "--geometry", *ranks, "--out", out, "--json"))
    plain, verified = result["systems"]
    assert (plain["search"], verified["search"]) == ("plain.h5", "verified.h5")
    assert [photo["name"] for photo in verified["photos"]] == ["p00", "p01"]
    assert [photo["promoted"] for photo in verified["photos"]] == [True, False]
    by_name = {photo["name"]: photo["score"] for photo in plain["photos"]}
    assert by_name == {photo["name"]: photo["score"] for photo in verified["photos"]}  # verified alike by default
    assert Image.open(out).width > 1500
    code, _, err = ultron("visualize", "match", "--at", "5,5", *ranks)
    assert code == 2 and "several searches are drawn side by side with --geometry" in err
    code, _, err = ultron("visualize", "match", "--geometry", *ranks, *ranks, "--ranks", ranks[1])
    assert code == 2 and "at most 4 searches are drawn side by side, found 5" in err


def test_pictures_and_tables_say_what_was_promoted(ranks: list[str | Path], ultron: Run, tmp_path: Path) -> None:
    ranking = read_ranks(tmp_path / "verified.h5")
    n_inliers = ranking.inliers_of(0)
    assert n_inliers[0] > 12 > 8 > n_inliers[1] and ranking.ranked_photos(0)[0]["promoted"]
    result = read_json(ultron("visualize", "ranks", *ranks[2:], "--out", tmp_path / "r.png", "--json"))
    assert [photo["inliers"] for photo in result["queries"][0]["photos"]] == n_inliers
    code, _, err = ultron("visualize", "report", *ranks, "--out", tmp_path / "report.html")
    assert code == 0, err
    results = data_of((tmp_path / "report.html").read_text())["results"]
    assert not any("inliers" in photo for photo in results[0]["queries"][0]["photos"])
    first, second = results[1]["queries"][0]["photos"]
    assert (first["inliers"], first["promoted"], second["promoted"]) == (n_inliers[0], True, False)
    lines = np.array(first["geometry"]["lines"])
    ends = cv2.perspectiveTransform((lines[:, None, :2] / 5.0), TRUTH)[:, 0] * 5  # of 200 px, in thousandths
    assert len(lines) == min(200, first["geometry"]["inliers"]) and np.abs(ends - lines[:, 2:]).max() < 30
    (tmp_path / "queries.local.h5").unlink()
    code, _, err = ultron("visualize", "report", *ranks[2:], "--out", tmp_path / "report.html")
    assert code == 0 and "the report shows no lines between inliers: " in err
    assert "geometry" not in data_of((tmp_path / "report.html").read_text())["results"][0]["queries"][0]["photos"][0]


def test_inliers_under_the_pointer_of_a_report(
    ranks: list[str | Path], ultron: Run, tmp_path: Path, browser: Any
) -> None:
    """Lines from the query to the photo while the pointer rests on it, where TRUTH takes them."""
    from selenium.webdriver.common.action_chains import ActionChains

    out = tmp_path / "report.html"
    assert ultron("visualize", "report", *ranks[2:], "--out", out)[0] == 0
    geometry = data_of(out.read_text())["results"][0]["queries"][0]["photos"][0]["geometry"]
    browser.get(out.as_uri())
    photo, other = browser.find_elements("css selector", "#lists .photo")
    drawn = "return [...document.querySelectorAll('#list-inliers line')].map((line) => "
    drawn += "['x1', 'y1', 'x2', 'y2'].map((name) => Number(line.getAttribute(name))))"
    assert browser.execute_script(drawn) == []
    ActionChains(browser).move_to_element(photo).perform()
    lines = np.array(browser.execute_script(drawn))
    assert len(lines) == len(geometry["lines"])
    sides = "return ['#list-inliers', '#lists .row .query img', '#lists .photo img'].map((name) => { "
    sides += "const side = document.querySelector(name).getBoundingClientRect(); "
    sides += "return [side.left, side.top, side.width, side.height]; })"
    frame, of_query, of_photo = np.array(browser.execute_script(sides))
    shares = [(lines[:, i : i + 2] + frame[:2] - side[:2]) / side[2:] for i, side in ((0, of_query), (2, of_photo))]
    ends = cv2.perspectiveTransform(200 * shares[0][:, None], TRUTH)[:, 0] / 200
    assert np.abs(ends - shares[1]).max() < 0.04
    assert browser.find_elements("css selector", "#list-inliers polygon.warped")
    ActionChains(browser).move_to_element(other).perform()
    assert browser.execute_script(drawn) == [] and browser.get_log("browser") == []
