"""Which changes of our recipe give the reference's descriptors: a best-first search over single changes.

From our recipe every other value of every setting is tried, alone; from the nearest recipe again, up to MOST_CAUSES
changes deep, going back to the next nearest where that leads nowhere. Near is measured by the geometric mean over
photos, so that a change that makes some of them equal (those that no tag turns, those whose sides round alike) stands
out.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

import numpy as np

from ultron_cli.evaluation.diagnose.making import Maker
from ultron_cli.evaluation.diagnose.recipes import Means, Recipe
from ultron_cli.evaluation.diagnose.settings import SETTINGS, Setting

MOST_CAUSES = 4
MOST_EXPANSIONS = 6  # recipes from which all others are tried
SAME = 2e-6  # of 1 - cosine: other arithmetic of the same recipe
WORTH = 0.5  # a further cause leaves at most this share of what the others leave
N_PROBES = 2  # photos on which a variant must come nearer before it is made of all; one where that costs much
MOST_OF_ALL = 6  # variants of a recipe that are made of all photos


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A setting in which ours and the reference differ, as far as descriptors tell."""

    setting: str  # in words: channel order
    ours: str
    reference: str
    mend: str  # how ours is made as the reference
    cosine_before: float  # mean over photos
    cosine: float  # with this change
    equal: tuple[str, ...] = ()  # other values that give the same descriptors of these photos

    @property
    def explains(self) -> float:
        """Share of what differed before it, 0 to 1."""
        before = 1 - self.cosine_before
        return max(0.0, 1 - (1 - self.cosine) / before) if before > 0 else 0.0


@dataclass(frozen=True)
class _Node:
    recipe: Recipe
    changes: frozenset[Setting]
    distance: float

    @property
    def worth(self) -> float:
        """What is left unexplained, dearer by each cause that is named; lower is better."""
        return self.distance * WORTH ** -len(self.changes)


@dataclass
class CauseSearch:
    """The search for one reference."""

    maker: Maker
    reference: np.ndarray  # (n, D) float64 unit descriptors of the photos of `maker`
    start: Recipe
    means: Means
    on_try: Callable[[], None] = lambda: None  # called at every variant
    _distances: dict[Recipe, np.ndarray] = field(default_factory=dict)  # (n,) of every photo

    def distances(self, recipe: Recipe, n: int | None = None) -> np.ndarray:
        """(n,) 1 - cosine of the first photos; 1 where the dimensions differ. n: None is all."""
        if recipe in self._distances:
            return self._distances[recipe][:n]
        rows = self.maker.rows(recipe, range(len(self.reference))[:n])
        if rows.shape[1] != self.reference.shape[1]:
            return np.ones(len(rows))
        distances = (1 - np.einsum("nd,nd->n", rows, self.reference[:n])).clip(min=0)
        if n is None:
            self._distances[recipe] = distances
        return distances

    def distance(self, recipe: Recipe, n: int | None = None) -> float:
        """How far a recipe's descriptors are from the reference: SAME, where they are equal, to 2."""
        return float(np.exp(np.log(self.distances(recipe, n) + SAME).mean()))

    def cosine(self, recipe: Recipe) -> float:
        """The mean over photos."""
        return 1 - float(self.distances(recipe).mean())

    def run(self) -> tuple[Recipe, list[Cause]]:
        """The recipe that comes nearest to the reference, and what it changes, the change first that explains most."""
        order = count()
        best = _Node(self.start, frozenset(), self.distance(self.start))
        frontier = [(best.distance, next(order), best)]
        for _ in range(MOST_EXPANSIONS):
            if not frontier or best.distance <= 2 * SAME:
                break
            for child in self._nearer(heapq.heappop(frontier)[2]):
                if len(child.changes) < MOST_CAUSES:
                    heapq.heappush(frontier, (child.distance, next(order), child))
                best = min(best, child, key=lambda node: node.worth)
                if child.distance <= 2 * SAME:
                    break
        best = self._without_the_needless(best)
        return best.recipe, self._causes(best)

    def _nearer(self, node: _Node) -> Iterator[_Node]:
        """What is nearer to the reference than a recipe, and differs from it in one setting.

        Few photos sort the variants: one that equals the reference on them comes at once, the others wait, and of those
        only the nearest are made of all photos, beside those that these few cannot tell apart.
        """
        waiting: list[tuple[float, Recipe]] = []
        for setting in SETTINGS:
            n_probes = 1 if setting.is_costly else N_PROBES
            at_probes = self.distance(node.recipe, n_probes)
            for recipe in self._variants(setting, node.recipe):
                self.on_try()
                share = self.distance(recipe, n_probes) / at_probes
                if share * at_probes <= 2 * SAME < at_probes and self._is_nearer(recipe, node):
                    yield self._node(recipe)
                elif share <= 1 + 1e-6:
                    waiting.append((share, recipe))
        waiting.sort(key=lambda entry: entry[0])
        for place, (share, recipe) in enumerate(waiting):
            if (place < MOST_OF_ALL or share > 1 - 1e-6) and self._is_nearer(recipe, node):
                yield self._node(recipe)

    def _variants(self, setting: Setting, recipe: Recipe) -> list[Recipe]:
        """The recipe with other values of a setting; with another longest side also with the other way of treating
        small photos, as neither alone may bring them to another size."""
        variants = setting.variants(recipe, self.means)
        if setting.key != "max_side_px":
            return variants
        other: Literal["down", "always"] = "down" if recipe.resize == "always" else "always"
        return variants + [replace(variant, resize=other) for variant in variants if variant.max_side_px is not None]

    def _is_nearer(self, recipe: Recipe, node: _Node) -> bool:
        return self.distance(recipe) < node.distance - SAME / 2

    def _node(self, recipe: Recipe) -> _Node:
        changes = frozenset(setting for setting in SETTINGS if setting.of(recipe) != setting.of(self.start))
        return _Node(recipe, changes, self.distance(recipe))

    def _without_the_needless(self, node: _Node) -> _Node:
        """The recipe without changes that others made needless, as a way round may leave behind."""
        for setting in node.changes:
            without = self._node(setting.put(node.recipe, setting.of(self.start)))
            if without.worth <= node.worth:
                return self._without_the_needless(without)
        return node

    def _causes(self, best: _Node) -> list[Cause]:
        """The changes of a recipe, in the order in which each explains most of what is left."""
        recipe, remaining, causes = self.start, set(best.changes), []
        while remaining:
            following = {setting: setting.put(recipe, setting.of(best.recipe)) for setting in remaining}
            setting = min(remaining, key=lambda setting: (self.distance(following[setting]), setting.words))
            value = setting.of(best.recipe)
            causes.append(
                Cause(
                    setting=setting.words,
                    ours=setting.in_words(setting.of(self.start)),
                    reference=setting.in_words(value),
                    mend=setting.mended(value),
                    cosine_before=self.cosine(recipe),
                    cosine=self.cosine(following[setting]),
                    equal=self._equal(best, setting),
                )
            )
            remaining.remove(setting)
            recipe = following[setting]
        return causes

    def _equal(self, best: _Node, setting: Setting) -> tuple[str, ...]:
        """Other values of a setting with which the recipe gives the same descriptors of these photos."""
        others = [recipe for recipe in setting.variants(best.recipe, self.means) if recipe != best.recipe]
        return tuple(
            setting.in_words(setting.of(recipe))
            for recipe in others
            if setting.of(recipe) != setting.of(self.start) and self._is_equal(recipe, best, setting.is_costly)
        )

    def _is_equal(self, recipe: Recipe, best: _Node, is_costly: bool) -> bool:
        if is_costly or best.distance > 2 * SAME:
            return self.maker.has_same_pixels(recipe, best.recipe)
        return self.distance(recipe, 1) <= 2 * SAME and self.distance(recipe) <= 2 * SAME
