"""Batches of tuples: a pair of one landmark with photos of others, hard negatives, too few photos."""

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.tuples import TupleBatches


def test_tuples_hold_a_pair_and_photos_of_others() -> None:
    labels = np.repeat(np.arange(30), 1 + np.arange(30) % 6)
    batches = TupleBatches(labels, 16, seed=3, n_epochs=2, tuple_size=8)
    rows, seeds = batches.epoch_rows(0)
    assert rows.shape == seeds.shape == (105 // 16, 16)
    for drawn in rows.reshape(-1, 8):
        anchor, positive, *negatives = drawn
        assert anchor != positive and labels[anchor] == labels[positive]
        assert len(set(labels[negatives])) == 6 and labels[anchor] not in labels[negatives]
    assert np.unique(rows).size == rows.size  # no photo twice while there are others
    assert np.array_equal(rows, TupleBatches(labels, 16, seed=3, n_epochs=2, tuple_size=8).epoch_rows(0)[0])
    assert not np.array_equal(rows, batches.epoch_rows(1)[0])
    parts = [
        [draw.row for draw in next(iter(TupleBatches(labels, 16, 3, 2, 8, process=rank, n_processes=2)))]
        for rank in range(2)
    ]
    assert parts[0] + parts[1] == rows[0].tolist()


def test_photos_taken_for_a_landmark_become_its_hard_negatives() -> None:
    """Landmarks 0 and 1 are taken for each other in half of their photos; the others are always recognised."""
    labels = np.repeat(np.arange(40), 20)
    nearest = labels.copy()
    nearest[0:10], nearest[20:30] = 1, 0
    batches = TupleBatches(labels, 8, seed=0, n_epochs=1, tuple_size=8)
    hard, of_mistaken = {True: [0, 0], False: [0, 0]}, 0
    for is_known in (False, True):
        batches.set_nearest_landmarks(nearest if is_known else None)
        for epoch in range(30):
            for anchor, positive, *negatives in batches.epoch_rows(epoch)[0]:
                if labels[anchor] < 2:
                    count = hard[is_known]
                    count[0] += sum(labels[row] == 1 - labels[anchor] for row in negatives)
                    count[1] += 6
                    if is_known and nearest[anchor] != labels[anchor]:
                        of_mistaken += nearest[positive] == labels[positive]
                assert labels[anchor] == labels[positive] and labels[anchor] not in labels[negatives]
    assert hard[False][0] / hard[False][1] < 0.05 < 0.25 < hard[True][0] / hard[True][1]
    assert of_mistaken > 10


def test_too_few_photos_for_tuples() -> None:
    with pytest.raises(
        UltronError,
        match="tuples of 8 need a landmark with two photos and 6 photos of others, found 8 photos of 2 landmarks",
    ):
        TupleBatches(np.repeat([0, 1], 4), 8, 0, 1, 8)
