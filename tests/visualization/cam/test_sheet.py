"""The figure of similarity maps: photos, frames, heat and the colour bar at known places."""

from pathlib import Path

import numpy as np
import pytest

from tests.visualization.photos import pixels_of, plain
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, tiles
from ultron_cli.visualization.cam.sheet import CamPair, cam_figure, note_of
from ultron_cli.visualization.cam.similarity import Cam
from ultron_cli.visualization.drawing import overlay
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto


def pair_of(rank: int, verdict: drawing.Verdict, heat: float, *, flat: bool = False) -> CamPair:
    cam = Cam(np.full((100, 100), heat, np.float32), 0.5, flat)
    return CamPair(RankedPhoto(plain(128), rank, 0.5, verdict, f"photo {rank} <b>$x^2$"), cam)


def test_figure_at_known_places(tmp_path: Path) -> None:
    """Square photos fill cells of 280 px; the first database photo starts 26 + 280 + 10 + 34 px right of margin and
    frame."""
    query = QueryPhoto(plain(60), "q", (20.0, 20.0, 80.0, 80.0))
    pairs = [pair_of(1, "right", 1.0), pair_of(2, "wrong", 0.0, flat=True)]
    path = cam_figure(query, Cam(np.ones((60, 60), np.float32), 0.5), pairs, "model on data", tmp_path / "cam.png")
    picture = pixels_of(path)
    query_x = drawing.MARGIN_PX + 26 + drawing.FRAME_PX
    first_x = query_x + 280 + 10 + 34
    top = (
        drawing.Header.of("model on data", note_of(pairs[0].cam, 1), picture.shape[1]).height_px
        + drawing.LEGEND_HEIGHT_PX
        + drawing.FRAME_PX
    )
    for x, verdict in ((first_x, "right"), (first_x + 280 + 10 + 14, "wrong")):
        assert picture[top + 140, x - 1].tolist() == list(drawing.VERDICT_COLOURS[verdict])
        assert picture[top + 140, x - 6].tolist() == [255, 255, 255]
        assert picture[top + 140, x].tolist() == [128, 128, 128]
    heat_top = top + 280 + 10 + drawing.LABEL_HEIGHT_PX
    hot = overlay(np.full((1, 1, 3), 128, np.uint8), np.ones((1, 1), np.float32))[0, 0].tolist()
    cold = overlay(np.full((1, 1, 3), 128, np.uint8), np.zeros((1, 1), np.float32))[0, 0].tolist()
    assert picture[heat_top + 140, first_x + 140].tolist() == hot
    assert picture[heat_top + 140, first_x + 304 + 140].tolist() == cold
    # The query's heat lies in its box; outside the photo is faded.
    assert (
        picture[heat_top + 140, query_x + 140].tolist()
        == overlay(np.full((1, 1, 3), 60, np.uint8), np.ones((1, 1), np.float32))[0, 0].tolist()
    )
    assert picture[heat_top + 20, query_x + 20].tolist() == [187, 187, 187]
    assert picture[top + 140, query_x + 57].tolist() == list(drawing.BOX_COLOUR)
    # The colour bar, right of the last photo, is hot at its upper and cold at its lower end.
    bar_x = first_x + 2 * 304 + 4
    assert picture[heat_top, bar_x].tolist() == hot and picture[heat_top + 279, bar_x].tolist() == cold
    again = cam_figure(query, Cam(np.ones((60, 60), np.float32), 0.5), pairs, "model on data", tmp_path / "again.png")
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.png", "cam.png"]


def test_figure_of_many_and_of_bad_photos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = CamPair(RankedPhoto(tmp_path / "gone.jpg", 12, 0.1, "ignored", "n" * 300), None)
    pairs = [*(pair_of(rank, "unknown", 0.3) for rank in range(1, 12)), bad]
    monkeypatch.setattr(tiles.log, "propagate", True)
    picture = pixels_of(
        cam_figure(QueryPhoto(tmp_path / "no.jpg", "q $"), None, pairs, "t " * 200, tmp_path / "many.png")
    )
    assert 2000 < picture.shape[1] <= 2400 and picture.shape[0] < 2000
    assert (picture == tiles.TILE_GREY).all(axis=2).sum() > 10_000
    assert "2 photos not shown in the figure: q $: no such photo; nnn" in caplog.text
    with pytest.raises(UltronError, match="needs at least one database photo"):
        cam_figure(QueryPhoto(plain(0), "q"), None, [], "t", tmp_path / "none.png")


def test_score_and_cosine_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search's score stands beside the rank, the cosine at one scale below the map, and the note says which is
    which."""
    words: list[str] = []
    draw_text = drawing.Sheet.text

    def text(sheet: drawing.Sheet, x: float, y: float, line: str, style: drawing.TextStyle = drawing.PLAIN) -> None:
        words.append(line)
        draw_text(sheet, x, y, line, style)

    monkeypatch.setattr(drawing.Sheet, "text", text)
    cam = Cam(np.ones((9, 9), np.float32), 0.123)
    pairs = [CamPair(RankedPhoto(plain(128), 1, 0.987, "right", "a"), cam)]
    cam_figure(QueryPhoto(plain(60), "q"), cam, pairs, "t", tmp_path / "cam.png")
    assert {"score 0.987", "cosine 0.123"} <= set(words)
    assert "Scores are the search's; the cosine below a map is of descriptors at one scale" in " ".join(words)
