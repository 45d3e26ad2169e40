"""Places of maps as numbers: apart from each other, packed, projected."""

from dataclasses import replace

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.local import choose_detector
from ultron_cli.local.copies import ComparedPhoto
from ultron_cli.local.dense import apart, pack
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import ProjectionLearner, unit
from ultron_cli.local.verification import VerifySettings


def cells(positions: list[tuple[float, float]], sizes: list[float], strengths: list[float]) -> LocalFeatures:
    n = len(positions)
    return LocalFeatures(
        positions=np.array(positions, np.float32).reshape(n, 2),
        scales=np.array(sizes, np.float32),
        angles=np.zeros(n, np.float32),
        strengths=np.array(strengths, np.float32),
        descriptors=np.arange(n, dtype=np.float32)[:, None],
        size=(100, 100),
    )


def test_a_place_of_several_scales_counts_once() -> None:
    positions = [(10, 10), (26, 10), (18, 10), (60, 60), (60, 71)]
    features = cells(positions, [16, 16, 22, 16, 11], [1, 5, 4, 2, 3])
    rows = apart(features, 10).descriptors[:, 0].tolist()
    assert rows == [1, 4, 3, 0]  # neighbours of one scale stay; row 2 is 8 px from a stronger cell of 16
    assert apart(features, 2).descriptors[:, 0].tolist() == [1, 4]
    assert len(apart(cells([], [], []), 5)) == 0


def test_packed_numbers_are_near_and_even() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((50, 128)).astype(np.float32))
    packed = pack(rows)
    assert packed.dtype == np.uint8
    assert np.abs((packed.astype(np.float32) - 128) / 256 - rows).max() <= 1 / 512
    assert pack(np.array([[1, -1, 0]], np.float32)).tolist() == [[255, 0, 128]]


def test_the_projection_keeps_what_varies_most() -> None:
    draws = np.random.default_rng(0)
    rows = (draws.standard_normal((400, 3)) * (5, 3, 0.1)) @ np.linalg.qr(draws.standard_normal((6, 6)))[0][:3]
    learner = ProjectionLearner(6)
    for part in np.split(rows.astype(np.float32), 4):
        learner.add(part)
    projection = learner.learned(2)
    np.testing.assert_allclose(projection.matrix @ projection.matrix.T, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(projection.of(rows.astype(np.float32)), axis=1), 1, atol=1e-5)
    assert projection.equals(learner.learned(2)) and not projection.equals(None)
    few = ProjectionLearner(6)
    few.add(rows[:2].astype(np.float32))
    assert (np.abs(few.learned(4).matrix).sum(axis=1) > 0).tolist() == [True, False, False, False]
    nothing = ProjectionLearner(6).learned(4)
    assert not nothing.matrix.any() and not nothing.of(rows[:3].astype(np.float32)).any()


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("scales=[]", "`local.scales` must be different numbers, one at least"),
        ("scales=[1,1]", "`local.scales` must be different numbers, one at least"),
        ("scales=[0.01]", "`local.scales` must lie between 0.1 and 4"),
        ("dim=0", "`local.dim` must lie between 1 and 1024"),
        ("sigma=2", "unknown setting local.sigma"),
    ],
)
def test_wrong_settings_are_one_line(assignment: str, text: str) -> None:
    with pytest.raises(UltronError) as error:
        choose_detector("dense", [assignment])
    assert text in error.value.message.replace("unknown setting sigma", "unknown setting local.sigma")


def test_thresholds_suit_the_features() -> None:
    suited, named = VerifySettings(threshold_px=None, ratio=None), VerifySettings()
    assert (suited.threshold_for(None), suited.ratio_for(None)) == (4, 0.85)
    assert (suited.threshold_for(32), suited.ratio_for(32)) == (16, 0.95)
    assert (named.threshold_for(32), named.ratio_for(32)) == (4, 0.85)


def test_a_map_has_no_mirror() -> None:
    """128 numbers or not: they are not SIFT's."""
    features = cells([(1, 1), (9, 9)], [8, 8], [2, 1])
    features = replace(features, descriptors=np.zeros((2, 128), np.uint8))
    seen_as = [ComparedPhoto.of(features, max_side_px=None, is_binary=False, cell_px=cell) for cell in (None, 8.0)]
    assert [photo.mirror is None for photo in seen_as] == [False, True]
