"""Aspect ratios of training photos."""

from pathlib import Path

import numpy as np
from PIL import Image

from ultron_cli.datasets.landmarks.aspects import photo_aspects
from ultron_cli.datasets.landmarks.photos import open_landmark_photos


def test_aspects(toy: Path) -> None:
    photos = open_landmark_photos(toy)
    aspects = photo_aspects(photos)
    sizes = [Image.open(path).size for path in photos.paths]
    assert np.allclose(aspects, [width / height for width, height in sizes])
