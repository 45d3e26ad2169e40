"""Similarity maps as a web page reads them."""

import base64
from typing import TypedDict

import numpy as np


class PackedMap(TypedDict):
    """A map as a page reads it."""

    h: int
    w: int
    data: str  # base64 of h x w bytes


def packed_map(heat: np.ndarray) -> PackedMap:
    """A similarity map (h, w) 0..1 as bytes, small: the page draws it over the thumbnail."""
    height, width = heat.shape
    return {"h": height, "w": width, "data": base64.b64encode((heat * 255).round().astype(np.uint8).tobytes()).decode()}
