"""The HTML report: its data, and the page itself clicked through in headless Chromium."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.retrieval.origin import Origin, SearchRecord, StepRecord
from ultron_cli.visualization.report.maps import packed_map
from ultron_cli.visualization.report.report import page, settings_of

EVIL = "<img src=x onerror=document.title='broken'>"


@pytest.fixture
def searches(toy: Path, ultron: Run, tmp_path: Path) -> tuple[Path, Path]:
    """Two rank files of a dataset in which one photo has a name that would be HTML: two untrained networks."""
    folder = tmp_path / "evil"
    shutil.copytree(toy, folder)
    gnd = next(folder.glob("gnd_*.json"))
    content = json.loads(gnd.read_text())
    old = content["imlist"][content["gnd"][0]["easy"][0] if content["gnd"][0]["easy"] else 0]
    (folder / "jpg" / f"{old}.jpg").rename(folder / "jpg" / f"{EVIL}.jpg")
    content["imlist"] = [EVIL if name == old else name for name in content["imlist"]]
    gnd.write_text(json.dumps(content))
    paths = []
    for seed in (0, 1):
        extracted, ranks = tmp_path / f"extracted{seed}", tmp_path / f"ranks{seed}.h5"
        network = ["--model", "gem", "--backbone", "test_resnet", "--untrained", "--seed", seed]
        code, _, error = ultron("extract", "--dataset", folder, *network, "--out", extracted)
        assert code == 0, error
        stored = ["--queries", extracted / "queries.h5", "--database", extracted / "database.h5"]
        code, _, error = ultron("search", *stored, "-k", len(content["imlist"]), "--out", ranks)
        assert code == 0, error
        paths.append(ranks)
    return paths[0], paths[1]


def data_of(html: str) -> dict[str, Any]:
    """What the page reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL).group(1))


def test_report_of_one_search(searches: tuple[Path, Path], ultron: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    code, text, error = ultron("visualize", "report", "--ranks", searches[0], "-k", 5, "--maps", 1, "--out", out)
    assert code == 0, error
    assert text.strip() == str(out)
    html = out.read_text(encoding="utf-8")
    assert EVIL not in html and "http://" not in html and "https://" not in html  # nothing is loaded from anywhere
    data = data_of(html)
    result = data["results"][0]
    code, text, _ = ultron("evaluate", "--ranks", searches[0], "--protocol", "all", "--json")
    scores = json.loads(text)["protocols"]
    assert {name: part["mAP"] for name, part in result["scores"].items()} == {
        name: part["mAP"] for name, part in scores.items()
    }
    for query in result["queries"]:
        assert query["ap"]["medium"] == scores["medium"]["ap"][query["name"]]
        assert [len(query["photos"]), query["photos"][0]["map"]["w"] > 0, "map" in query["photos"][1]] == [
            5,
            True,
            False,
        ]
        assert query["photos"] == sorted(query["photos"], key=lambda photo: -photo["score"])
    assert all(source.startswith("data:image/jpeg;base64,") for source in data["thumbnails"])
    assert dict(result["settings"])["queries"] == "cropped to their box"


def test_too_much_is_refused_and_nothing_written(searches: tuple[Path, Path], ultron: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    for arguments, message in (
        (["-k", 0], "-k must be at least 1; found 0"),
        (["--thumbnail", 10], "--thumbnail must be 60 to 600 pixels, found 10"),
        (["--label", "a", "--label", "b"], "--label must be given once per search, found 2 for 1"),
        (["--ranks", searches[1], "--ranks", searches[1]], "a report shows one search or compares two, found 3"),
    ):
        code, _, error = ultron("visualize", "report", "--ranks", searches[0], *arguments, "--out", out)
        assert code == 2 and message in error
    assert not out.exists()


def test_page_keeps_text_from_ending_the_script() -> None:
    html = page({"name": "</script><script>alert(1)</script>", "line": "\u2028"})
    assert html.count("</script>") == 2
    assert data_of(html) == {"name": "</script><script>alert(1)</script>", "line": "\u2028"}
    with pytest.raises(ValueError):
        page({"score": float("nan")})


def test_settings_of_a_search_name_those_of_its_steps() -> None:
    steps = (
        StepRecord(name="aqe", settings={"k": 3}),
        StepRecord(name="superglobal", settings={"m": 400, "beta": 0.15}),
    )
    search = SearchRecord(method="index", kind="ivfpq", settings={"nprobe": 16}, steps=steps)
    settings = dict(settings_of(Origin(dataset="d", search=search)))
    assert settings["re-ranking"] == "aqe (k 3), then superglobal (m 400, beta 0.15)"
    assert settings["search"] == "ivfpq (nprobe 16)"
    assert dict(settings_of(Origin(dataset="d")))["re-ranking"] == "none"


def test_page_fits_a_phone(searches: tuple[Path, Path], ultron: Run, tmp_path: Path, browser: Any) -> None:
    """Two searches by one network: 390 px wide, nothing reaches out; the heading names the network once, the cards the
    files."""
    out = tmp_path / "report.html"
    code, _, error = ultron("visualize", "report", "--ranks", searches[0], "--ranks", searches[1], "--out", out)
    assert code == 0, error
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(out.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    heading = browser.find_element("id", "title")
    assert heading.text == "gem-test_resnet on toy" and heading.size["height"] < 60
    titles = [part.text for part in browser.find_elements("css selector", ".card h2")]
    assert titles == ["ranks0.h5", "ranks1.h5", "ranks1.h5 minus ranks0.h5"]


def test_packed_map() -> None:
    packed = packed_map(np.array([[0.0, 0.5], [1.0, 0.25]], np.float32))
    assert packed == {"h": 2, "w": 2, "data": "AID/QA=="}


def test_clicking_through_two_searches(searches: tuple[Path, Path], ultron: Run, tmp_path: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    out = tmp_path / "report.html"
    arguments = [
        "--ranks",
        searches[0],
        "--ranks",
        searches[1],
        "--label",
        "before",
        "--label",
        "<b>after",
        "-k",
        6,
        "--maps",
        1,
        "--out",
        out,
    ]
    code, _, error = ultron("visualize", "report", *arguments)
    assert code == 0, error
    data = data_of(out.read_text(encoding="utf-8"))

    def all_of(selector: str) -> list[Any]:
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(selector: str) -> list[str]:
        return [part.text for part in all_of(selector)]

    def press(*keys: str) -> None:
        for key in keys:
            browser.switch_to.active_element.send_keys(key)

    browser.get(out.as_uri())
    assert browser.title == "before and <b>after on toy"
    assert texts(".card h2") == ["before", "<b>after", "<b>after minus before"]
    compared = {part["protocol"]: part for part in data["comparison"]}
    shown = dict(zip(texts("#comparison td:first-child"), texts("#comparison td:nth-child(2)"), strict=True))
    assert shown.keys() == compared.keys()
    assert texts("#comparison th")[3:5] == ["p", "smallest"]
    intervals = texts(".card:first-child td:nth-child(3)")
    assert len(intervals) == len(compared) and all(" to " in text for text in intervals)
    for protocol, part in compared.items():
        scores = [result["scores"][protocol]["mAP"] for result in data["results"]]
        assert part["difference"] == pytest.approx(scores[1] - scores[0]) and part["interval"][0] <= part["interval"][1]
        assert float(shown[protocol]) == pytest.approx(100 * part["difference"], abs=0.006)
        assert f"{protocol}: {part['verdict']}" in texts("#comparison p")
    names = [query["name"] for query in data["results"][0]["queries"]]
    assert sorted(texts("#queries tbody td:first-child")) == sorted(names)
    assert len(all_of("#lists .photo")) == 12  # both searches, six photos each

    # Sorting by AP, ascending and then descending, and back to names.
    for column, reverse in ((2, False), (2, True)):
        all_of("#queries th button")[column].click()
        values = [float(text) for text in texts(f"#queries tbody td:nth-child({column + 1})") if text != "–"]
        assert values == sorted(values, reverse=reverse)
    all_of("#queries th button")[0].click()

    # Protocols by key: what is right under medium can be ignored under hard.
    press("h")
    assert browser.find_element(By.CSS_SELECTOR, "#protocols input:checked").get_attribute("value") == "hard"
    press("m")

    # Filter, then the next query by key.
    browser.find_element(By.ID, "find").send_keys(names[1])
    assert texts("#queries tbody td:first-child") == [names[1]]
    browser.find_element(By.ID, "find").send_keys(Keys.BACKSPACE * len(names[1]), Keys.ESCAPE)
    press("j")
    assert "current" in all_of("#queries tbody tr")[1].get_attribute("class")

    # The photo whose name would be HTML is text wherever it stands.
    for i, query in enumerate(sorted(names)):
        entry = next(entry for entry in data["results"][0]["queries"] if entry["name"] == query)
        place = next((j for j, photo in enumerate(entry["photos"]) if photo["name"] == EVIL), None)
        if place is not None:
            all_of("#queries tbody tr")[i].click()
            photo = all_of("#lists .row")[0].find_elements(By.CSS_SELECTOR, ".photo")[place]
            assert photo.find_element(By.CSS_SELECTOR, ".name").get_attribute("textContent") == EVIL
            break
    else:
        pytest.fail("the photo is in no list: the test looked at nothing")
    assert browser.title == "before and <b>after on toy"

    # A pair with its map, the next one by key, closed by Escape.
    all_of("#lists .photo")[0].click()
    dialog = browser.find_element(By.ID, "pair")
    WebDriverWait(browser, 10).until(
        lambda _: browser.execute_script("return document.getElementById('pair-photo').width") > 300
    )
    assert dialog.is_displayed() and "rank 1 of" in browser.find_element(By.ID, "pair-title").text
    assert browser.find_element(By.ID, "map-switch").is_displayed()
    press(Keys.ARROW_RIGHT)
    assert "rank 2 of" in browser.find_element(By.ID, "pair-title").text
    assert not browser.find_element(By.ID, "map-switch").is_displayed()  # only the first pair was given one
    press(Keys.ESCAPE)
    assert not dialog.is_displayed()

    # What moved from one search to the other is marked, with sign and number.
    moved = texts("#lists .row:last-child .up, #lists .row:last-child .down")
    assert moved and all(re.fullmatch(r"[▲▼] (\d+|new here)", text) for text in moved)
    before, browser_dark = (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor"),
        browser.find_element(By.ID, "theme"),
    )
    browser_dark.click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    assert browser.get_log("browser") == []
