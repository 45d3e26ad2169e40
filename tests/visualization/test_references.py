"""Every kind of picture looks as its reference does, by structural similarity; a change that is meant: see
pictures.py."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.visualization import pictures
from tests.visualization.pictures import PICTURES, REFERENCES, small
from tests.visualization.ssim import similarity
from ultron_cli.visualization.ranked.lists import ranks_figure
from ultron_cli.visualization.ranked.systems import systems_figure

pytestmark = pytest.mark.slow

# Matplotlib brings its own fonts and font renderer, so that even small differences come from a change here or of
# matplotlib's version, of which this one drew the references.
DRAWN_BY = "3.11"
AT_LEAST, AT_LEAST_IN_A_BLOCK = 0.95, 0.75


def reference(name: str) -> Image.Image:
    """In the 256 colours that it is kept in."""
    with Image.open(REFERENCES / f"{name}.png") as image:
        return image.copy()


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


@pytest.mark.skipif(not matplotlib.__version__.startswith(f"{DRAWN_BY}."), reason=f"drawn by matplotlib {DRAWN_BY}")
@pytest.mark.parametrize("name", PICTURES)
def test_looks_like_its_reference(name: str, tmp_path: Path) -> None:
    drawn = PICTURES[name](tmp_path / f"{name}.png")
    stored = reference(name)
    picture = small(drawn, stored)
    advice = (
        f"the new picture is {drawn}; if the change is meant: python -m tests.visualization.renew_references {name}"
    )
    assert picture.size == stored.size, f"{name} is {picture.size} small, its reference {stored.size}; {advice}"
    mean, worst = similarity(rgb(picture), rgb(stored))
    assert mean >= AT_LEAST, f"{name} is like its reference to {mean:.3f}, at least {AT_LEAST} is wanted; {advice}"
    assert worst >= AT_LEAST_IN_A_BLOCK, (
        f"a part of {name} is like its reference to {worst:.3f}, at least {AT_LEAST_IN_A_BLOCK} is wanted; {advice}"
    )


def test_references_are_small_and_all_are_used() -> None:
    sizes = {path.stem: path.stat().st_size for path in REFERENCES.iterdir()}
    assert sizes.keys() == PICTURES.keys()
    assert max(sizes.values()) < 40_000 and sum(sizes.values()) < 400_000


def test_a_change_is_seen(tmp_path: Path) -> None:
    """Another verdict, an arrow that is not drawn, a curve that is lower, a figure that lies 3 px lower: none passes
    for the reference."""
    ranked = pictures.ranked_row()
    wrong = [replace(ranked.photos[0], verdict="wrong"), *ranked.photos[1:]]
    changed = {
        "ranks": ranks_figure(
            [replace(ranked, photos=wrong), pictures.short_row()], pictures.TITLE, tmp_path / "ranks.png"
        ),
        "ranks-before-after": systems_figure(
            [pictures.before_after(moved=False)], pictures.TITLE, tmp_path / "moves.png"
        ),
        "precision-recall": pictures.precision_recall(tmp_path / "pr.png", hard=0.22),
    }
    for name, path in changed.items():
        mean, worst = similarity(rgb(small(path, reference(name))), rgb(reference(name)))
        assert mean < AT_LEAST or worst < AT_LEAST_IN_A_BLOCK, (name, mean, worst)
    assert similarity(np.roll(rgb(reference("curves")), 3, axis=0), rgb(reference("curves")))[0] < 0.8
