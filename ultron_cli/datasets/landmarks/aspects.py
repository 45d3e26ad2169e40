"""Reads the aspect of every training photo once from its header and caches it, for batches of one shape."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ultron_cli.console import log, progress
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.schema.arrays import read_npz

ASPECTS_FILE = ".ultron-aspects.npz"
LEAST_TO_CACHE = 5000  # fewer headers are read faster than a file is worth


def _aspect(path: Path) -> float:
    try:
        width, height = photo_size(path)
    except UltronError:
        return 1.0  # reported when it is its turn to be read
    return width / height


def photo_aspects(photos: LandmarkPhotos, n_threads: int = 8) -> np.ndarray:
    """(N,) float32: width over height of the upright photos; 1 for those that cannot be read."""
    file = photos.folder / ASPECTS_FILE
    key = photos.sha256()
    n = len(photos.labels)
    stored = read_npz(file, {"photos": "uint8", "aspects": "float32"})
    if stored is not None and stored["photos"].tobytes() == key.encode() and stored["aspects"].shape == (n,):
        aspects = stored["aspects"]
        if ((aspects > 0) & np.isfinite(aspects)).all():
            return aspects
    with ThreadPoolExecutor(n_threads) as pool:  # waits for the disk
        aspects = np.fromiter(progress(pool.map(_aspect, photos.paths), total=n, what="photo sizes"), np.float32, n)
    if n >= LEAST_TO_CACHE:
        try:
            with whole_file(file) as output:
                np.savez(output, photos=np.frombuffer(key.encode(), np.uint8), aspects=aspects)
        except UltronError as error:
            log.info("the photos' shapes are not cached (%s)", error)
    return aspects
