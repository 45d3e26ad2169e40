"""The figure of ranked lists: frames, signs, boxes and text at known places."""

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.visualization.photos import pixels_of, plain
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, tiles
from ultron_cli.visualization.ranked.lists import RankedRow, ranks_figure
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto

WHITE = [255, 255, 255]
TILE, FRAME, QUERY_GAP, GAP = 240, drawing.FRAME_PX, 34, 14  # of a figure with up to five photos a line
QUERY_X = drawing.MARGIN_PX + FRAME
FIRST_X = QUERY_X + TILE + 2 * FRAME + QUERY_GAP


def photo(rank: int, verdict: drawing.Verdict = "right", name: str = "name") -> RankedPhoto:
    return RankedPhoto(plain(100 + rank), rank, 1 / rank, verdict, name)


def top_of(title: str, width_px: int) -> int:
    """Top of the photos of the first row."""
    return drawing.Header.of(title, "", width_px).height_px + drawing.LEGEND_HEIGHT_PX + FRAME


def test_frames_signs_and_box(tmp_path: Path) -> None:
    verdicts: list[drawing.Verdict] = ["right", "wrong", "ignored", "unknown"]
    row = RankedRow(
        QueryPhoto(plain(50), "query", (25.0, 25.0, 75.0, 100.0)),
        [photo(i + 1, verdict) for i, verdict in enumerate(verdicts)],
        "AP 71.3",
    )
    picture = pixels_of(ranks_figure([row], "model on data, hard protocol", tmp_path / "ranks.png"))
    assert picture.shape[1] == 2 * drawing.MARGIN_PX + 5 * (TILE + 2 * FRAME) + QUERY_GAP + 3 * GAP
    top = top_of("model on data, hard protocol", picture.shape[1])
    for i, verdict in enumerate(verdicts):
        x, colour = FIRST_X + i * (TILE + 2 * FRAME + GAP), list(drawing.VERDICT_COLOURS[verdict])
        for dx, dy in (
            (-1, 0),
            (-FRAME, -FRAME),
            (TILE, 100),
            (TILE + FRAME - 1, TILE + FRAME - 1),
            (120, -1),
            (120, TILE),
        ):
            assert picture[top + dy, x + dx].tolist() == colour, (verdict, dx, dy)
        for dx, dy in ((-FRAME - 1, 100), (TILE + FRAME, 100), (120, -FRAME - 1)):
            assert picture[top + dy, x + dx].tolist() == WHITE
        assert picture[top, x].tolist() == picture[top + TILE - 1, x + TILE - 1].tolist() == [101 + i] * 3
        # The sign: a disc of 9 px, its centre 9 px right and 16 px below the frame; the dash and the cross pass through
        # it in white.
        x_sign, y_sign = x + 9, top + TILE + FRAME + 16
        assert picture[y_sign + 7, x_sign].tolist() == (WHITE if verdict == "unknown" else colour)
        assert picture[y_sign - 10, x_sign].tolist() == WHITE
        if verdict in ("wrong", "ignored"):
            assert picture[y_sign - 1 : y_sign + 1, x_sign - 1 : x_sign + 1].min() > 200
    assert picture[top + 120, QUERY_X - 1].tolist() == WHITE  # no frame around the query
    assert picture[top + 120, QUERY_X + 60].tolist() == [0, 0, 0]  # box at a quarter of 240 px: dark, then yellow
    assert picture[top + 120, QUERY_X + 62].tolist() == list(drawing.BOX_COLOUR)
    assert picture[top + 120, QUERY_X + 70].tolist() == picture[top + 20, QUERY_X + 120].tolist() == [50, 50, 50]


def test_same_input_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    rows = [RankedRow(QueryPhoto(plain(50), "q"), [photo(1), photo(2, "wrong")])]
    first = ranks_figure(rows, "title", tmp_path / "a.png").read_bytes()
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["monospace"])  # as a user's matplotlibrc may
    monkeypatch.setitem(matplotlib.rcParams, "figure.dpi", 300)
    monkeypatch.setitem(matplotlib.rcParams, "text.color", "red")
    assert ranks_figure(rows, "title", tmp_path / "b.png").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]  # no temporary files


def test_rows_lines_and_narrow_photos(tmp_path: Path) -> None:
    rows = [
        RankedRow(QueryPhoto(plain(50), "a"), [photo(rank) for rank in range(1, 24)]),
        RankedRow(QueryPhoto(plain(60), "b"), []),
    ]
    picture = pixels_of(ranks_figure(rows, "t", tmp_path / "many.png"))
    assert 2200 < picture.shape[1] <= 2400
    frames = (picture == drawing.VERDICT_COLOURS["right"]).all(axis=2)
    assert (
        len(
            [
                run
                for run in np.split(frames[:, 300:].any(axis=1), np.flatnonzero(np.diff(frames[:, 300:].any(axis=1))))
                if run[-1] and len(run) > 90
            ]
        )
        == 3
    )
    narrow = [
        RankedRow(QueryPhoto(plain(50, 100, 200), "a"), [RankedPhoto(plain(9, 100, 200), 1, 0.5, "right", "n")] * 5)
    ]
    assert (
        pixels_of(ranks_figure(narrow, "t", tmp_path / "narrow.png")).shape[1]
        == 2 * drawing.MARGIN_PX + 6 * (160 + 2 * FRAME) + QUERY_GAP + 4 * GAP
    )
    rows = [RankedRow(QueryPhoto(plain(50), "a"), [photo(1, "unknown")])]
    assert pixels_of(ranks_figure(rows, "t", tmp_path / "one.png")).shape[1] == drawing.MIN_WIDTH_PX


def test_bad_photos_are_grey_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    photos = [
        RankedPhoto(tmp_path / "gone.jpg", 1, 0.9, "right", "gone"),
        RankedPhoto(tmp_path / "text.jpg", 2, 0.8, "wrong", "text"),
    ]
    monkeypatch.setattr(tiles.log, "propagate", True)
    with caplog.at_level(logging.WARNING, "ultron"):
        picture = pixels_of(
            ranks_figure(
                [RankedRow(QueryPhoto(tmp_path / "none.jpg", "q", (0, 0, 9, 9)), photos)], "t", tmp_path / "bad.png"
            )
        )
    assert (
        "3 photos not shown in the figure: q: no such photo; gone: no such photo; text: cannot be decoded (not "
        "a photo that Pillow" in caplog.text
    )
    top = top_of("t", picture.shape[1])
    assert picture[top, FIRST_X].tolist() == list(tiles.TILE_GREY)
    assert picture[top + 60 : top + 120, FIRST_X : FIRST_X + TILE].min() < 60  # the reason, in the middle of the tile
    assert picture[top, FIRST_X - 1].tolist() == list(drawing.VERDICT_COLOURS["right"])


@pytest.mark.parametrize(
    "name",
    [
        "$x^2$ \\frac{1}{2}$ $$",
        "<script>alert(1)</script>",
        "n" * 300,
        "",
        "a\nb\tc\x00",
        "\ud800 \U0001f600 大本鐘",
        "$" * 7,
    ],
)
def test_any_name_is_plain_text(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    row = RankedRow(QueryPhoto(plain(50), name), [photo(1, name=name)], name)
    picture = pixels_of(ranks_figure([row], f"model {name}", tmp_path / "name.png"))
    top = top_of(f"model {name}", picture.shape[1])
    label = picture[top + TILE + FRAME + 28 : top + TILE + FRAME + drawing.LABEL_HEIGHT_PX]
    assert (label[:, FIRST_X + TILE + FRAME :] == 255).all()  # nothing runs out of its cell
    assert (label[:, FIRST_X : FIRST_X + TILE].min() < 160) == bool(name)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_errors(tmp_path: Path) -> None:
    row = RankedRow(QueryPhoto(plain(50), "q"), [photo(1)])
    with pytest.raises(UltronError, match="needs at least one query"):
        ranks_figure([], "t", tmp_path / "a.png")
    with pytest.raises(
        UltronError, match=r"at most 4000 x 20000 is drawn; draw fewer queries, or fewer photos of each with -k"
    ):
        ranks_figure([row] * 1000, "t", tmp_path / "a.png")
    with pytest.raises(UltronError, match=r"figures are PNG files; found 'a\.pdf'"):
        ranks_figure([row], "t", tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())
