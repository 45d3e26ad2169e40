"""Verification of pairs whose transform is known, and of pairs that only seem to have one."""

import cv2
import numpy as np
import pytest

from tests.local.sift_for_tests import facade, features_at, rootsift, seen_by, turned_wall
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.verification import (
    MODELS,
    Box,
    VerifiablePhoto,
    VerifiableQuery,
    Verification,
    VerifySettings,
    is_plausible,
    spread_score,
    verify,
)

SIDE = 320


def verified(
    query: LocalFeatures, photo: LocalFeatures, box: Box | None = None, *, max_side_px: int | None = None, **settings
) -> Verification:
    first, second = (VerifiablePhoto.of(features, max_side_px=max_side_px) for features in (query, photo))
    return verify(VerifiableQuery.of(first, box), second, VerifySettings(**settings))


def errors_px(result: Verification, query: LocalFeatures, photo: LocalFeatures, truth: np.ndarray) -> np.ndarray:
    """(n_inliers,) how far the photo's feature of each inlier is from where the query's truly goes."""
    places = query.positions[result.inliers[:, 0]][:, None].astype(np.float64)
    return np.linalg.norm(cv2.perspectiveTransform(places, truth)[:, 0] - photo.positions[result.inliers[:, 1]], axis=1)


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    return facade(1)


@pytest.fixture(scope="module")
def wall_features(wall: np.ndarray) -> LocalFeatures:
    return rootsift(wall)


@pytest.mark.parametrize("degrees", [0, 20, 40, 60])
def test_inliers_of_a_turned_wall_are_right(wall: np.ndarray, wall_features: LocalFeatures, degrees: float) -> None:
    truth = turned_wall(degrees)
    photo = rootsift(seen_by(wall, truth))
    result = verified(wall_features, photo)
    assert result.n_inliers == len(result.inliers) >= {0: 200, 20: 100, 40: 50, 60: 12}[degrees]
    assert np.mean(errors_px(result, wall_features, photo, truth) < 4) >= 0.95
    assert 0 < result.score <= result.n_inliers <= result.n_matches == len(result.matches)
    corners = np.array([[[60.0, 60]], [[260, 60]], [[260, 260]], [[60, 260]]])
    warped, true_corners = (cv2.perspectiveTransform(corners, h) for h in (result.transform, truth))
    assert np.abs(warped - true_corners).max() < 6


@pytest.mark.parametrize("model", MODELS)
def test_every_model_verifies_a_shifted_photo(wall: np.ndarray, wall_features: LocalFeatures, model: str) -> None:
    truth = np.array([[0.9, 0.05, 12], [-0.05, 0.9, 20], [0, 0, 1.0]])
    photo = rootsift(seen_by(wall, truth))
    result = verified(wall_features, photo, model=model)
    assert result.n_inliers >= 100
    assert np.mean(errors_px(result, wall_features, photo, truth) < 5) >= 0.95
    again = verified(wall_features, photo, model=model)
    assert (again.inliers == result.inliers).all() and (again.transform == result.transform).all()
    other = verified(wall_features, rootsift(facade(2)), model=model)
    assert other.score < 12 <= result.score


def test_only_the_querys_box_counts(wall: np.ndarray, wall_features: LocalFeatures) -> None:
    box = (40.0, 50.0, 160.0, 200.0)
    result = verified(wall_features, rootsift(seen_by(wall, turned_wall(10))), box)
    places = wall_features.positions[result.matches[:, 0]]
    assert len(places) and (places >= box[:2]).all() and (places <= box[2:]).all()
    assert verified(wall_features, wall_features, (400.0, 400.0, 500.0, 500.0)).n_matches == 0


def test_the_threshold_is_in_pixels_of_the_detection(wall: np.ndarray) -> None:
    """Of photos that were made four times smaller for detection, four times as many of their own pixels are allowed."""
    features = rootsift(wall)
    large = features_at(features.positions * 4, features.descriptors, (4 * SIDE, 4 * SIDE))
    moved = features.positions * 4 + np.random.default_rng(0).uniform(-6, 6, features.positions.shape)
    photo = features_at(moved, features.descriptors, (4 * SIDE, 4 * SIDE))
    assert verified(large, photo, max_side_px=SIDE).n_inliers > 2 * verified(large, photo, max_side_px=None).n_inliers


def test_nothing_to_match(wall_features: LocalFeatures) -> None:
    blank = rootsift(np.full((SIDE, SIDE), 128, np.uint8))
    assert len(blank) == 0
    for first, second in ((blank, wall_features), (wall_features, blank), (blank, blank)):
        result = verified(first, second)
        assert (result.n_matches, result.n_inliers, result.score, result.transform) == (0, 0, 0, None)


def test_a_mirrored_photo_is_refused(wall: np.ndarray, wall_features: LocalFeatures) -> None:
    assert verified(wall_features, rootsift(wall[:, ::-1].copy())).score < 6
    # And places that are mirrored, with the descriptors of the photo itself.
    mirrored = features_at(wall_features.positions * [-1, 1] + [SIDE, 0], wall_features.descriptors)
    upright = features_at(wall_features.positions, wall_features.descriptors)
    assert verified(upright, mirrored).n_inliers == 0
    assert verified(upright, upright).n_inliers > 200


def test_a_photo_upside_down_is_taken_only_with_its_turn(wall: np.ndarray, wall_features: LocalFeatures) -> None:
    photo = rootsift(wall[::-1, ::-1].copy())
    assert verified(wall_features, photo).n_inliers == 0
    assert verified(wall_features, photo, max_turn_deg=180).n_inliers > 100


@pytest.mark.parametrize(
    ("transform", "is_sound"),
    [
        (np.eye(3), True),
        (np.diag([0.5, 0.4, 1]), True),
        (np.diag([-1.0, 1, 1]), False),  # mirrored
        (np.diag([1.0, 0.05, 1]), False),  # squeezed to a line
        (np.diag([0.01, 0.01, 1]), False),  # shrunk to a point
        (np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, -1.0]]), False),  # part of it behind the camera
        (np.zeros((3, 3)), False),
        (np.full((3, 3), np.nan), False),
        (-np.eye(3), True),  # a transform knows no sign
    ],
)
def test_transforms_that_no_camera_makes(transform: np.ndarray, is_sound: bool) -> None:
    inliers = np.array([[10.0, 10], [200, 30], [150, 180], [40, 160]])
    assert is_plausible(transform, inliers) is is_sound


def test_inliers_in_one_place_count_little() -> None:
    box = (0.0, 0.0, 80.0, 80.0)
    draws = np.random.default_rng(3)
    in_one_cell, all_over = draws.uniform(1, 9, (50, 2)), draws.uniform(0, 80, (2000, 2))
    row_of_windows = np.stack([np.linspace(1, 79, 50), np.full(50, 33.0)], axis=1)
    for most in (1, 3):
        assert spread_score(in_one_cell, box, most) == most
        assert spread_score(row_of_windows, box, most) == 8 * most
        assert spread_score(all_over, box, most) == 64 * most
    assert spread_score(np.array([[80.0, 80], [0, 0], [40, 40]]), box) == 3
    assert spread_score(np.zeros((0, 2)), box) == 0


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"model": "projective"}, "`model` must be one of homography, affine, similarity, fundamental"),
        ({"ratio": 0}, "`ratio` must lie between 0.1 and 1"),
        ({"threshold_px": float("nan")}, "`threshold_px` must lie"),
        ({"most_of_cell": 0}, "`most_of_cell` must lie between 1 and 1000"),
        ({"max_turn_deg": 0}, "`max_turn_deg` must lie between 1 and 180"),
    ],
)
def test_wrong_settings(settings: dict, rule: str) -> None:
    with pytest.raises(UltronError, match=rule):
        VerifySettings(**settings)
