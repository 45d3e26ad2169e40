"""Which changes of our recipe give the reference's descriptors: a best-first search over single changes.

From our recipe every other value of every setting is tried, alone; from the nearest recipe again, up to MOST_CAUSES
changes deep, going back to the next nearest where that leads nowhere. Two changes are so seen apart unless neither
alone brings the descriptors nearer.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from ultron_cli.evaluation.diagnose.making import Maker
from ultron_cli.evaluation.diagnose.recipes import Means, Recipe
from ultron_cli.evaluation.diagnose.settings import SETTINGS, Setting

MOST_CAUSES = 3
MOST_EXPANSIONS = 6  # recipes from which all others are tried
SAME = 2e-6  # of 1 - cosine, the mean over photos: other arithmetic of the same recipe
WORTH = 0.5  # a further cause leaves at most this share of what the others leave
N_PROBES = 2  # photos on which a variant must come nearer before it is made of all


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
    distance: float  # 1 - cosine, the mean over photos

    @property
    def worth(self) -> float:
        """What is left unexplained, dearer by each cause that is named; lower is better."""
        return max(self.distance, SAME) * WORTH ** -len(self.changes)


@dataclass
class CauseSearch:
    """The search for one reference."""

    maker: Maker
    reference: np.ndarray  # (n, D) float64 unit descriptors of the photos of `maker`
    start: Recipe
    means: Means
    on_try: Callable[[], None] = lambda: None  # called at every variant
    _distances: dict[Recipe, float] = field(default_factory=dict)

    def distances(self, recipe: Recipe, n: int | None = None) -> np.ndarray:
        """(n,) 1 - cosine of the first photos; 1 where the dimensions differ. n: None is all."""
        rows = self.maker.rows(recipe, range(len(self.reference))[:n])
        if rows.shape[1] != self.reference.shape[1]:
            return np.ones(len(rows))
        return 1 - np.einsum("nd,nd->n", rows, self.reference[:n])

    def distance(self, recipe: Recipe) -> float:
        """The mean over photos."""
        if recipe not in self._distances:
            self._distances[recipe] = float(self.distances(recipe).mean())
        return self._distances[recipe]

    def run(self) -> tuple[Recipe, list[Cause]]:
        """The recipe that comes nearest to the reference, and what it changes, the change first that explains most."""
        order = count()
        best = _Node(self.start, frozenset(), self.distance(self.start))
        frontier = [(best.distance, next(order), best)]
        for _ in range(MOST_EXPANSIONS):
            if not frontier or best.distance <= SAME:
                break
            for child in self._nearer(heapq.heappop(frontier)[2]):
                if len(child.changes) < MOST_CAUSES:
                    heapq.heappush(frontier, (child.distance, next(order), child))
                best = min(best, child, key=lambda node: node.worth)
                if child.distance <= SAME:
                    break
        best = self._without_the_needless(best)
        return best.recipe, self._causes(best)

    def _nearer(self, node: _Node) -> Iterator[_Node]:
        """What is nearer to the reference than a recipe, and differs from it in one setting."""
        at_probes = self.distances(node.recipe, N_PROBES).mean()
        for setting in SETTINGS:
            for recipe in setting.variants(node.recipe, self.means):
                self.on_try()
                if self.distances(recipe, N_PROBES).mean() > at_probes + SAME:
                    continue
                distance = self.distance(recipe)
                if distance < node.distance - SAME:
                    yield self._node(recipe)

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
                    cosine_before=1 - self.distance(recipe),
                    cosine=1 - self.distance(following[setting]),
                    equal=self._equal(best, setting),
                )
            )
            remaining.remove(setting)
            recipe = following[setting]
        return causes

    def _equal(self, best: _Node, setting: Setting) -> tuple[str, ...]:
        """Other values of a setting with which the recipe gives the same descriptors, as the photos get the same
        pixels."""
        start_value = setting.of(self.start)
        return tuple(
            setting.in_words(setting.of(recipe))
            for recipe in setting.variants(best.recipe, self.means)
            if setting.of(recipe) != start_value and self.maker.has_same_pixels(recipe, best.recipe)
        )
