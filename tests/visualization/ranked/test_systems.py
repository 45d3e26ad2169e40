"""Several searches in rows: how far photos moved, and arrows at known places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.visualization.photos import plain
from tests.visualization.pictures import before_after
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing
from ultron_cli.visualization.ranked.systems import (
    DOWN,
    SAME,
    UP,
    QueryBlock,
    SystemRow,
    leaving_text,
    move_text,
    systems_figure,
)
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto


def colour(text: str) -> list[int]:
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def test_how_far_a_photo_moved() -> None:
    """Five are shown above."""
    assert move_text(1, 5, 5) == ("\u25b2 up 4", UP) and move_text(4, 2, 5) == ("\u25bc down 2", DOWN)
    assert move_text(3, 3, 5) == ("= same place", SAME) and move_text(2, 37, 5) == ("\u25b2 from 37", UP)
    assert move_text(9, 7, 5) == ("\u25bc from 7", DOWN) and move_text(1, None, 5) == ("\u25b2 newly found", UP)
    assert leaving_text(24) == "\u25bc to 24" and leaving_text(None) == "\u25bc not found"


def test_arrows_lie_between_the_rows(tmp_path: Path) -> None:
    """Blue ink of arrows right above the photos that came up, none above one that stayed or where moves are not
    drawn."""
    block = before_after()
    moved = np.asarray(Image.open(systems_figure([block], "t", tmp_path / "moves.png")))
    still = [SystemRow(row.name, row.photos, row.subtitle) for row in block.systems]
    apart = np.asarray(Image.open(systems_figure([QueryBlock(block.query, still)], "t", tmp_path / "still.png")))
    assert moved.shape[0] > apart.shape[0]
    blue = (np.abs(moved.astype(int) - colour(UP)).sum(axis=2) < 20).sum(axis=0)
    brown = (np.abs(moved.astype(int) - colour(DOWN)).sum(axis=2) < 20).sum(axis=0)
    assert not (np.abs(apart.astype(int) - colour(UP)).sum(axis=2) < 20).any()
    first = drawing.MARGIN_PX + 3 * drawing.FRAME_PX + 240 + 34 + 170
    places = [first + i * (240 + 10 + 14) for i in range(5)]  # of photos 240 px wide
    inked = [(blue[x + 100 : x + 140].sum() > 20, brown[x + 100 : x + 140].sum() > 20) for x in places]
    # The arrow to the first crosses over the second and begins below the third of the row above.
    assert [pair[0] for pair in inked] == [True, True, True, False, True]
    assert inked[1][1] and not inked[3][1]


def test_no_arrow_leads_to_a_photo_from_further_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of the five photos after were shown before: three arrows, each from the place to the place; the other two
    say their rank above the photo, and nowhere else."""
    arrows, words = [], []
    draw_text = drawing.Sheet.text
    monkeypatch.setattr(drawing.Sheet, "arrow", lambda sheet, points, colour, **_: arrows.append((points, colour)))
    monkeypatch.setattr(
        drawing.Sheet,
        "text",
        lambda sheet, x, y, text, style=drawing.PLAIN: (words.append(text), draw_text(sheet, x, y, text, style)),
    )
    systems_figure([before_after()], "t", tmp_path / "moves.png")
    first = drawing.MARGIN_PX + 3 * drawing.FRAME_PX + 240 + 34 + 170 + 120
    step = 240 + 10 + 14
    ends = [((points[0][0] - first) / step, (points[-1][0] - first) / step, colour) for points, colour in arrows]
    assert ends == [(2.0, 0.0, UP), (0.0, 1.0, DOWN), (3.0, 3.0, SAME)]
    assert [words.count(text) for text in ("\u25b2 from 37", "\u25b2 newly found", "\u25b2 up 2")] == [1, 1, 1]


def test_too_much_is_refused(tmp_path: Path) -> None:
    photos = [RankedPhoto(plain(128), 1, 0.9, "right", "a")]
    with pytest.raises(UltronError, match="at most 10 photos a row, found 11; lower `k`"):
        systems_figure(
            [QueryBlock(QueryPhoto(plain(60), "q"), [SystemRow("s", photos * 11)])], "t", tmp_path / "no.png"
        )
