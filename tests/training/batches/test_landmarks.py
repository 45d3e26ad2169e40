"""Batches of landmarks: every photo once, groups of one landmark, different landmarks in a batch, small landmarks."""

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.landmarks import LandmarkBatches, spread


def test_groups_are_of_one_landmark_and_batches_of_different_ones() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 12))
    batches = LandmarkBatches(labels, 24, seed=3, n_epochs=2, per_landmark=4)
    rows, seeds = batches.epoch_rows(0)
    assert rows.shape == seeds.shape == (15, 24) and batches.n_batches == 15
    assert sorted(rows.ravel().tolist()) == list(range(360))  # every photo once
    groups = labels[rows].reshape(15, 6, 4)
    assert (groups == groups[:, :, :1]).all()
    n_landmarks = [len(np.unique(batch)) for batch in groups[:, :, 0]]
    assert n_landmarks[:-2] == [6] * 13  # at the end there may be too few
    again = LandmarkBatches(labels, 24, seed=3, n_epochs=2, per_landmark=4)
    assert np.array_equal(rows, again.epoch_rows(0)[0])
    assert not np.array_equal(rows, batches.epoch_rows(1)[0])
    parts = [
        [draw.row for draw in next(iter(LandmarkBatches(labels, 24, 3, 2, 4, process=process, n_processes=2)))]
        for process in range(2)
    ]
    assert parts[0] + parts[1] == rows[0].tolist()


def test_a_last_group_is_filled_from_its_landmark() -> None:
    sizes = [1, 2, 3, 5, 9, 4]
    labels = np.repeat(np.arange(6), sizes)
    batches = LandmarkBatches(labels, 8, seed=0, n_epochs=1, per_landmark=4)
    rows, _ = batches.epoch_rows(0)
    assert batches.n_batches == (1 + 1 + 1 + 2 + 3 + 1) * 4 // 8
    for group in rows.reshape(-1, 4):
        label = labels[group[0]]
        assert (labels[group] == label).all()
        assert len(set(group.tolist())) == min(4, sizes[label])  # twice only where there are fewer than four


def test_few_landmarks_or_one_that_dominates_still_fill_batches() -> None:
    assert spread([0] * 10, 4) == list(range(10))
    landmarks = [0] * 20 + [1, 2] + [0] * 30 + [1, 2]
    order = spread(landmarks, 3)
    assert sorted(order) == list(range(54))
    assert [landmarks[place] for place in order[:6]] == [0, 1, 2, 0, 0, 0]  # the next others are too far ahead


def test_too_few_landmarks_or_photos_to_compare_are_refused() -> None:
    with pytest.raises(UltronError, match=r"two landmarks at least, 4 of each; found 1 landmarks, and 8 photos"):
        LandmarkBatches(np.zeros(20, np.int64), 8, seed=0, n_epochs=1, per_landmark=4)
    with pytest.raises(UltronError, match=r"and 4 photos in batch_size / accumulate; use .*`batch_size=16`"):
        LandmarkBatches(np.arange(20) // 5, 8, seed=0, n_epochs=1, per_landmark=4, n_parts=2)
