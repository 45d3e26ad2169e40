"""What a network expects of its photos."""

import math
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """RGB scaled to 0..1, minus `mean`, divided by `sd`."""

    mean: tuple[float, ...]  # of red, green, blue
    sd: tuple[float, ...]
    interpolation: str = "bicubic"  # the filter that brings photos to size
    # How photos are brought to further scales (retrieval/extraction/scales.py); a method's published code decides it.
    scaling: Literal["bilinear", "bilinear-rounded", "antialias", "area"] = "bilinear"
    # How the edges of a query's box become whole pixels: rounded as in cirtorch, or truncated as in DOLG, CVNet, SENet
    # and CFCD.
    box_edges: Literal["rounded", "truncated"] = "rounded"

    def fault(self) -> str | None:
        """What makes it useless, for one that was read from a file; None if nothing does."""
        for name, values in (("mean", self.mean), ("sd", self.sd)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                return f"{name} must be three finite numbers, found {list(values)}"
        return None if min(self.sd) > 0 else f"sd must be above 0, found {list(self.sd)}"

    def to_dict(self) -> dict[str, object]:
        """Plain data, as stored in results; but for the edges of boxes, which concern only what was cropped."""
        values = asdict(self)
        del values["box_edges"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225))
# CIFAR-10's: those of AutoLA's code to four digits.
CIFAR = Preprocessing(mean=(0.4914, 0.4822, 0.4465), sd=(0.2470, 0.2435, 0.2616))
