"""Geometric verification of a pair of photos: how many matches one transform explains.

The transform takes places of the query to places of the photo. OpenCV estimates it (MAGSAC++ of Barath et al. 2020,
but for similarities); a transform that no camera could have made is refused. The result is that of the two photos
alone: the random numbers begin anew with every pair, and matches stand in the order of the query's features.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import cv2
import numpy as np

from ultron_cli.configs import one_of, within
from ultron_cli.local import MatcherChoice
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.matching import Comparable, mutual_matches

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the photo
# (2, m, 2) float64 places in query and photo, the threshold in the same pixels -> (transform (3, 3), (m,) bool) or None
Estimate = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray] | None]

VERSION = 1  # of results: raise it when the same features and settings no longer give the same
GRID_CELLS = 8  # of a side of the query's box
MOST_SQUEEZE = 8.0  # of a transform's two scales at the middle of the box: seen at 83 degrees
MOST_ZOOM = 16.0  # of lengths, either way
CONFIDENCE = 0.999
ITERATIONS = 1000
THRESHOLD_PX, RATIO = 4.0, 0.85  # of keypoints
CELL_RATIO = 0.95  # of places of a map


def _usac(threshold_px: float) -> "cv2.UsacParams":
    parameters = cv2.UsacParams()
    parameters.sampler = cv2.SAMPLING_UNIFORM
    parameters.score = cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
    parameters.final_polisher = cv2.MAGSAC
    parameters.final_polisher_iterations = 3
    parameters.loIterations = 10
    parameters.loSampleSize = 50
    parameters.maxIterations = ITERATIONS
    parameters.confidence = CONFIDENCE
    parameters.threshold = threshold_px
    parameters.randomGeneratorState = 0
    parameters.isParallel = False
    return parameters


def _homography(places: np.ndarray, threshold_px: float) -> tuple[np.ndarray, np.ndarray] | None:
    transform, mask = cv2.findHomography(places[0], places[1], _usac(threshold_px))
    return None if transform is None else (transform, mask.ravel() > 0)


def _affine(places: np.ndarray, threshold_px: float) -> tuple[np.ndarray, np.ndarray] | None:
    transform, mask = cv2.estimateAffine2D(places[0], places[1], _usac(threshold_px))
    return None if transform is None else (np.vstack([transform, [0, 0, 1]]), mask.ravel() > 0)


def _similarity(places: np.ndarray, threshold_px: float) -> tuple[np.ndarray, np.ndarray] | None:
    cv2.setRNGSeed(0)
    transform, mask = cv2.estimateAffinePartial2D(
        places[0],
        places[1],
        method=cv2.RANSAC,
        ransacReprojThreshold=threshold_px,
        maxIters=ITERATIONS,
        confidence=CONFIDENCE,
    )
    return None if transform is None else (np.vstack([transform, [0, 0, 1]]), mask.ravel() > 0)


def _fundamental(places: np.ndarray, threshold_px: float) -> tuple[np.ndarray, np.ndarray] | None:
    transform, mask = cv2.findFundamentalMat(places[0], places[1], _usac(threshold_px))
    if transform is None or transform.shape != (3, 3):
        return None
    return transform, mask.ravel() > 0


@dataclass(frozen=True, kw_only=True)
class GeometryModel:
    """A kind of transform between two photos."""

    estimate: Estimate
    n_matches: int  # that one is computed from
    moves_places: bool = True  # a place to a place; a fundamental matrix moves it to a line


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """How two photos are matched and verified."""

    model: str = "homography"  # of MODELS
    # From a match to where the transform takes it, at the side that features were made at; None: what suits the
    # features, 4 px for keypoints and half a cell for places of a map.
    threshold_px: float | None = THRESHOLD_PX
    # Of the distances to the nearest and the next nearest descriptor; None: 0.85 for keypoints and 0.95 for places of a
    # map, whose neighbours look alike.
    ratio: float | None = RATIO
    # Between a match's two features: photos are mostly taken upright, and chance turns them anyhow. 180 takes any.
    max_turn_deg: float = 45.0
    min_matches: int = 6  # fewer are not looked at, and count no inliers
    # Inliers that count of each cell of a grid over the query's box: a sign, or a row of windows, is few cells.
    most_of_cell: int = 3
    matcher: MatcherChoice | None = None  # None: mutual nearest features, by `ratio`

    def __post_init__(self) -> None:
        one_of("model", self.model, MODELS)
        if self.threshold_px is not None:
            within("threshold_px", self.threshold_px, 0.1, 100)
        if self.ratio is not None:
            within("ratio", self.ratio, 0.1, 1)
        within("max_turn_deg", self.max_turn_deg, 1, 180)
        within("min_matches", self.min_matches, 2, 1000)
        within("most_of_cell", self.most_of_cell, 1, 1000)

    def threshold_for(self, cell_px: float | None) -> float:
        """In pixels. cell_px: of places of a map the side of a cell; None: of keypoints."""
        if self.threshold_px is not None:
            return self.threshold_px
        return THRESHOLD_PX if cell_px is None else cell_px / 2

    def ratio_for(self, cell_px: float | None) -> float:
        """Of distances. cell_px: as above."""
        if self.ratio is not None:
            return self.ratio
        return RATIO if cell_px is None else CELL_RATIO

    @property
    def identity(self) -> dict[str, object]:
        """All that shapes a result, as JSON takes it."""
        names = [part.name for part in fields(self) if part.name != "matcher"]
        matcher = {} if self.matcher is None else {"matcher": self.matcher.identity}
        return {**{name: getattr(self, name) for name in names}, **matcher}


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification:
    """What the geometry of a pair of photos says."""

    n_matches: int  # tentative ones
    n_inliers: int  # of them that the transform explains
    score: int  # inliers, of each cell of a grid over the query's box at most `most_of_cell`
    transform: np.ndarray | None  # (3, 3) float64, pixels of the query to pixels of the photo; None without inliers
    matches: np.ndarray  # (n_matches, 2) int64: a feature of the query, a feature of the photo
    is_inlier: np.ndarray  # (n_matches,) bool

    @property
    def inliers(self) -> np.ndarray:
        """(n_inliers, 2) int64: a feature of the query, a feature of the photo."""
        return self.matches[self.is_inlier]


@dataclass(frozen=True, eq=False)
class VerifiablePhoto:
    """A photo's features, ready to be verified against others."""

    features: LocalFeatures
    comparable: Comparable
    scale: float  # from its own pixels to those that the features were detected at, at most 1
    cell_px: float | None = None  # of places of a map the side of a cell, as detected; None: of keypoints

    @classmethod
    def of(
        cls,
        features: LocalFeatures,
        *,
        max_side_px: int | None,
        is_binary: bool = False,
        cell_px: float | None = None,
    ) -> "VerifiablePhoto":
        """max_side_px: the side to which larger photos were scaled before detection; None: none was."""
        scale = min(1.0, max_side_px / max(features.size)) if max_side_px else 1.0
        return cls(features, Comparable.of(features.descriptors, is_binary=is_binary), scale, cell_px)

    @cached_property
    def as_detected(self) -> LocalFeatures:
        """The features in the pixels that they were detected in."""
        width, height = self.features.size
        return replace(
            self.features,
            positions=self.features.positions * np.float32(self.scale),
            scales=self.features.scales * np.float32(self.scale),
            size=(max(1, round(width * self.scale)), max(1, round(height * self.scale))),
        )


@dataclass(frozen=True, eq=False)
class VerifiableQuery:
    """A query's features inside its box, ready to be verified against photos."""

    photo: VerifiablePhoto
    box: Box
    rows: np.ndarray  # (n,) int64: which of the query's features lie in the box
    comparable: Comparable  # theirs

    @classmethod
    def of(cls, photo: VerifiablePhoto, box: Box | None = None) -> "VerifiableQuery":
        """box: None is the box around all features."""
        positions = photo.features.positions
        if box is None:
            low, high = (positions.min(axis=0), positions.max(axis=0)) if len(positions) else (np.zeros(2), np.ones(2))
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        x, y = positions.T
        rows = np.flatnonzero((x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3]))
        everything = photo.comparable
        return cls(photo, box, rows, Comparable(everything.rows[rows], everything.is_binary))

    @cached_property
    def as_detected(self) -> LocalFeatures:
        """The features in the box, in the pixels that they were detected in."""
        features = self.photo.as_detected
        return replace(
            features,
            positions=features.positions[self.rows],
            scales=features.scales[self.rows],
            angles=features.angles[self.rows],
            strengths=features.strengths[self.rows],
            descriptors=features.descriptors[self.rows],
        )


def tentative_matches(query: VerifiableQuery, photo: VerifiablePhoto, settings: VerifySettings) -> np.ndarray:
    """(m, 2) int64: features of query and photo that match and are turned alike."""
    if settings.matcher is None:
        matches = mutual_matches(query.comparable, photo.comparable, settings.ratio_for(photo.cell_px))
    else:
        matches = settings.matcher.made.match(query.as_detected, photo.as_detected)
        matches = matches[np.argsort(matches[:, 0], kind="stable")]
    matches[:, 0] = query.rows[matches[:, 0]]
    turns = query.photo.features.angles[matches[:, 0]] - photo.features.angles[matches[:, 1]]
    return matches[np.abs((turns + 180) % 360 - 180) <= settings.max_turn_deg]


def verify(query: VerifiableQuery, photo: VerifiablePhoto, settings: VerifySettings) -> Verification:
    """Matches two photos and estimates the transform that explains most matches."""
    model = MODELS[settings.model]
    matches = tentative_matches(query, photo, settings)
    if len(matches) < max(settings.min_matches, model.n_matches):
        return _without_inliers(matches)
    positions = query.photo.features.positions[matches[:, 0]], photo.features.positions[matches[:, 1]]
    places = np.stack([positions[0] * query.photo.scale, positions[1] * photo.scale]).astype(np.float64)
    estimated = model.estimate(places, settings.threshold_for(photo.cell_px))
    if estimated is None:
        return _without_inliers(matches)
    transform, is_inlier = estimated
    if is_inlier.sum() < model.n_matches:
        return _without_inliers(matches)
    if model.moves_places and not is_plausible(transform, places[0, is_inlier]):
        return _without_inliers(matches)
    to_scaled, from_scaled = np.diag([query.photo.scale] * 2 + [1.0]), np.diag([1 / photo.scale] * 2 + [1.0])
    if model.moves_places:
        transform = from_scaled @ transform @ to_scaled
    else:
        transform = np.diag([photo.scale] * 2 + [1.0]) @ transform @ to_scaled
    return Verification(
        n_matches=len(matches),
        n_inliers=int(is_inlier.sum()),
        score=spread_score(positions[0][is_inlier], query.box, settings.most_of_cell),
        transform=transform,
        matches=matches,
        is_inlier=is_inlier,
    )


def _without_inliers(matches: np.ndarray) -> Verification:
    return Verification(
        n_matches=len(matches),
        n_inliers=0,
        score=0,
        transform=None,
        matches=matches,
        is_inlier=np.zeros(len(matches), bool),
    )


def spread_score(positions: np.ndarray, box: Box, most_of_cell: int = 3) -> int:
    """How many of (n, 2) places in the query's box count where each cell of a grid counts at most so many."""
    corner, extent = np.array(box[:2]), np.maximum(np.array(box[2:]) - np.array(box[:2]), 1e-6)
    cells = np.clip((positions - corner) / extent * GRID_CELLS, 0, GRID_CELLS - 1).astype(np.int64)
    counts = np.bincount(cells[:, 0] * GRID_CELLS + cells[:, 1])
    return int(np.minimum(counts, most_of_cell).sum())


def is_plausible(transform: np.ndarray, inliers: np.ndarray) -> bool:
    """Whether two cameras in front of one plane could make a transform: the box around the (n, 2) inliers stays in
    front of the camera and convex, is not mirrored, and neither squeezed nor zoomed beyond recognition."""
    if not np.isfinite(transform).all():
        return False
    (x1, y1), (x2, y2) = inliers.min(axis=0).tolist(), inliers.max(axis=0).tolist()
    corners = transform @ ((x1, x2, x2, x1), (y1, y1, y2, y2), (1, 1, 1, 1))
    depths = corners[2]
    if not ((depths > 0).all() or (depths < 0).all()):
        return False
    warped_x, warped_y = (corners[:2] / depths).tolist()
    for i in range(4):  # turns right at every corner
        j, k = (i + 1) % 4, (i + 2) % 4
        across, down = warped_x[j] - warped_x[i], warped_y[j] - warped_y[i]
        if not across * (warped_y[k] - warped_y[j]) - down * (warped_x[k] - warped_x[j]) > 0:
            return False
    small, large = _scales_at(transform, (x1 + x2) / 2, (y1 + y2) / 2)
    if small <= 0 or large > MOST_SQUEEZE * small:
        return False
    return 1 / MOST_ZOOM**2 <= small * large <= MOST_ZOOM**2


def _scales_at(transform: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """The two scales of a transform close to a place, the smaller first; negative where it mirrors."""
    (a, b, c), (d, e, f), (g, h, i) = transform.tolist()
    depth = g * x + h * y + i
    if depth == 0:
        return 0.0, math.inf
    across, down = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
    a, b, d, e = ((value / depth) for value in (a - across * g, b - across * h, d - down * g, e - down * h))
    # The derivative (a, b; d, e) is a turn and scaling, and a mirroring one: it scales by their sum and difference.
    turned, mirrored = math.hypot(a + e, d - b) / 2, math.hypot(a - e, b + d) / 2
    return turned - mirrored, turned + mirrored


MODELS: dict[str, GeometryModel] = {
    "homography": GeometryModel(estimate=_homography, n_matches=4),
    "affine": GeometryModel(estimate=_affine, n_matches=3),
    "similarity": GeometryModel(estimate=_similarity, n_matches=2),
    "fundamental": GeometryModel(estimate=_fundamental, n_matches=7, moves_places=False),
}
