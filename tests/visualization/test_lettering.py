"""Text that fits, and what stands for characters without a font."""

import re

import pytest

from ultron_cli.visualization import drawing, lettering


def test_long_text_is_shortened_in_the_middle() -> None:
    short = lettering.shorten_middle("begin" + "x" * 300 + "the_end", 120, drawing.SMALL_PX)
    assert re.fullmatch(r"begin\w*…\w*the_end", short)
    assert 100 < lettering.text_width_px(short, drawing.SMALL_PX) <= 120
    assert lettering.shorten_middle("short", 120, drawing.SMALL_PX) == "short"
    assert lettering.wrap("one two " * 50, 100, drawing.BODY_PX, n_lines=2)[0] == "one two one"
    assert len(lettering.wrap("one two " * 50, 100, drawing.BODY_PX, n_lines=2)) == 2


def test_characters_without_a_font_are_spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kana and hangul by sound, others by number, bytes that are not UTF-8 as such; what a font has stays."""
    monkeypatch.setattr(lettering, "font_families", lambda: ["DejaVu Sans"])
    for cached in (lettering.font_of, lettering._can_draw, lettering._drawable):
        cached.cache_clear()
    assert lettering.plain_text("さくら 서울 大本 \udce9 \U0001f600") == "sakura seoul \\u5927\\u672c \\xe9 \U0001f600"
    assert lettering.plain_text("Ελλάδα Москва Zürich a\nb") == "Ελλάδα Москва Zürich a b"
    for cached in (lettering.font_of, lettering._can_draw, lettering._drawable):
        cached.cache_clear()


def test_long_words_are_broken_behind_signs() -> None:
    """A model's name in a narrow column is whole, in two lines."""
    lines = lettering.wrap("gem-tf_efficientnet_lite0, after", 160, drawing.BODY_PX, n_lines=5, bold=True)
    assert len(lines) > 1 and "".join(lines).replace(" ", "") == "gem-tf_efficientnet_lite0,after"
    assert all(lettering.text_width_px(line, drawing.BODY_PX, bold=True) <= 160 for line in lines)
    assert lettering.wrap("n" * 300, 100, drawing.BODY_PX, n_lines=2)[0].startswith("n")
