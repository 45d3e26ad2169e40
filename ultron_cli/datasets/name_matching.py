"""Names that others gave photos, as names of photos that are known here: spelled with or without suffix and folders, in
small letters or capitals.

A spelling counts only where it means one photo on both sides. The stricter one goes first, so that a photo that is
named exactly is never taken for another.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ultron_cli.console import named
from ultron_cli.datasets.photo_types import photo_suffixes

# What archives make of characters that a file system lacks, and ILIAS of all but ASCII: #U00e9.
_ESCAPED = re.compile(r"#U([0-9a-fA-F]{4})")


def _path(name: str) -> str:
    name = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name) if "#U" in name else name
    path = name.replace("\\", "/").removeprefix("./")
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _stem(path: str) -> str:
    dot = path.rfind(".")
    if dot < 0 or path[dot:].lower() not in photo_suffixes():
        return path
    stem = path[:dot]
    return stem if stem.rpartition("/")[2].strip(".") else path  # a name that begins with the dot is all name


def _last(stem: str) -> str:
    return stem.rpartition("/")[2]


# How a spelling differs from the name itself -> what is then compared, of what the spelling before compares; the
# strictest first.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as they are": str,
    "with other separators or accents": _path,
    "with another suffix or none": _stem,
    "in other folders": _last,
    "in other case": str.casefold,
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
    may_mean_several = np.zeros(len(names), bool)
    left = np.arange(len(names))
    texts, known_texts = list(names), list(known)
    for how, spelling in SPELLINGS.items():
        if not len(left) or is_taken.all():
            break
        texts, known_texts = list(map(spelling, texts)), list(map(spelling, known_texts))
        # Names that read alike stand for one of them, the last.
        row_of = dict(zip(known_texts, range(len(known)), strict=True))
        meant = _numbers(row_of, texts)
        n_known, n_free = _counts(row_of, known_texts, is_taken)
        is_meant = meant >= 0
        n_alike = np.bincount(meant[is_meant], minlength=len(known))
        is_matched = is_meant & (n_alike[meant] == 1) & (n_known[meant] == 1) & (n_free[meant] == 1)
        may_mean_several[left[is_meant & ~is_matched & (n_free[meant] > 0)]] = True
        rows[left[is_matched]] = meant[is_matched]
        is_taken[meant[is_matched]] = True
        if is_matched.any():
            n_by_spelling[how] = int(is_matched.sum())
            texts = [texts[i] for i in np.flatnonzero(~is_matched).tolist()]
            left = left[~is_matched]
    return NameMatch(
        rows=rows,
        n_by_spelling=n_by_spelling,
        surplus=[names[i] for i in left.tolist()],
        ambiguous=[names[i] for i in np.flatnonzero(may_mean_several & (rows < 0)).tolist()],
        missing=[known[row] for row in np.flatnonzero(~is_taken).tolist()],
    )


def _numbers(number_of: dict[str, int], texts: Sequence[str]) -> np.ndarray:
    """(n,) int64, the number of each text, -1 for one that has none."""
    return np.fromiter(map(number_of.get, texts, repeat(-1)), np.int64, len(texts))


def _counts(row_of: dict[str, int], known_texts: Sequence[str], is_taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At the row of each text, how many known names read so, and how many of them are not taken."""
    if len(row_of) == len(known_texts):
        return np.ones(len(is_taken), np.int64), (~is_taken).astype(np.int64)
    representatives = _numbers(row_of, known_texts)
    n = len(is_taken)
    return np.bincount(representatives, minlength=n), np.bincount(representatives[~is_taken], minlength=n)
