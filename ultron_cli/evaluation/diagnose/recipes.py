"""What a photo's descriptor depends on, from the file to the vector."""

from dataclasses import dataclass, replace
from typing import Literal

OF_PHOTOS = ("exif", "crop", "box_edges", "max_side_px", "measured", "resize", "rounding", "interpolation", "antialias")
Numbers = tuple[float, ...]
Colours = tuple[Numbers, Numbers]  # mean and sd of red, green and blue between 0 and 1
COLOURS: dict[str, Colours] = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none (0 to 1)": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "none (0 to 255)": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "ImageNet's mean alone": ((0.485, 0.456, 0.406), (1.0, 1.0, 1.0)),
    "Caffe's (0 to 255, mean alone)": ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a descriptor is made, from the file to the vector; the fields stand in the order in which they act."""

    exif: Literal["upright", "as stored"] = "upright"
    crop: Literal["bbx", "none"] = "none"
    box_edges: Literal["rounded", "truncated", "outward"] = "rounded"
    max_side_px: int | None = None
    measured: Literal["longest", "shortest", "square", "whole photo"] = "longest"  # what max_side_px is the length of
    resize: Literal["down", "always"] = "down"
    rounding: Literal["nearest", "down", "up", "thumbnail"] = "nearest"  # of the sides
    interpolation: str = "bicubic"  # a key of INTERPOLATIONS
    antialias: bool = True
    flip: Literal["none", "mirrored", "both"] = "none"
    channels: Literal["RGB", "BGR"] = "RGB"
    colours: Colours = COLOURS["ImageNet's"]  # subtracted and divided by, in the order of the channels
    scaling: str = "bilinear"  # as Preprocessing.scaling
    scales: Numbers = (1.0,)
    exponent: float | None = None  # of GeM, 1 the mean, infinity the maximum; None pools as the model does
    scale_norm: bool = True  # whether the descriptor of each scale is made unit before they are joined
    join: Literal["mean", "gem", "max"] = "mean"  # of the scales
    whitening: Literal["none", "after joining", "of each scale"] = "none"
    power: Literal["none", "signed root"] = "none"  # of the components, in the end

    def photo_key(self) -> tuple[object, ...]:
        """The part that makes pixels of a photo."""
        return tuple(getattr(self, name) for name in OF_PHOTOS)

    def after_pixels(self) -> "Recipe":
        """The recipe with that part as it is by default."""
        return replace(self, **{name: getattr(Recipe(), name) for name in OF_PHOTOS})


@dataclass(frozen=True, kw_only=True)
class Means:
    """What there is to try with."""

    may_pool: bool  # whether the model's pooling may be replaced by GeM of another exponent
    exponent: float | None  # of the model's pooling, where it has one
    has_whitening: bool  # a whitening was named, or ours were whitened
    may_be_negative: bool  # whether descriptors have negative components, which GeM does not take
