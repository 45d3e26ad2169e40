"""What verified a photo, as a web page draws it: lines between inliers, and where the query's box lies in the photo."""

from typing import TypedDict

import numpy as np

from ultron_cli.local.verification import MODELS, VerifiablePhoto, VerifiableQuery, Verification, VerifySettings

MOST_LINES = 200  # of a photo, those of the strongest features
PARTS = 1000  # of a photo's width, and of its height, that places are counted in


class PackedInliers(TypedDict):
    """The geometry of a query and a photo as a page reads it; places are thousandths of the photo's width and
    height."""

    matches: int
    inliers: int
    counted: int  # of them, spread over the query: what promotes
    lines: list[list[int]]  # [x, y in the query, x, y in the photo] of at most MOST_LINES inliers
    box: list[list[int]] | None  # the corners of the query's box, [x, y] in the photo; None where it moves nowhere


def packed_inliers(
    query: VerifiableQuery, photo: VerifiablePhoto, verified: Verification, settings: VerifySettings
) -> PackedInliers:
    """settings: by which they were verified."""
    inliers = verified.inliers[:MOST_LINES]
    starts = _parts(query.photo.features.positions[inliers[:, 0]], query.photo.features.size)
    ends = _parts(photo.features.positions[inliers[:, 1]], photo.features.size)
    box = warped_box(query, verified, settings)
    return {
        "matches": verified.n_matches,
        "inliers": verified.n_inliers,
        "counted": verified.score,
        "lines": np.concatenate([starts, ends], axis=1).tolist(),
        "box": None if box is None else _parts(box, photo.features.size).tolist(),
    }


def warped_box(query: VerifiableQuery, verified: Verification, settings: VerifySettings) -> np.ndarray | None:
    """(4, 2) float64, the corners of the query's box in pixels of the photo; None where the transform moves no places,
    or a corner to infinity."""
    if verified.transform is None or not MODELS[settings.model].moves_places:
        return None
    x1, y1, x2, y2 = query.box
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]], np.float64) @ verified.transform.T
    depths = corners[:, 2]
    if not ((depths > 0).all() or (depths < 0).all()):
        return None
    warped = corners[:, :2] / depths[:, None]
    return warped if np.isfinite(warped).all() else None


def _parts(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 2) pixels of a photo, whose first pixel's centre is (0, 0) -> thousandths of its sides; bounded, as a box may
    reach far out of the photo."""
    parts = np.rint((places + 0.5) / np.array(size) * PARTS)
    return np.clip(parts, -20 * PARTS, 20 * PARTS).astype(np.int64)
