"""Photos that only look like a query: walls with its windows, its stone, its sign, it in the mirror and upside down."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest

from tests.local.sift_for_tests import rootsift, seen_by, turned_wall
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.facades import facade
from ultron_cli.datasets.toy.walls import bare_wall, draw_style
from ultron_cli.local.calibration import calibrate
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery, VerifySettings, verify

SIDE_PX = 320
N_WALLS = 5
STRICT = VerifySettings(most_of_cell=1)


def photo_of(tile: np.ndarray) -> np.ndarray:
    """(SIDE_PX, SIDE_PX) uint8: a rendered wall's texture, in grey."""
    grey = cv2.cvtColor(np.ascontiguousarray(tile[::-1, :, :3]), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)


def wall(style: int, number: int, width_m: float = 22.0, height_m: float = 20.0) -> np.ndarray:
    """A facade; those of one style have the same windows, stones and mouldings."""
    return photo_of(facade(Draws(number, "wall"), draw_style(Draws(style, "style")), width_m, height_m))


def with_sign(picture: np.ndarray, width_px: int, corner: tuple[int, int]) -> np.ndarray:
    """A board with words, hung on a wall."""
    board = np.full((60, 240), 40, np.uint8)
    cv2.putText(board, "GRAND HOTEL", (12, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.05, 235, 2, cv2.LINE_AA)
    board = cv2.resize(board, (width_px, width_px // 4), interpolation=cv2.INTER_AREA)
    signed = picture.copy()
    signed[corner[1] : corner[1] + board.shape[0], corner[0] : corner[0] + board.shape[1]] = board
    return signed


def lettered() -> np.ndarray:
    page = np.full((SIDE_PX, SIDE_PX), 225, np.uint8)
    for row in range(9):
        cv2.putText(page, "GRAND HOTEL " * 3, (-20 * row, 34 * row + 26), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 30, 2)
    return page


def inliers(query: LocalFeatures, picture: np.ndarray) -> int:
    photo = VerifiablePhoto.of(rootsift(np.ascontiguousarray(picture)), max_side_px=None)
    first = VerifiableQuery.of(VerifiablePhoto.of(query, max_side_px=None))
    return verify(first, photo, STRICT).score


@pytest.fixture(scope="module")
def threshold() -> int:
    """What walls of different styles do not reach."""
    walls = [wall(style, style) for style in range(10, 22)]
    scores = [inliers(rootsift(first), second) for first, second in pairwise(walls)]
    return calibrate(np.array(scores), share=0.01, first=4, least=6).threshold


@pytest.fixture(scope="module")
def queries() -> list[LocalFeatures]:
    return [rootsift(with_sign(wall(style, style), 110, (100, 150))) for style in range(N_WALLS)]


LOOK_ALIKES: dict[str, Callable[[int], np.ndarray]] = {
    "another wall of its windows": lambda style: wall(style, style + 50, 17.0, 25.0),
    "its stone": lambda style: photo_of(bare_wall(Draws(0, "bare"), draw_style(Draws(style, "style")), 200, 200)),
    "its sign": lambda style: with_sign(wall(style + 30, 0), 150, (60, 90)),
    "its letters": lambda _: lettered(),
    "upside down": lambda style: wall(style, style)[::-1, ::-1],
}


@pytest.mark.parametrize("what", LOOK_ALIKES)
def test_look_alikes_are_not_promoted(queries: list[LocalFeatures], threshold: int, what: str) -> None:
    scores = [inliers(query, LOOK_ALIKES[what](style)) for style, query in enumerate(queries)]
    assert max(scores) < threshold, scores


def test_the_wall_itself_from_aside_and_without_its_sign_is_promoted(
    queries: list[LocalFeatures], threshold: int
) -> None:
    aside = turned_wall(25, SIDE_PX)
    scores = [inliers(query, seen_by(wall(style, style), aside)) for style, query in enumerate(queries)]
    assert min(scores) >= threshold + 5, scores


def test_a_mirrored_wall_stays_behind_the_wall(queries: list[LocalFeatures]) -> None:
    """A wall whose windows are alike on both sides is much the same in the mirror."""
    for style, query in enumerate(queries):
        picture = wall(style, style)
        assert inliers(query, picture[:, ::-1]) < inliers(query, seen_by(picture, turned_wall(25, SIDE_PX)))
