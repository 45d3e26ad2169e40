"""Photos of planes, and their local features, for tests."""

import cv2
import numpy as np

from ultron_cli.local.features import LocalFeatures


def facade(seed: int, side_px: int = 320) -> np.ndarray:
    """(side, side) uint8: a wall of drawn blobs, lines and boards, unlike that of another seed."""
    draws = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(draws.integers(60, 200, (side_px, side_px)).astype(np.float32), (0, 0), 4)
    picture = (picture - picture.mean()) * 4 + 128
    for _ in range(60):
        x, y, w, h = (int(v) for v in draws.integers(4, side_px - 30, 4))
        shade = int(draws.integers(0, 255))
        kind = draws.integers(0, 3)
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + w % 26 + 4, y + h % 26 + 4), shade, -1)
        elif kind == 1:
            cv2.circle(picture, (x, y), w % 12 + 3, shade, -1)
        else:
            cv2.line(picture, (x, y), (w, h), shade, 2)
    return np.clip(picture, 0, 255).astype(np.uint8)


def seen_by(picture: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """The picture as another camera sees it."""
    return cv2.warpPerspective(picture, transform, picture.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=128)


def turned_wall(degrees: float, side_px: int = 320) -> np.ndarray:
    """(3, 3) how a camera that is turned by an angle about a wall's upright axis sees what one in front of it saw."""
    angle, distance = np.deg2rad(degrees), 1.2 * side_px
    to_middle = np.array([[1, 0, -side_px / 2], [0, 1, -side_px / 2], [0, 0, 1]])
    turn = np.array([[np.cos(angle), 0, 0], [0, 1, 0], [-np.sin(angle) / distance, 0, 1]])
    return np.linalg.inv(to_middle) @ turn @ to_middle


def rootsift(picture: np.ndarray, n: int = 400) -> LocalFeatures:
    """The strongest n of OpenCV's SIFT, as RootSIFT in bytes."""
    points, descriptors = cv2.SIFT_create(n).detectAndCompute(picture, None)
    height, width = picture.shape
    if not points:
        return features_at(np.empty((0, 2)), np.empty((0, 128), np.uint8), (width, height))
    order = np.argsort([-point.response for point in points], kind="stable")[:n]
    points, descriptors = [points[i] for i in order], descriptors[order]
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    return LocalFeatures(
        positions=np.array([point.pt for point in points], np.float32),
        scales=np.array([point.size for point in points], np.float32),
        angles=np.array([point.angle % 360 for point in points], np.float32),
        strengths=np.array([point.response for point in points], np.float32),
        descriptors=np.clip(np.round(512 * roots), 0, 255).astype(np.uint8),
        size=(width, height),
    )


def features_at(positions: np.ndarray, descriptors: np.ndarray, size: tuple[int, int] = (320, 320)) -> LocalFeatures:
    """Upright features of one size at these places."""
    n = len(positions)
    return LocalFeatures(
        positions=positions.astype(np.float32),
        scales=np.full(n, 4, np.float32),
        angles=np.zeros(n, np.float32),
        strengths=np.linspace(1, 0.5, n, dtype=np.float32),
        descriptors=descriptors,
        size=size,
    )
