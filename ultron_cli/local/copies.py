"""What two photos have in common: one is a copy of the other, both show a landmark, or neither.

A copy is cut, scaled, turned in the picture's plane, mirrored, framed, blurred or recompressed: one similarity takes
all that is left of a photo to the other, to a fraction of a pixel. Another photo of the same landmark is taken from
elsewhere, if only by a step: people, houses and clouds around the landmark do not follow it, and its own places are off
by pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.mirroring import can_mirror, mirrored
from ultron_cli.local.verification import MODELS, VerifiablePhoto, VerifiableQuery, VerifySettings, verify

Kind = Literal["copy", "mirrored copy", "landmark"]

GRID_CELLS = 5  # of a side of the box around a photo's features
LEAST_COPY_INLIERS = 12  # of a similarity
# Chosen on rendered photos of another seed than docs/datasets.md reports, where 99 copies had at least 0.479, and 1,612
# pairs of other photos of one landmark at most 0.433.
LEAST_AGREEMENT = 0.455


@dataclass(frozen=True, kw_only=True)
class InCommon:
    """What a pair of photos has in common."""

    kind: Kind | None  # None: nothing, or too little to tell
    score: int  # inliers, spread over the photo
    covered: float  # 0 to 1: share of that photo's picture, the one more covered, in which both agree


@dataclass(frozen=True, eq=False)
class ComparedPhoto:
    """A photo, ready to be compared with others, in the mirror too where its features allow it."""

    query: VerifiableQuery
    mirror: VerifiableQuery | None

    @classmethod
    def of(
        cls, features: LocalFeatures, *, max_side_px: int | None, is_binary: bool, cell_px: float | None = None
    ) -> "ComparedPhoto":
        """max_side_px, is_binary, cell_px: as VerifiablePhoto.of takes them."""

        def verifiable(either: LocalFeatures) -> VerifiableQuery:
            photo = VerifiablePhoto.of(either, max_side_px=max_side_px, is_binary=is_binary, cell_px=cell_px)
            return VerifiableQuery.of(photo)

        # Places of a map are no keypoints of SIFT, whatever their dimensions.
        has_mirror = cell_px is None and can_mirror(features.descriptors.shape[1], is_binary=is_binary)
        return cls(verifiable(features), verifiable(mirrored(features)) if has_mirror else None)


def in_common(first: ComparedPhoto, photo: VerifiablePhoto, settings: VerifySettings, threshold: int) -> InCommon:
    """What two photos have in common. threshold: the least score that chance does not reach; photos of a landmark have
    it."""
    plain = _in_common(first.query, photo, settings, threshold)
    if plain.kind == "copy" or first.mirror is None:
        return plain
    mirror = _in_common(first.mirror, photo, settings, threshold)
    if mirror.kind == "copy":
        return InCommon(kind="mirrored copy", score=mirror.score, covered=mirror.covered)
    return plain


def _in_common(query: VerifiableQuery, photo: VerifiablePhoto, settings: VerifySettings, threshold: int) -> InCommon:
    verified = verify(query, photo, settings)
    if verified.score == 0:
        return InCommon(kind=None, score=0, covered=0.0)
    positions = query.photo.features.positions[verified.matches[:, 0]], photo.features.positions[verified.matches[:, 1]]
    places = np.stack([positions[0] * query.photo.scale, positions[1] * photo.scale]).astype(np.float64)
    is_copy, covered = False, 0.0
    if similar := MODELS["similarity"].estimate(places, settings.threshold_for(photo.cell_px)):
        transform, is_inlier = similar
        covered = max(
            covered_share(query.photo.features.positions, positions[0][is_inlier]),
            covered_share(photo.features.positions, positions[1][is_inlier]),
        )
        off_px = median_off_px(transform, places[:, is_inlier])
        # Chance may give many inliers, but not of nearly all matches, all over a picture, and as exactly.
        agreement = covered * is_inlier.mean() ** 2 / (1 + off_px**2)
        is_copy = is_inlier.sum() >= LEAST_COPY_INLIERS and agreement >= LEAST_AGREEMENT
    kind: Kind | None = "copy" if is_copy else "landmark" if verified.score >= threshold else None
    return InCommon(kind=kind, score=verified.score, covered=covered)


def median_off_px(similarity: np.ndarray, places: np.ndarray) -> float:
    """How far (2, m, 2) places in two photos are from each other under a (3, 3) similarity of the first to the second,
    in pixels of the photo that shows them smaller."""
    moved = places[0] @ similarity[:2, :2].T + similarity[:2, 2]
    scale = float(np.sqrt(np.abs(np.linalg.det(similarity[:2, :2]))))
    return float(np.median(np.linalg.norm(moved - places[1], axis=1))) / max(1.0, scale)


def covered_share(positions: np.ndarray, inliers: np.ndarray) -> float:
    """Of the cells of a grid over (n, 2) features that hold some, the share in which one of the (m, 2) inliers lies."""
    if not len(inliers):
        return 0.0
    corner = positions.min(axis=0)
    extent = np.maximum(positions.max(axis=0) - corner, 1e-6)

    def cells_of(places: np.ndarray) -> np.ndarray:
        cells = np.clip((places - corner) / extent * GRID_CELLS, 0, GRID_CELLS - 1).astype(np.int64)
        return np.unique(cells[:, 0] * GRID_CELLS + cells[:, 1])

    return len(cells_of(inliers)) / len(cells_of(positions))
