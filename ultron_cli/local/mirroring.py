"""The local features that the mirrored photo would have, without the photo."""

import dataclasses

import numpy as np

from ultron_cli.local.features import LocalFeatures

CELLS, DIRECTIONS = 4, 8  # of a SIFT descriptor: CELLS rows of CELLS cells, a histogram of DIRECTIONS in each
# Seen in a mirror, the cells of a keypoint's patch lie the other way round across its direction, and so do gradients.
ORDER = (
    np.arange(CELLS * CELLS * DIRECTIONS)
    .reshape(CELLS, CELLS, DIRECTIONS)[::-1, :, -np.arange(DIRECTIONS) % DIRECTIONS]
    .reshape(-1)
)


def can_mirror(dim: int, *, is_binary: bool) -> bool:
    """Whether descriptors of this kind can be mirrored: those of SIFT, RootSIFT too, can."""
    return dim == len(ORDER) and not is_binary


def mirrored(features: LocalFeatures) -> LocalFeatures:
    """SIFT features of a photo -> those of the photo with left and right exchanged."""
    width = features.size[0]
    positions = features.positions.copy()
    positions[:, 0] = width - 1 - positions[:, 0]
    return dataclasses.replace(
        features,
        positions=positions,
        angles=((180 - features.angles) % 360).astype(np.float32),
        descriptors=np.ascontiguousarray(features.descriptors[:, ORDER]),
    )
