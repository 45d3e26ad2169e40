"""Mined tuples: pairs of a landmark, the nearest photos of other landmarks against brute force, pools, refusals."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ultron_cli.errors import UltronError
from ultron_cli.training.batches.hard import HardestNegatives
from ultron_cli.training.batches.mined import MinedBatches

LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 1 + np.arange(20) % 5))


def test_pairs_are_of_one_landmark_and_no_anchor_comes_twice() -> None:
    batches = MinedBatches(LABELS, 10, seed=2, n_epochs=3, n_negatives=3, most_anchors=2000)
    assert (batches.n_batches, batches.n_anchors) == (6, 12)
    pairs = batches.pairs(1)
    assert pairs.shape == (12, 2)
    assert (LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]).all() and (pairs[:, 0] != pairs[:, 1]).all()
    assert len(set(pairs[:, 0].tolist())) == 12
    assert not np.array_equal(pairs, batches.pairs(2))
    few = MinedBatches(np.array([0, 0, 1, 2, 3, 4]), 6, seed=2, n_epochs=1, n_negatives=1, most_anchors=2000)
    assert set(few.pairs(0)[:, 0].tolist()) == {0, 1}  # only those have a positive
    assert MinedBatches(LABELS, 10, 2, 3, 3, most_anchors=4).n_batches == 2


def test_an_epoch_is_its_pairs_with_their_negatives_and_ends_the_iteration() -> None:
    batches = MinedBatches(LABELS, 10, seed=2, n_epochs=3, n_negatives=3, most_anchors=2000)
    with pytest.raises(ValueError, match="no negatives yet"):
        batches.epoch_rows(1)
    negatives = np.arange(36).reshape(12, 3)
    batches.set_negatives(1, negatives)
    tuples = batches.epoch_rows(1)[0].reshape(12, 5)
    assert np.array_equal(tuples[:, :2], batches.pairs(1)) and np.array_equal(tuples[:, 2:], negatives)
    batches.set_start(1, 2)
    assert len(list(batches)) == len(batches) == 4
    other = MinedBatches(LABELS, 10, seed=2, n_epochs=3, n_negatives=3, most_anchors=2000)
    other.load(batches.state())
    assert np.array_equal(other.epoch_rows(1)[0], batches.epoch_rows(1)[0])


def test_a_pool_is_drawn_anew_for_every_epoch() -> None:
    batches = MinedBatches(LABELS, 10, seed=2, n_epochs=3, n_negatives=3, most_anchors=2000)
    assert np.array_equal(batches.pool(0, None), np.arange(60)) and len(batches.pool(0, 60)) == 60
    assert len(set(batches.pool(0, 20).tolist())) == 20 and set(batches.pool(0, 20)) != set(batches.pool(1, 20))


def test_hardest_negatives_are_those_of_brute_force_in_parts_of_any_size() -> None:
    generator = torch.Generator().manual_seed(0)
    n_photos, n = 200, 4
    labels = torch.randint(0, 25, (n_photos,), generator=generator)
    rows = torch.arange(n_photos)
    descriptors = normalize(torch.randn(n_photos, 8, generator=generator), dim=1)
    descriptors[150:160] = descriptors[20:30]  # equal ones: the lower row is taken
    anchors = torch.randperm(n_photos, generator=generator)[:30]
    expected = []
    for anchor in anchors.tolist():
        scores = descriptors @ descriptors[anchor]
        chosen_rows: list[int] = []
        for row in sorted(range(n_photos), key=lambda row: (-scores[row].item(), row)):
            if labels[row] not in (labels[anchor], *labels[chosen_rows]) and len(chosen_rows) < n:
                chosen_rows.append(row)
        expected.append(chosen_rows)
    for sizes in ([n_photos], [1, 7, 64, 128], [16] * 12 + [8]):
        hardest = HardestNegatives(descriptors[anchors], labels[anchors], n)
        for part in torch.randperm(n_photos, generator=generator).split(sizes):
            hardest.add(descriptors[part], rows[part], labels[part])
        assert hardest.rows.tolist() == expected
        assert hardest.rows.shape == hardest.scores.shape == hardest.landmarks.shape == (30, n)  # and no more is held
    halves = [HardestNegatives(descriptors[anchors], labels[anchors], n) for _ in range(2)]
    for half, part in zip(halves, rows.split(100), strict=True):
        half.add(descriptors[part], part, labels[part])
    halves[0].merge(halves[1].scores, halves[1].rows, halves[1].landmarks)
    assert halves[0].rows.tolist() == expected


def test_what_makes_no_tuples_is_refused() -> None:
    with pytest.raises(UltronError, match=r"3 other landmarks, found 20 photos of 3 landmarks"):
        MinedBatches(np.arange(20) % 3, 10, 0, 1, n_negatives=3, most_anchors=100)
    with pytest.raises(UltronError, match=r"a landmark with two photos"):
        MinedBatches(np.arange(20), 10, 0, 1, n_negatives=3, most_anchors=100)
    with pytest.raises(UltronError, match=r"has no batch of 20; use `loss\.anchors=4`"):
        MinedBatches(LABELS, 20, 0, 1, n_negatives=3, most_anchors=3)
