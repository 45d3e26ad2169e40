"""Files of local features for tests: of drawn numbers, small."""

from pathlib import Path

import numpy as np

from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import Projection
from ultron_cli.retrieval.local_features.files import LocalFeatureInfo, write_local_features
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto

COUNTS = (3, 0, 5, 1)
NAMES = ("a", "ß/b", "c", "d")
CONFIG = {
    "detector": "rootsift",
    "settings": {"contrast": 0.04},
    "comparison": "l2",
    "max_keypoints": 800,
    "max_side_px": 640,
}


def drawn_features(n: int, dim: int, dtype: str, seed: int, size: tuple[int, int] = (64, 48)) -> LocalFeatures:
    """n features anywhere in a photo."""
    draws = np.random.default_rng(seed)
    descriptors = draws.integers(0, 256, (n, dim)) if dtype == "uint8" else draws.standard_normal((n, dim))
    return LocalFeatures(
        positions=(draws.random((n, 2)) * size - 0.5).astype(np.float32),
        scales=(1 + draws.random(n)).astype(np.float32),
        angles=(360 * draws.random(n)).astype(np.float32),
        strengths=np.sort(draws.random(n).astype(np.float32))[::-1],
        descriptors=descriptors.astype(dtype),
        size=size,
    )


def drawn_photos(dim: int = 8, dtype: str = "uint8") -> list[LocalFeatures]:
    """Photos of COUNTS features."""
    return [drawn_features(n, dim, dtype, seed) for seed, n in enumerate(COUNTS)]


def write_drawn(path: Path, dim: int = 8, dtype: str = "uint8", *, projection: Projection | None = None) -> None:
    """A file of drawn_photos, named NAMES."""
    info = LocalFeatureInfo(
        detector="rootsift",
        settings={"contrast": 0.04},
        comparison="l2",
        max_keypoints=800,
        max_side_px=640,
        dataset="toy",
        role="database",
        crop="none",
        extraction=ExtractionRecord(stored=CONFIG),
        skipped=(SkippedPhoto(name="bad", reason="torn"),),
    )
    marks = PhotoMarks(np.arange(12, dtype=np.int64).reshape(4, 3), np.zeros((4, 16), np.uint8))
    photos, width = drawn_photos(dim, dtype), (dim, np.dtype(dtype))
    write_local_features(path, NAMES, COUNTS, photos, width, info, marks=marks, projection=projection)
