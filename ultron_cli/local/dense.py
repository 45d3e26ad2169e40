"""Dense local features: places of a network's map, as their settings and numbers; retrieval/local_features/dense.py
makes them.

As DELG has it (Cao, Araujo and Sim, ECCV 2020): the map at several scales, its strongest places by attention or norm,
PCA.
"""

from dataclasses import dataclass

import numpy as np

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.local.detectors import Comparison, DescriptorType

DESCRIPTOR_TYPE: DescriptorType = "uint8"
COMPARISON: Comparison = "l2"
MIDDLE = 128  # of a stored number, for 0
STORED_SCALE = 256.0  # of a number of a unit vector; beyond a half it is cut


@dataclass(frozen=True, kw_only=True)
class DenseSettings:
    """Of the places of a network's map."""

    layer: str = ""  # a stage or layer by name; empty: the last map before pooling
    scales: tuple[float, ...] = (0.7071, 1.0, 1.4142)  # of the photo, brought to its side
    dim: int = 128  # numbers of a descriptor; fewer where the map has fewer channels
    # A file of local features whose projection is taken; empty: that of the database, which is learned of its photos.
    projection: str = ""

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise UltronError(f"`local.scales` must be different numbers, one at least; found {list(self.scales)}")
        for scale in self.scales:
            within("local.scales", scale, 0.1, 4)
        within("local.dim", self.dim, 1, 1024)


def pack(descriptors: np.ndarray) -> np.ndarray:
    """(n, D) float32 rows of unit norm -> (n, D) uint8."""
    return np.clip(np.rint(descriptors * np.float32(STORED_SCALE)) + MIDDLE, 0, 255).astype(np.uint8)
