"""Text in figures: the fonts, what stands for characters that they lack, and text that fits into its room."""

import re
import unicodedata
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg

DPI = 100  # text sizes are given in pixels, so it only tells a viewer the size in print
# Used, where installed, for characters that DejaVu Sans (which comes with matplotlib) lacks.
FALLBACK_FAMILIES = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "IPAGothic",
    "NanumGothic",
    "Arial Unicode MS",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
)


# How Unicode's names of those letters begin whose sound is the rest of the name.
SYLLABLES = ("HIRAGANA LETTER ", "KATAKANA LETTER ", "HANGUL SYLLABLE ")


@lru_cache(maxsize=1)
def font_families() -> list[str]:
    """DejaVu Sans with the fallbacks that are installed, whatever the user's matplotlibrc says."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(family for family in FALLBACK_FAMILIES if family in installed)]


@lru_cache(maxsize=4)
def font_of(bold: bool) -> font_manager.FontProperties:
    """The font of all text in figures."""
    return font_manager.FontProperties(family=font_families(), weight="bold" if bold else "normal")


@lru_cache(maxsize=4096)
def _can_draw(character: str, bold: bool) -> bool:
    font = font_of(bold)
    for family in font.get_family():
        path = font_manager.findfont(font_manager.FontProperties(family=family, weight=font.get_weight()))
        if font_manager.get_font(path).get_char_index(ord(character)):
            return True
    return False


@lru_cache(maxsize=4096)
def _drawable(character: str, bold: bool) -> str:
    """The character, or what is drawn in its place."""
    if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
        return " "
    if unicodedata.category(character)[0] != "C" and _can_draw(character, bold):
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name that is not UTF-8, as Python carries it
        return f"\\x{ord(character) - 0xDC00:02x}"
    name = unicodedata.name(character, "")
    for prefix in SYLLABLES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).removeprefix("SMALL ").lower()
    return character.encode("ascii", "backslashreplace").decode()


def plain_text(text: str, bold: bool = False) -> str:
    """The text on one line; control characters become spaces. Characters that no font here has are spelt: kana and
    hangul by their sound, others as Python writes them, `\\u5927`."""
    return "".join(_drawable(character, bold) for character in unicodedata.normalize("NFC", text))


def text_width_px(text: str, size_px: int, *, bold: bool = False) -> float:
    """Width of one line of text as it will be drawn."""
    font = font_of(bold).copy()
    font.set_size(size_px * 72 / DPI)
    return RendererAgg(8, 8, DPI).get_text_width_height_descent(plain_text(text, bold), font, ismath=False)[0]


def shorten_middle(text: str, width_px: float, size_px: int, *, bold: bool = False) -> str:
    """The text, or as much of its two ends as fits into width_px with an ellipsis between."""
    if text_width_px(text, size_px, bold=bold) <= width_px:
        return text

    def ends(n_characters: int) -> str:
        return text[: (n_characters + 1) // 2] + "\u2026" + text[len(text) - n_characters // 2 :]

    n_fitting = 0
    n_too_many = min(len(text), int(width_px))  # no character is drawn narrower than a pixel
    while n_too_many - n_fitting > 1:
        n = (n_fitting + n_too_many) // 2
        if text_width_px(ends(n), size_px, bold=bold) <= width_px:
            n_fitting = n
        else:
            n_too_many = n
    return ends(n_fitting)


def wrap(text: str, width_px: float, size_px: int, *, n_lines: int, bold: bool = False) -> list[str]:
    """The text in at most n_lines lines of at most width_px, broken at spaces, and a word too long for a line behind a
    sign such as a hyphen; what is still too long is shortened, as is a last line."""

    def parts_of(word: str) -> list[str]:
        is_long = text_width_px(word, size_px, bold=bold) > width_px
        return re.split(r"(?<=[-_/.,+=:])(?=.)", word) if is_long else [word]

    lines: list[str] = []
    # Each part with what stands before it where both are in one line.
    parts = [
        (" " if i == 0 else "", part)
        for word in plain_text(text, bold).split()
        for i, part in enumerate(parts_of(word))
    ]
    while parts:
        line = parts.pop(0)[1]
        last = len(lines) == n_lines - 1
        while parts and (last or text_width_px(line + "".join(parts[0]), size_px, bold=bold) <= width_px):
            line += "".join(parts.pop(0))
        lines.append(shorten_middle(line, width_px, size_px, bold=bold))
    return lines
