"""Text on a sheet and the colours of heat."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.visualization.photos import pixels_of
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing, lettering
from ultron_cli.visualization.drawing import overlay, write_overlay


def test_dollar_signs_are_drawn_not_interpreted(tmp_path: Path) -> None:
    sheet = drawing.Sheet(200, 40)
    sheet.text(10, 25, "$a$b$c$")
    sheet.save(tmp_path / "text.png")
    inked = np.flatnonzero((pixels_of(tmp_path / "text.png").min(axis=2) < 128).any(axis=0))
    assert inked[-1] - inked[0] == pytest.approx(lettering.text_width_px("$a$b$c$", drawing.BODY_PX), abs=5)
    assert lettering.text_width_px("$a$b$c$", drawing.BODY_PX) > 2 * lettering.text_width_px("abc", drawing.BODY_PX)


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
    with pytest.raises(UltronError, match=r"pictures of pixels are PNG files; found 'one\.jpg'"):
        write_overlay(tmp_path / "one.jpg", photo, heat)


def test_sheets_are_written_in_three_kinds(tmp_path: Path) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        files = []
        for name in ("a", "b"):
            sheet = drawing.Sheet(60, 40)
            sheet.fill(10, 10, 20, 20, (200, 10, 10))
            sheet.ring(40, 20)
            sheet.save(tmp_path / f"{name}{suffix}")
            files.append((tmp_path / f"{name}{suffix}").read_bytes())
        assert files[0].startswith(magic) and files[0] == files[1]


def test_signs_lie_in_their_place_in_vector_files(tmp_path: Path) -> None:
    """SVG counts 72 points where PNG has 100 pixels: a ring of radius 11 around (150, 50) spans x 100.1 to 115.9."""
    sheet = drawing.Sheet(200, 100)
    sheet.ring(150, 50)
    sheet.save(tmp_path / "a.svg")
    paths = re.findall(r'<path d="([^"]+)" style="fill: none', (tmp_path / "a.svg").read_text())
    numbers = [[float(number) for number in re.findall(r"-?[0-9.]+", path)] for path in paths]
    assert len(numbers) == 2
    for coordinates in numbers:
        assert (min(coordinates[::2]), max(coordinates[::2])) == pytest.approx((0.72 * 139, 0.72 * 161), abs=0.1)
        assert (min(coordinates[1::2]), max(coordinates[1::2])) == pytest.approx((0.72 * 39, 0.72 * 61), abs=0.1)


def test_pages_have_the_colours_of_figures() -> None:
    """The report's and the search page's frames are those of the pictures."""
    from ultron_cli.serve.routes import PAGE as SEARCH_PAGE
    from ultron_cli.visualization.report.report import PAGE as REPORT_PAGE

    for page in (REPORT_PAGE, SEARCH_PAGE):
        style = page.with_suffix(".css").read_text("utf-8")
        for verdict in ("right", "wrong", "ignored"):
            colour = "#{:02x}{:02x}{:02x}".format(*drawing.VERDICT_COLOURS[verdict])
            assert re.findall(rf"--{verdict}: ([^;]+);", style) == [colour], (page, verdict)
