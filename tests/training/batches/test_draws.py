"""Draws of photos: the same batches whatever the number of processes and restarts, and batches of one shape."""

from collections import Counter

import numpy as np

from ultron_cli.training.batches.draws import ASPECTS, EpochBatches, PhotoDraw, shape_groups, training_shapes


def rows(batches: EpochBatches) -> list[list[PhotoDraw]]:
    return list(batches)


def test_an_epoch_shows_every_photo_once_and_the_next_in_another_order() -> None:
    batches = EpochBatches(22, 5, seed=1, n_epochs=3)
    everything = rows(batches)
    assert [len(batch) for batch in everything] == [5] * 12
    assert len({draw.row for batch in everything[:4] for draw in batch}) == 20
    assert everything[:4] != everything[4:8]
    assert rows(batches) == everything
    batches.set_start(1, 3)
    assert (rows(batches), len(batches)) == (everything[7:], 5)


def test_ranks_share_each_batch() -> None:
    whole = rows(EpochBatches(24, 8, seed=3))
    parts = [rows(EpochBatches(24, 8, seed=3, process=rank, n_processes=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_batches_of_one_shape() -> None:
    groups = np.array([0] * 7 + [3] * 10 + [6] * 3)
    batches = rows(EpochBatches(20, 4, seed=0, groups=groups))
    assert Counter(batch[0].shape for batch in batches) == {0: 1, 3: 2}
    assert all(len({draw.shape for draw in batch}) == 1 for batch in batches)
    assert [ASPECTS[i] for i in shape_groups(np.array([0.4, 0.74, 1.02, 1.35, 1.5, 3.0]))] == [
        0.5,
        0.75,
        1.0,
        4 / 3,
        1.5,
        2.0,
    ]
    shapes = training_shapes(512, True)
    assert shapes[3] == (512, 512)
    assert shapes[4] == (448, 608) or shapes[4] == (448, 576)
    assert all(side % 32 == 0 for shape in shapes for side in shape)
    assert training_shapes(65, False) == [(65, 65)]
