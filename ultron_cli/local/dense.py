"""Dense local features: places of a network's map, as their settings and numbers; retrieval/local_features/dense.py
makes them.

As DELG has it (Cao, Araujo and Sim, ECCV 2020): the map at several scales, its strongest places by attention or norm,
PCA.
"""

from dataclasses import dataclass, replace

import numpy as np

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.local.detectors import Comparison, DescriptorType, strongest
from ultron_cli.local.features import LocalFeatures

DESCRIPTOR_TYPE: DescriptorType = "uint8"
COMPARISON: Comparison = "l2"
SLACK = 0.01  # of a cell, for rounding: neighbours in a map are one cell apart
COLUMNS = ("positions", "scales", "angles", "strengths", "descriptors")
MIDDLE = 128  # of a stored number, for 0
STORED_SCALE = 256.0  # of a number of a unit vector; beyond a half it is cut


@dataclass(frozen=True, kw_only=True)
class DenseSettings:
    """Of the places of a network's map."""

    # A stage or layer by name, or "last", the last map before pooling; empty: the last map with cells of at most 16 px.
    layer: str = ""
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


def apart(features: LocalFeatures, n: int) -> LocalFeatures:
    """At most n features, strongest first, of which no two lie nearer to each other than the smaller one's cell is
    wide: a place that several scales see counts once. scales: the sides of cells."""
    ordered = strongest(features, len(features))
    positions, sizes = ordered.positions, ordered.scales * np.float32(1 - SLACK)
    is_free = np.ones(len(ordered), bool)
    rows: list[int] = []
    for row in range(len(ordered)):
        if not is_free[row]:
            continue
        rows.append(row)
        if len(rows) == n:
            break
        distances = np.abs(positions - positions[row]).max(axis=1)
        is_free &= distances >= np.minimum(sizes, sizes[row])
    return strongest(replace(ordered, **{name: getattr(ordered, name)[rows] for name in COLUMNS}), n)


def pack(descriptors: np.ndarray) -> np.ndarray:
    """(n, D) float32 rows of unit norm -> (n, D) uint8."""
    return np.clip(np.rint(descriptors * np.float32(STORED_SCALE)) + MIDDLE, 0, 255).astype(np.uint8)
