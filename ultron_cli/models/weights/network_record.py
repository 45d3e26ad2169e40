"""What a network's file for other tools says of itself (ONNX, torch.export, state dicts), as JSON under KEY."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ultron_cli.configs import LARGEST_SCALE, LEAST_SCALE, MAX_SIDE_PX, MIN_SIDE_PX, to_dict
from ultron_cli.models.backbones.preprocessing import Preprocessing

KEY = "ultron"  # of the metadata
FORMAT = "ultron-network"
VERSION = 1
MOST_LABEL = 100  # characters
INPUT_NAME, OUTPUT_NAME = "images", "descriptors"

PixelType = Literal["uint8", "float"]
PIXEL_TYPES: tuple[PixelType, ...] = ("uint8", "float")


@dataclass(frozen=True, kw_only=True)
class WhiteningInside:
    """A whitening that the network ends with."""

    method: str
    dim: int
    sha256: str  # of the whitening file


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """How photos become descriptors in a file."""

    ultron_version: str
    label: str  # of the model
    model: dict[str, object]  # name and settings
    weights_sha256: str  # of the model's parameters, as descriptor files name it
    descriptor_dim: int
    pixels: PixelType  # RGB (B, 3, H, W): 0..255 as uint8, or 0..1 as float32
    mean: tuple[float, ...]  # inside: of 0..1, red, green, blue
    sd: tuple[float, ...]
    interpolation: str  # the filter that brings photos to size before
    scaling: str  # inside: how photos are brought to the scales
    box_edges: Literal["rounded", "truncated"]
    crop: Literal["bbx"] = "bbx"  # of queries, before
    scales: tuple[float, ...]  # inside
    whitening: WhiteningInside | None = None  # inside
    max_side_px: int | None = None  # to which photos are scaled down before
    sides_px: tuple[int, int] | None = None  # (H, W), where only that is taken
    least_side_px: int  # no side is shorter
    trained_on: dict[str, object] | None = None
    format: Literal["ultron-network"] = FORMAT
    version: int = VERSION

    def fault(self, interpolations: Collection[str]) -> str | None:
        """What makes it useless, for one that was read from a file; None if nothing does."""
        normalised = Preprocessing(mean=self.mean, sd=self.sd).fault()
        if normalised:
            return normalised
        if not 0 < len(self.label) <= MOST_LABEL or not self.label.isprintable() or self.label.startswith("."):
            return "label must be a short text that may name a file"
        if not self.scales or not all(LEAST_SCALE <= scale <= LARGEST_SCALE for scale in self.scales):
            return f"scales must lie between {LEAST_SCALE} and {LARGEST_SCALE}, found {list(self.scales)[:10]}"
        if self.interpolation not in interpolations:
            return f"interpolation must be one of {', '.join(interpolations)}"
        sides = (self.least_side_px, *(self.sides_px or ()), *([self.max_side_px] if self.max_side_px else []))
        if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in sides):
            return f"sides must lie between {MIN_SIDE_PX} and {MAX_SIDE_PX} px, found {list(sides)}"
        return None

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return to_dict(self)

    def to_json(self) -> str:
        """As files hold it."""
        return json.dumps(to_dict(self))
