"""Names that others gave photos, as names of photos that are known here: spelled with or without suffix and folders, in
small letters or capitals.

A spelling counts only where it means one photo on both sides. The stricter one goes first, so that a photo that is
named exactly is never taken for another.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ultron_cli.console import named
from ultron_cli.datasets.photo_types import photo_suffixes

# What archives make of characters that a file system lacks, and ILIAS of all but ASCII: #U00e9.
_ESCAPED = re.compile(r"#U([0-9a-fA-F]{4})")


def _path(name: str) -> str:
    name = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name) if "#U" in name else name
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(_path(name))
    return stem if suffix.lower() in photo_suffixes() else _path(name)


def _last(name: str) -> str:
    return _stem(name).rpartition("/")[2]


# How a spelling differs from the name itself -> what is then compared, the strictest first.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as they are": str,
    "with other separators or accents": _path,
    "with another suffix or none": _stem,
    "in other folders": _last,
    "in other case": lambda name: _last(name).casefold(),
}


@dataclass(frozen=True, kw_only=True)
class NameMatch:
    """The photos that a list of names means."""

    rows: np.ndarray  # (n,) int64, of the known names; -1 for a name that means none of them
    n_by_spelling: dict[str, int]  # of SPELLINGS, those that matched something
    surplus: list[str]  # names that mean no known photo
    ambiguous: list[str]  # of these, the names that may mean several, or share one photo
    missing: list[str]  # known names that none of the names means

    def how_text(self) -> str:
        """`4,993 as they are, 70 with another suffix or none`."""
        return ", ".join(f"{n:,} {how}" for how, n in self.n_by_spelling.items()) or "none"

    def ambiguous_text(self) -> str:
        """Which names are ambiguous, as a clause behind the surplus ones; empty where there are none."""
        if not self.ambiguous:
            return ""
        return f" ({len(self.ambiguous):,} of them may mean several, or share one: {named(self.ambiguous)})"


def match_names(names: Sequence[str], known: Sequence[str]) -> NameMatch:
    """Finds each of `names`, which differ, among the known ones, which differ too."""
    rows = np.full(len(names), -1, np.int64)
    is_taken = np.zeros(len(known), bool)
    n_by_spelling: dict[str, int] = {}
    ambiguous: dict[int, None] = {}
    left = list(range(len(names)))
    for how, spelling in SPELLINGS.items():
        if not left or is_taken.all():
            break
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(known):
            rows_of.setdefault(spelling(name), []).append(row)
        names_of: dict[str, list[int]] = {}
        for i in left:
            names_of.setdefault(spelling(names[i]), []).append(i)
        n_matched = 0
        for text, alike in names_of.items():
            candidates = rows_of.get(text, [])
            if len(candidates) == len(alike) == 1 and not is_taken[candidates[0]]:
                rows[alike[0]] = candidates[0]
                is_taken[candidates[0]] = True
                n_matched += 1
            elif candidates and not is_taken[candidates].all():
                ambiguous |= dict.fromkeys(alike)
        if n_matched:
            n_by_spelling[how] = n_matched
        left = [i for i in left if rows[i] < 0]
    return NameMatch(
        rows=rows,
        n_by_spelling=n_by_spelling,
        surplus=[names[i] for i in left],
        ambiguous=[names[i] for i in ambiguous if rows[i] < 0],
        missing=[known[row] for row in np.flatnonzero(~is_taken).tolist()],
    )
