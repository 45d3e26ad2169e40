"""Matchers of two photos' features: what is asked of one, and one by import path held to what it promises.

The default, mutual nearest features, is no Matcher: matching.py computes it from packed descriptors.
"""

from typing import Protocol

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.user_code import UserPart, blaming


class Matcher(Protocol):
    """Finds the features of two photos that show the same places. A class by import path has this method, and is made
    of its settings, if it has some, by name. It is called from several threads at once.

    Results of pairs are kept by its name, its settings and its file; one that reads weights has an attribute
    `weights_sha256`, by which they are kept too.
    """

    def match(self, query: LocalFeatures, photo: LocalFeatures) -> np.ndarray:
        """(m, 2) integers: a feature of the query and one of the photo, each at most once.

        Positions, scales and sizes are pixels of the photos as the features were found in them: of the side that
        detection was asked for. The query's features are those of its box.
        """
        ...


class UserMatcher:
    """A matcher by import path, which is held to what it promises."""

    def __init__(self, part: UserPart, matcher: Matcher) -> None:
        self.part = part
        self.matcher = matcher
        self.weights_sha256: str | None = getattr(matcher, "weights_sha256", None)

    def match(self, query: LocalFeatures, photo: LocalFeatures) -> np.ndarray:
        """Raises UltronError, naming the place, for what are no matches of these features."""
        with blaming(self.matcher, "match"):
            matches = self.matcher.match(query, photo)
        if not isinstance(matches, np.ndarray) or matches.ndim != 2 or matches.shape[1] != 2:
            self._refuse("must give an (m, 2) array", getattr(matches, "shape", type(matches).__name__))
        if not np.issubdtype(matches.dtype, np.integer):
            self._refuse("must give integers", matches.dtype)
        for column, n_features in enumerate((len(query), len(photo))):
            rows = matches[:, column]
            if len(rows) and not 0 <= rows.min() <= rows.max() < n_features:
                self._refuse(f"must give features from 0 to {n_features - 1}", (rows.min(), rows.max()))
            if len(np.unique(rows)) < len(rows):
                self._refuse("must give each feature at most once", f"{len(rows) - len(np.unique(rows))} repeated")
        return matches.astype(np.int64)

    def _refuse(self, rule: str, value: object) -> None:
        raise UltronError(f"{self.part.place('match')}: {self.part.name} {rule}; found {value!s:.80}")
