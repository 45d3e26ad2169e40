"""What verified a photo, as a web page draws it: lines between inliers, and where the query's box lies in the photo."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.visualization.pair_geometry import PairGeometry, SceneGeometry
from ultron_cli.visualization.scene import Scene

MOST_LINES = 200  # of a photo
PARTS = 1000  # of a photo's width, and of its height, that places are counted in
FARTHEST_PARTS = 20 * PARTS  # a box may reach far out of the photo


class PackedInliers(TypedDict):
    """The geometry of a query and a photo as a page reads it; places are thousandths of the photo's width and
    height."""

    matches: int
    inliers: int
    counted: int  # of them, spread over the query: what promotes
    lines: list[list[int]]  # [x, y in the query, x, y in the photo] of at most MOST_LINES inliers
    box: list[list[int]] | None  # the corners of the query's box, [x, y] in the photo; None where it moves nowhere


def packed_inliers(pair: PairGeometry) -> PackedInliers:
    """As small as a page needs it."""
    starts, ends = pair.places(MOST_LINES)
    query_size, photo_size = pair.query.photo.features.size, pair.photo.features.size
    box = pair.warped_box
    return {
        "matches": pair.verified.n_matches,
        "inliers": pair.verified.n_inliers,
        "counted": pair.verified.score,
        "lines": np.concatenate([_parts(starts, query_size), _parts(ends, photo_size)], axis=1).tolist(),
        "box": None if box is None else _parts(box, photo_size).tolist(),
    }


@contextmanager
def packed_pairs(scene: Scene) -> Iterator[Callable[[int, str], PackedInliers] | None]:
    """What packs a query's row and a photo of a search, inside the block; None where its local features are gone."""
    try:
        geometry = SceneGeometry(scene)
    except UltronError as error:
        log.warning("the report shows no lines between inliers: %s", error)
        yield None
        return
    with geometry:
        yield lambda row, name: packed_inliers(geometry.pair(row, name))


def _parts(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 2) int64 thousandths of (n, 2) pixels of a photo, the first of which has its centre at (0, 0)."""
    parts = np.rint((places + 0.5) / np.array(size) * PARTS)
    return np.clip(parts, -FARTHEST_PARTS, FARTHEST_PARTS).astype(np.int64)
