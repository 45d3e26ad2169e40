"""Copies are told from photos of the same wall, and mirrored features are those of the mirrored photo."""

import cv2
import numpy as np
import pytest

from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from ultron_cli.local.copies import ComparedPhoto, InCommon, covered_share, in_common, median_off_px
from ultron_cli.local.mirroring import can_mirror, mirrored
from ultron_cli.local.verification import VerifiablePhoto, VerifySettings

WALL = facade(1, 240)


def compared(picture: np.ndarray, other: np.ndarray) -> InCommon:
    first = ComparedPhoto.of(rootsift(picture, 300), max_side_px=None, is_binary=False)
    return in_common(first, VerifiablePhoto.of(rootsift(other, 300), max_side_px=None), VerifySettings(), 8)


def test_mirrored_features_are_those_of_the_mirrored_photo() -> None:
    of_mirror, of_photo = mirrored(rootsift(WALL)), rootsift(np.ascontiguousarray(WALL[:, ::-1]))
    distances = np.abs(of_mirror.positions[:, None] - of_photo.positions[None]).max(axis=2)
    turns = np.abs((of_mirror.angles[:, None] - of_photo.angles[None] + 180) % 360 - 180)
    first, second = np.nonzero((distances < 0.6) & (turns < 2))
    differences = of_mirror.descriptors[first].astype(float) - of_photo.descriptors[second]
    assert len(set(first)) > 0.7 * len(of_mirror)
    assert np.median(np.linalg.norm(differences, axis=1)) < 20  # of 512


def test_mirroring_twice_gives_the_features_again() -> None:
    features = rootsift(WALL, 50)
    again = mirrored(mirrored(features))
    assert np.array_equal(again.descriptors, features.descriptors)
    np.testing.assert_allclose(again.positions, features.positions, atol=1e-4)


def test_only_sift_can_be_mirrored() -> None:
    assert can_mirror(128, is_binary=False)
    assert not can_mirror(32, is_binary=True) and not can_mirror(64, is_binary=False)


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        (WALL[30:210, 20:220], "copy"),
        (cv2.GaussianBlur(WALL, (0, 0), 1.2), "copy"),
        (cv2.copyMakeBorder(WALL, 30, 30, 30, 30, cv2.BORDER_CONSTANT, value=240), "copy"),
        (seen_by(WALL, np.vstack([cv2.getRotationMatrix2D((120, 120), 20, 1), [0, 0, 1]])), "copy"),
        (WALL[:, ::-1], "mirrored copy"),
        (facade(2, 240), None),
        (np.full((240, 240), 128, np.uint8), None),
    ],
)
def test_copies(copy: np.ndarray, kind: str | None) -> None:
    assert compared(np.ascontiguousarray(copy), WALL).kind == kind


def test_another_view_of_a_wall_is_no_copy() -> None:
    assert compared(seen_by(WALL, turned_wall(35, 240)), WALL).kind == "landmark"


def test_a_wall_in_a_part_of_two_photos_is_no_copy() -> None:
    first, second = facade(3, 240), facade(4, 240)
    first[60:160, 60:160] = second[80:180, 40:140] = WALL[60:160, 60:160]
    assert compared(first, second).kind == "landmark"


def test_covered_share_counts_cells_with_features() -> None:
    corners = np.array([[0, 0], [0, 10], [10, 0], [10, 10.0]])
    assert covered_share(corners, corners) == 1
    assert covered_share(corners, corners[:1]) == 0.25
    assert covered_share(corners, corners[:0]) == 0


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_places_are_off_in_pixels_of_the_smaller_picture(scale: float) -> None:
    """3 px off in the second photo are 3 / scale of the first, where that shows them smaller."""
    similarity = np.array([[0.0, -scale, 5], [scale, 0, 7], [0, 0, 1]])
    first = np.array([[1.0, 2], [30, 4], [9, 50]])
    second = first @ similarity[:2, :2].T + similarity[:2, 2] + [3, 0]
    assert median_off_px(similarity, np.stack([first, second])) == pytest.approx(3 / max(1, scale))
