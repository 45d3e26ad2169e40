"""Batches made of tuples: an anchor, a positive of its landmark, negatives of other landmarks, hard ones where it is
known which are hard.

CFCD's second stage (Zhu et al., ICCV 2023), after the authors' sampler: each photo is drawn once before any is drawn
again. A photo that was taken for another landmark is hard: an anchor that was recognised gets, for half of its
negatives, photos taken for its landmark; one that was not gets a third of those and a third from the landmark it was
taken for, and as its positive a photo that was recognised. Where there are none, and for the rest, the negatives are of
different landmarks drawn at random.
"""

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.draws import EpochBatches

# Shares of the negatives.
RIGHT_ANCHOR_HARD = 0.5
WRONG_ANCHOR_HARD = 1 / 3


class Bag:
    """Numbers without order: drawing and removing one take the same time whatever their number."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = list(numbers)
        self.place = {number: i for i, number in enumerate(numbers)}

    def remove(self, number: int) -> None:
        """Takes a number out; nothing if it is not in."""
        place = self.place.pop(number, None)
        if place is not None:
            last = self.numbers.pop()
            if last != number:
                self.numbers[place] = last
                self.place[last] = place

    def draw(self, draws: np.random.Generator) -> int:
        """One of them."""
        return self.numbers[int(draws.integers(len(self.numbers)))]

    def sample(self, n: int, without: int, draws: np.random.Generator) -> list[int]:
        """Up to n different ones, none of them `without`."""
        n_drawn = min(n + 1, len(self.numbers))
        drawn = [self.numbers[i] for i in draws.choice(len(self.numbers), n_drawn, replace=False)]
        return [number for number in drawn if number != without][:n]


class Round:
    """One round through all photos: what is left of each landmark, and of the photos taken for it, in random order."""

    def __init__(self, labels: np.ndarray, nearest_landmarks: np.ndarray | None, draws: np.random.Generator) -> None:
        self.labels = labels
        self.nearest_landmarks = nearest_landmarks
        self.draws = draws
        order = draws.permutation(len(labels))
        self.rows_of = _rows_by_number(order, labels[order])  # by landmark: its photos
        self.mistaken_for: dict[int, list[int]] = {}  # by landmark: the photos of others that were taken for it
        if nearest_landmarks is not None:
            nearest = nearest_landmarks[order]
            mistaken = order[(nearest != labels[order]) & (nearest >= 0)]
            self.mistaken_for = _rows_by_number(mistaken, nearest_landmarks[mistaken])
        self.is_left = np.ones(len(labels), bool)
        self.n_left = np.bincount(labels)
        self.landmarks = Bag(np.flatnonzero(self.n_left).tolist())
        self.pairs = Bag(np.flatnonzero(self.n_left >= 2).tolist())  # landmarks of which two photos are left

    def _take(self, row: int) -> int:
        """Marks a photo as drawn, and returns it."""
        label = int(self.labels[row])
        self.is_left[row] = False
        self.n_left[label] -= 1
        if self.n_left[label] < 2:
            self.pairs.remove(label)
        if not self.n_left[label]:
            self.landmarks.remove(label)
        return row

    def _next(self, rows: list[int]) -> int | None:
        """The next of `rows` that is left, taken; None if there is none."""
        while rows:
            if self.is_left[row := rows.pop()]:
                return self._take(row)
        return None

    def is_right(self, row: int) -> bool:
        """Whether a photo was recognised, as far as is known."""
        return self.nearest_landmarks is None or self.nearest_landmarks[row] in (-1, self.labels[row])

    def next_tuple(self, n_negatives: int) -> list[int] | None:
        """Rows of anchor, positive and negatives; None when this round has no more."""
        if not self.pairs.numbers:
            return None
        label = self.pairs.draw(self.draws)
        anchor = self._next(self.rows_of[label])
        assert anchor is not None
        positive = self._positive(label, self.is_right(anchor))
        negatives = self._hard(label, anchor, n_negatives)
        while len(negatives) < n_negatives:
            if not self.landmarks.numbers:
                return None
            landmarks = self.landmarks.sample(n_negatives - len(negatives), label, self.draws)
            if not landmarks:
                return None
            negatives += [row for landmark in landmarks if (row := self._next(self.rows_of[landmark])) is not None]
        return [anchor, positive, *negatives]

    def _positive(self, label: int, anchor_is_right: bool) -> int:
        """The next photo of the landmark; for an anchor that was not recognised the next that was, if there is one."""
        rows = self.rows_of[label]
        if not anchor_is_right:
            for place in range(len(rows) - 1, -1, -1):
                if self.is_left[rows[place]] and self.is_right(rows[place]):
                    return self._take(rows[place])
        positive = self._next(rows)
        assert positive is not None
        return positive

    def _hard(self, label: int, anchor: int, n_negatives: int) -> list[int]:
        """Rows of hard negatives of an anchor, at most n_negatives, fewer where there are no more or none is drawn."""
        if self.nearest_landmarks is None:
            return []
        rows: list[int | None] = []
        is_right = self.is_right(anchor)
        for chance in self.draws.random(n_negatives):
            if chance < (RIGHT_ANCHOR_HARD if is_right else WRONG_ANCHOR_HARD):
                rows.append(self._next(self.mistaken_for.get(label, [])))
            elif not is_right and chance < 2 * WRONG_ANCHOR_HARD:
                rows.append(self._next(self.rows_of[int(self.nearest_landmarks[anchor])]))
        return [row for row in rows if row is not None]


def _rows_by_number(rows: np.ndarray, numbers: np.ndarray) -> dict[int, list[int]]:
    """The rows of each number, in their order."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    return {int(number): part.tolist() for number, part in zip(values, np.split(rows[order], starts[1:]), strict=True)}


class TupleBatches(EpochBatches):
    """EpochBatches of tuples, drawn from (seed, epoch) and the landmarks that photos are taken for alone.

    labels: (N,) int64. batch_size: a multiple of processes x tuple_size. Until set_nearest_landmarks is called no
    negative is known to be hard.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        n_epochs: int,
        tuple_size: int,
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        super().__init__(len(labels), batch_size, seed, n_epochs, None, process, n_processes)
        self.labels = labels
        self.tuple_size = tuple_size
        self.nearest_landmarks: np.ndarray | None = None
        sizes = np.bincount(labels)
        usable = sizes[sizes >= 2]
        if not len(usable) or len(labels) - usable.max() < tuple_size - 2:
            raise UltronError(
                f"tuples of {tuple_size} need a landmark with two photos and {tuple_size - 2} photos of "
                f"others, found {len(labels)} photos of {int((sizes > 0).sum())} landmarks ({len(usable)} with two "
                "or more); use more photos, or a smaller loss.tuple_size"
            )

    def set_nearest_landmarks(self, nearest_landmarks: np.ndarray | None) -> None:
        """Says which photos are hard; called before the first batch.

        nearest_landmarks: (N,) int64, the landmark that each photo is taken for (-1: not known), or None: it is known
        of no photo.
        """
        self.nearest_landmarks = nearest_landmarks

    def epoch_rows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(batches, batch_size) int64 rows and seeds of an epoch, tuple after tuple."""
        draws = np.random.Generator(np.random.PCG64([self.seed, epoch, self.tuple_size]))
        n = self.n_batches * self.batch_size
        rows: list[int] = []
        current = Round(self.labels, self.nearest_landmarks, draws)
        while len(rows) < n:
            drawn = current.next_tuple(self.tuple_size - 2)
            if drawn is None:
                current = Round(self.labels, self.nearest_landmarks, draws)
            else:
                rows += drawn
        seeds = draws.integers(0, 2**62, (self.n_batches, self.batch_size))
        return np.array(rows, np.int64).reshape(-1, self.batch_size), seeds
