"""Settings of the losses, checked; margins.py has the losses themselves, and which settings go with which."""

import math
from dataclasses import dataclass

from ultron_cli.configs import within
from ultron_cli.errors import UltronError


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise UltronError(f"{name} must be positive; found {value}")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of every loss. Partial-FC (An et al., CVPR 2022): sample_rate: share of the classes that a step compares
    with, the batch's own always among them; sharded: class weights spread over the processes instead of copied."""

    sample_rate: float = 1.0
    sharded: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.sample_rate <= 1.0:
            raise UltronError(
                f"loss.sample_rate is a share of the classes, above 0 and up to 1; found {self.sample_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class CosFaceSettings(LossSettings):
    """margin: subtracted from the target cosine. scale: inverse temperature. Defaults as published."""

    margin: float = 0.35
    scale: float = 64.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive("loss.scale", self.scale)
        within("loss.margin", self.margin, 0.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class ArcFaceSettings(LossSettings):
    """margin: radians; 0 gives the normalised softmax. scale: inverse temperature. Defaults of DOLG. curricular: harder
    classes weigh more as training goes on (CurricularFace, Huang et al., CVPR 2020; in DOLG's code)."""

    margin: float = 0.15
    scale: float = 30.0
    curricular: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.margin < math.pi / 2:
            raise UltronError(f"loss.margin is an angle in radians from 0 to below pi/2; found {self.margin}")
        _positive("loss.scale", self.scale)


@dataclass(frozen=True, kw_only=True)
class SubcentreSettings(ArcFaceSettings):
    """centres: weights per class, of which the nearest counts; 3 as published."""

    margin: float = 0.5
    scale: float = 64.0
    centres: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.centres", self.centres, 1, 64)


@dataclass(frozen=True, kw_only=True)
class MadaCosSettings(LossSettings):
    """rho: 0.02 in CFCD's published configurations; ULTRON is said to use 0.04 (a third party's reading)."""

    rho: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rho < 1.0:
            raise UltronError(f"loss.rho must lie between 0 and 1; found {self.rho}")


@dataclass(frozen=True, kw_only=True)
class CfcdStage2Settings(MadaCosSettings):
    """Of CFCD's second stage. tuple_size: photos of a tuple (anchor, positive, negatives), which also says how batches
    are made.

    local_weight, local_margin: of the triplet loss, as in the published configurations (the authors' code reads the
    margin from there but leaves the weight at 1). ratio, attended: of the matching, cfcd.py; as in the authors' code.
    hard_negatives: photos that the starting weights take for another landmark are drawn with it, batches/tuples.py.
    """

    tuple_size: int = 8
    local_weight: float = 0.05
    local_margin: float = 0.1
    ratio: float = 0.9
    attended: float = 0.5
    hard_negatives: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.tuple_size", self.tuple_size, 3, 1024)
        within("loss.local_weight", self.local_weight, 0.0, 1000.0)
        within("loss.local_margin", self.local_margin, 0.0, 4.0)
        within("loss.ratio", self.ratio, 0.01, 1.0)
        within("loss.attended", self.attended, 0.01, 1.0)
