"""Which queries and photos of a ground truth show one landmark. Ground truths do not say; their positives do."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ultron_cli.datasets.protocols import GroundTruth


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """A landmark of a ground truth. A photo of two belongs to the first."""

    name: str  # what its queries' names begin with, or the first of them
    queries: tuple[int, ...]  # rows of queries
    photos: tuple[int, ...] = field(repr=False)  # rows of the database, positives of its queries


def landmarks_of(truth: GroundTruth) -> list[Landmark]:
    """The landmarks, in the order of their first queries; queries without positives belong to none.

    A query shows the landmark to which more than half of its positives belong already, or a new one. A photo that
    shows two landmarks thus does not make them one.
    """
    landmark_of_photo: dict[int, int] = {}
    queries_of: list[list[int]] = []
    for row, query in enumerate(truth.queries):
        photos = query.rows(("easy", "hard")).tolist()
        if not photos:
            continue
        known = [landmark_of_photo[photo] for photo in photos if photo in landmark_of_photo]
        counts = np.bincount(known, minlength=1)
        landmark = int(counts.argmax())
        if 2 * counts[landmark] <= len(photos):
            landmark = len(queries_of)
            queries_of.append([])
        queries_of[landmark].append(row)
        for photo in photos:
            landmark_of_photo.setdefault(photo, landmark)
    photos_of: list[list[int]] = [[] for _ in queries_of]
    for photo, landmark in landmark_of_photo.items():
        photos_of[landmark].append(photo)
    names = _names([[truth.query_names[row] for row in rows] for rows in queries_of])
    return [
        Landmark(name=name, queries=tuple(rows), photos=tuple(photos))
        for name, rows, photos in zip(names, queries_of, photos_of, strict=True)
    ]


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """`all_souls` of `all_souls_000013` and `all_souls_000026`; the first name of a group of one, and where names have
    no beginning in common or share it with another group."""
    prefixes = [re.sub(r"[\W\d_]+$", "", _common_beginning(names)) for names in groups]
    return [
        prefix if prefix and len(names) > 1 and prefixes.count(prefix) == 1 else names[0]
        for prefix, names in zip(prefixes, groups, strict=True)
    ]


def _common_beginning(names: Sequence[str]) -> str:
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)
