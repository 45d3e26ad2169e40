"""The local features of a photo: places, and a descriptor of each."""

from dataclasses import dataclass

import numpy as np

from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalFeatures:
    """Of one photo, strongest first: n features, n may be 0.

    Coordinates are pixels of the photo as it is decoded (upright, at its full size, whatever size the features were
    detected at), the centre of the upper left pixel at (0, 0).
    """

    positions: np.ndarray  # (n, 2) float32, x and y
    scales: np.ndarray  # (n,) float32, diameter in pixels of the photo, over 0
    angles: np.ndarray  # (n,) float32, degrees, 0 up to 360, clockwise on the picture; 0 where a detector knows none
    strengths: np.ndarray  # (n,) float32, of the detection, falling
    descriptors: np.ndarray  # (n, D) uint8 (of binary ones, eight to a byte), float16 or float32
    size: tuple[int, int]  # width and height of the photo, pixels

    def __post_init__(self) -> None:
        shapes = {"positions": (len(self), 2), "scales": (len(self),), "angles": (len(self),)}
        shapes["strengths"] = (len(self),)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UltronError(f"{name} of {len(self)} features must be {shape}; found {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.descriptors)
