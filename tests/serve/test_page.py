"""`ultron serve`: the page clicked through in headless Chromium."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serve.requests_by_hand import EVIL, Ask, jpeg
from ultron_cli.serve.server import RetrievalServer


def test_clicking_through(server: RetrievalServer, ask: Ask, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def element(name: str) -> Any:
        return browser.find_element(By.ID, name)

    def names() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#photos .name')].map((name) => name.textContent)"
        )

    def until(condition: Callable[[], Any]) -> Any:
        return WebDriverWait(browser, 30, poll_frequency=0.1).until(lambda _: condition())

    def idle() -> bool:
        return not browser.find_elements(By.CSS_SELECTOR, "#photos.busy") and element("status").text != "searching …"

    def names_by_api(**parameters: Any) -> list[str]:
        status, answer = ask("/api/search", **parameters)
        assert status == 200, answer
        return [photo["name"] for photo in answer["photos"]]

    browser.get(server.url)
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    assert browser.title == "toy: search by photo"
    assert element("rerank-on").is_selected() and not element("search").is_enabled()
    n = len(server.engine.names)

    # Some queries are offered to begin with; the sides of a box are named.
    offered = browser.find_elements(By.CSS_SELECTOR, "#start-photos button img")
    assert len(offered) == min(12, len(server.engine.dataset.query_names)) and element("start").is_displayed()
    offered[0].click()
    until(lambda: idle() and names() and not element("start").is_displayed())
    assert element("query").get_attribute("value") == "0"
    assert element("corners").text.split()[:6] == ["box,", "px", "left", "top", "right", "bottom"]

    # A query of the dataset comes with its box, is searched at once, and its photos are marked right, wrong or ignored.
    Select(element("query")).select_by_value("0")
    query = ask("/api/query/0")[1]
    box = ",".join(str(side) for side in query["box"])
    until(lambda: names() == names_by_api(query=0, box=box))
    assert element("box").is_displayed() and element("legend").is_displayed()
    assert (
        len(
            browser.find_elements(By.CSS_SELECTOR, "#photos .photo.right, #photos .photo.wrong, #photos .photo.ignored")
        )
        == 6
    )

    # All photos without re-ranking; the one whose name would be HTML is text.
    element("rerank-on").click()
    browser.execute_script(
        "const k = document.getElementById('k'); k.value = arguments[0]; k.dispatchEvent(new Event('change'))", n
    )
    until(lambda: idle() and names() == names_by_api(query=0, box=box, k=n, rerank=""))
    assert EVIL in names() and browser.title == "toy: search by photo"
    until(
        lambda: browser.execute_script(
            "return [...document.querySelectorAll('#photos img')].slice(0, 6).every((image) => image.naturalWidth > 0)"
        )
    )

    # A box drawn by mouse over the middle of the photo.
    frame = element("photo").rect
    start = (-round(frame["width"] * 0.25), -round(frame["height"] * 0.3))
    drag = ActionChains(browser).move_to_element_with_offset(element("photo"), *start).click_and_hold()
    drag.move_by_offset(round(frame["width"] * 0.3), round(frame["height"] * 0.3)).move_by_offset(
        round(frame["width"] * 0.2), round(frame["height"] * 0.3)
    )
    drag.release().perform()
    until(
        lambda: idle() and browser.execute_script("return state.answer && state.answer.query.box[0]") != query["box"][0]
    )
    drawn = browser.execute_script("return state.answer.query.box")
    for side, share, whole in zip(drawn, (0.25, 0.2, 0.75, 0.8), [query["width"], query["height"]] * 2, strict=True):
        assert side == pytest.approx(share * whole, abs=0.02 * whole)
    assert names() == names_by_api(query=0, box=",".join(f"{side:.2f}" for side in drawn), k=n, rerank="")
    assert [float(element(corner).get_attribute("value")) for corner in ("x1", "y1", "x2", "y2")] == [
        pytest.approx(side, abs=0.51) for side in drawn
    ]

    # The similarity map comes while the pointer rests on a photo, and goes.
    cards = browser.find_elements(By.CSS_SELECTOR, "#photos .photo")
    ActionChains(browser).move_to_element(cards[1]).perform()
    until(lambda: cards[1].find_elements(By.CSS_SELECTOR, "canvas, .note"))
    assert not cards[1].find_elements(By.CSS_SELECTOR, ".note"), cards[1].text
    painted = (
        "const c = arguments[0]; return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert browser.execute_script(painted, cards[1].find_element(By.CSS_SELECTOR, "canvas")) > 20
    browser.save_screenshot(str(tmp_path / "hover.png"))
    ActionChains(browser).move_to_element(element("title")).perform()
    until(lambda: not cards[1].find_elements(By.CSS_SELECTOR, "canvas"))

    # A click shows the photo large, with its map; keys lead to the next and out.
    cards[0].click()
    until(lambda: element("pair").is_displayed() and element("pair-title").text == f"rank 1: {names()[0]}")
    until(lambda: "cosine at one scale" in element("pair-facts").text or "no place" in element("pair-facts").text)
    element("pair").send_keys(Keys.ARROW_RIGHT)
    until(lambda: element("pair-title").text == f"rank 2: {names()[1]}" and element("pair-map").is_displayed())
    browser.save_screenshot(str(tmp_path / "pair.png"))
    element("map-on").click()
    until(lambda: not element("pair-map").is_displayed())
    second = names()[1]
    element("use").click()
    until(lambda: idle() and names()[:1] == [second])  # a photo is most like itself
    assert not element("box").is_displayed() and not element("legend").is_displayed()

    # A photo of one's own; then one that is not a photo: a clear error, and the page goes on.
    upload, bad, large = tmp_path / f"{EVIL.replace('/', '')}.jpg", tmp_path / "bad.jpg", tmp_path / "large.jpg"
    upload.write_bytes(jpeg(120, 90, seed=4))
    bad.write_bytes(b"this is text")
    large.write_bytes(bytes(300_000))
    element("file").send_keys(str(upload))
    answer = ask("/api/search", upload.read_bytes(), k=n, rerank="")[1]
    until(lambda: idle() and names() == [photo["name"] for photo in answer["photos"]])
    assert element("photo-facts").text == f"{upload.name}, 120 × 90 px"
    assert browser.execute_script("return state.answer.query.kind") == "upload"
    dropped = """const letters = atob(arguments[0]);
        const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
        const photo = new File([bytes], "dropped.jpg", {type: "image/jpeg"});
        const brought = new DataTransfer();
        brought.items.add(photo);
        for (const kind of ["dragover", "drop"]) {
            const event = new DragEvent(kind, {dataTransfer: brought, bubbles: true, cancelable: true});
            document.body.dispatchEvent(event);
        }"""
    content = jpeg(64, 100, seed=5)
    browser.execute_script(dropped, base64.b64encode(content).decode())
    answer = ask("/api/search", content, k=n, rerank="")[1]
    until(lambda: idle() and names() == [photo["name"] for photo in answer["photos"]])
    assert element("photo-facts").text == "dropped.jpg, 64 × 100 px" and not element("dropping").is_displayed()
    element("file").send_keys(str(large))
    until(lambda: element("error").text == "the photo has 0.3 MiB; at most 0.25")
    assert browser.get_log("browser") == []
    element("file").send_keys(str(bad))
    until(lambda: "is not a photo that can be read" in element("error").text)
    assert all("415" in entry["message"] for entry in browser.get_log("browser"))  # Chromium logs the status by itself
    Select(element("query")).select_by_value("1")
    until(lambda: idle() and names() and not element("error").is_displayed())

    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    element("theme").click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    browser.save_screenshot(str(tmp_path / "dark.png"))
    assert browser.get_log("browser") == []


def test_inliers_under_the_pointer(server: RetrievalServer, ask: Ask, browser: Any) -> None:
    """Of a photo with itself: lines from the query to the card, of equal ends, and the warped box; gone with the
    pointer."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def until(condition: Callable[[], Any]) -> Any:
        return WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda _: condition())

    def all_of(selector: str) -> list[Any]:
        return browser.find_elements("css selector", selector)

    browser.get(server.url)
    until(lambda: all_of("#start-photos button"))
    browser.execute_script("chooseStored('photo', 7)")
    until(lambda: all_of("#photos .photo") and not all_of("#photos.busy"))
    Select(all_of("#rerank")[0]).select_by_value("geometry")
    until(lambda: not all_of("#photos.busy") and all_of("#photos .photo .promoted"))
    card = all_of("#photos .photo")[0]
    ActionChains(browser).move_to_element(card).perform()
    until(lambda: all_of("#card-inliers line"))
    _, answer = ask("/api/search", photo=7, rerank="geometry")
    inliers = ask("/api/inliers", search=answer["search"], row=7)[1]
    assert len(all_of("#card-inliers line")) == len(inliers["lines"])
    assert card.find_element("css selector", ".note").text.startswith(f"{inliers['counted']} inliers count")
    rects = """return ["#photo", "#photos .photo img", "#card-inliers"].map((name) => {
        const side = document.querySelector(name).getBoundingClientRect();
        return [side.left, side.top, side.width, side.height];
    })"""
    query, photo, frame = browser.execute_script(rects)
    ends = "return [...document.querySelectorAll('#card-inliers line')].map((line) => "
    ends += "['x1', 'y1', 'x2', 'y2'].map((name) => Number(line.getAttribute(name))))"
    for x1, y1, x2, y2 in browser.execute_script(ends):
        shares = []
        for (left, top, width, height), x, y in ((query, x1, y1), (photo, x2, y2)):
            shares.append(((x + frame[0] - left) / width, (y + frame[1] - top) / height))
            assert all(-0.01 <= share <= 1.01 for share in shares[-1])
        assert shares[0] == pytest.approx(shares[1], abs=0.03)
    assert all_of("#card-inliers polygon.warped")
    ActionChains(browser).move_to_element(all_of("#title")[0]).perform()
    until(lambda: not all_of("#card-inliers line"))
    assert browser.get_log("browser") == []


def test_on_a_phone(server: RetrievalServer, browser: Any) -> None:
    """390 px wide and without a mouse: nothing reaches out, before and after a search, and no word of a mouse."""
    from selenium.webdriver.support.ui import WebDriverWait

    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    browser.get(server.url)
    ready = "return document.documentElement.dataset.ready"
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script(ready))
    width = "return document.documentElement.scrollWidth"
    assert browser.execute_script(width) == 390
    browser.find_element("css selector", "#start-photos button").click()
    WebDriverWait(browser, 30).until(lambda _: browser.find_elements("css selector", "#photos .photo"))
    assert browser.execute_script(width) == 390
    words = browser.find_element("tag name", "body").text
    assert "Tap a photo" in words and not {"mouse", "pointer", "drop"} & set(words.replace(".", " ").split())
