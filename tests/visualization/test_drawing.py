"""Text on a sheet and the colours of heat."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.visualization.photos import pixels_of
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing
from ultron_cli.visualization.drawing import overlay, write_overlay


def test_dollar_signs_are_drawn_not_interpreted(tmp_path: Path) -> None:
    sheet = drawing.Sheet(200, 40)
    sheet.text(10, 25, "$a$b$c$")
    sheet.save(tmp_path / "text.png")
    inked = np.flatnonzero((pixels_of(tmp_path / "text.png").min(axis=2) < 128).any(axis=0))
    assert inked[-1] - inked[0] == pytest.approx(drawing.text_width_px("$a$b$c$", drawing.BODY_PX), abs=4)
    assert drawing.text_width_px("$a$b$c$", drawing.BODY_PX) > 2 * drawing.text_width_px("abc", drawing.BODY_PX)


def test_long_text_is_shortened_in_the_middle() -> None:
    short = drawing.shorten_middle("begin" + "x" * 300 + "the_end", 120, drawing.SMALL_PX)
    assert re.fullmatch(r"begin\w*…\w*the_end", short)
    assert 100 < drawing.text_width_px(short, drawing.SMALL_PX) <= 120
    assert drawing.shorten_middle("short", 120, drawing.SMALL_PX) == "short"
    assert drawing.wrap("one two " * 50, 100, drawing.BODY_PX, n_lines=2)[0] == "one two one"
    assert len(drawing.wrap("one two " * 50, 100, drawing.BODY_PX, n_lines=2)) == 2


def test_title_names_model_dataset_and_protocol() -> None:
    assert drawing.title_of("gem-resnet50", "roxford5k", "hard") == "gem-resnet50 on roxford5k, hard protocol"
    assert drawing.title_of("gem-resnet50", "roxford5k") == "gem-resnet50 on roxford5k"


def test_overlay_colours(tmp_path: Path) -> None:
    photo = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 1.0
    drawn = overlay(photo, heat)
    # inferno runs from (0, 0, 4) to (252, 255, 164); 0.35 of the one, 0.75 of the other, the rest the photo's grey.
    assert drawn[0, 0].tolist() == [65, 65, 66] and drawn[1, 2].tolist() == [214, 216, 148]
    write_overlay(tmp_path / "new" / "one.png", photo, heat)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "one.png")), drawn)
    with pytest.raises(ValueError, match="of one size"):
        overlay(photo, heat[:, :5])
    with pytest.raises(UltronError, match=r"figures are PNG files; found 'one\.jpg'"):
        write_overlay(tmp_path / "one.jpg", photo, heat)
