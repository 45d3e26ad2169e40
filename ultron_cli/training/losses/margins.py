"""Classification losses on unit descriptors, the settings of each directly above it.

Symbols: B batch, N classes, D descriptor dimensions.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.training.losses.base import ClassSettings, LogNegatives, Margin, at_least_float32
from ultron_cli.training.losses.partial_fc import PartialFcLoss


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise UltronError(f"{name} must be positive; found {value}")


class Softmax(PartialFcLoss):
    """Plain softmax: a linear classifier without bias, logits = class weight . descriptor, no normalisation of the
    weights."""

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) inner products with the class weights."""
        weight = self.weight if classes is None else self.weight[classes]
        return at_least_float32(descriptors).to(self.weight.dtype) @ at_least_float32(weight).T


class Linear(Softmax):
    """The classifier of networks for classification: a linear layer with bias on descriptors that are not brought to
    unit norm."""

    takes_unit = False

    def __init__(self, n_classes: int, dim: int, settings: ClassSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) class scores."""
        weight, bias = self.weight, self.bias
        if classes is not None:
            weight, bias = weight[classes], bias[classes]
        return F.linear(at_least_float32(descriptors).to(self.weight.dtype), weight, bias)


@dataclass(frozen=True, kw_only=True)
class CosFaceSettings(ClassSettings):
    """Settings of CosFace; the defaults are as published."""

    margin: float = 0.35  # subtracted from the target cosine, 0..2
    scale: float = 64.0  # inverse temperature

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive("loss.scale", self.scale)
        within("loss.margin", self.margin, 0.0, 2.0)


class CosFace(PartialFcLoss):
    """Additive cosine margin (Wang et al., CVPR 2018, eq. 4): the target's logit is scale (cos - margin)."""

    def with_margin(self, target: torch.Tensor, margin: float) -> torch.Tensor:
        return target - margin


@dataclass(frozen=True, kw_only=True)
class ArcFaceSettings(ClassSettings):
    """Settings of ArcFace; the defaults are DOLG's."""

    margin: float = 0.15  # radians, from 0 to below pi/2; 0 gives the normalised softmax
    scale: float = 30.0  # inverse temperature
    # Harder classes weigh more as training goes on (CurricularFace, Huang et al., CVPR 2020; in DOLG's code).
    curricular: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.margin < math.pi / 2:
            raise UltronError(f"loss.margin is an angle in radians from 0 to below pi/2; found {self.margin}")
        _positive("loss.scale", self.scale)


class ArcFace(PartialFcLoss):
    """Additive angular margin (Deng et al., CVPR 2019, eq. 3): the target's logit is scale cos(angle + margin).

    Beyond angle + margin > pi the logit continues linearly (cos angle - margin sin margin), so that it stays monotone.
    With `curricular` a class whose cosine exceeds cos(angle + margin) counts as cos (t + cos), t the running mean of
    the target cosines (0.01 new). Beyond pi it is compared with that cosine too, though the logit is another, as in
    DOLG's code.
    """

    running_target: torch.Tensor  # t, a scalar; with `curricular` only

    def __init__(self, n_classes: int, dim: int, settings: ArcFaceSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.is_curricular = settings.curricular
        if self.is_curricular:
            self.register_buffer("running_target", torch.zeros(()))

    def cosine_with_margin(self, target: torch.Tensor, margin: float) -> torch.Tensor:
        """(B, 1) cosines of angles -> those of angle + margin."""
        # The gradient of the square root is infinite at 0, which a descriptor on its class weight would reach.
        sine = (1.0 - target.square()).clamp(min=1e-7).sqrt()
        return target * math.cos(margin) - sine * math.sin(margin)

    def with_margin(self, target: torch.Tensor, margin: float) -> torch.Tensor:
        beyond = target - math.sin(margin) * margin
        return torch.where(target > math.cos(math.pi - margin), self.cosine_with_margin(target, margin), beyond)

    def margin_of(self, targets: torch.Tensor, log_negatives: LogNegatives) -> Margin:
        if self.is_curricular and self.training:
            self.running_target.mul_(0.99).add_(0.01 * targets.mean())
        return self.fixed_margin

    def others(self, cosines: torch.Tensor, target: torch.Tensor, margin: float) -> torch.Tensor:
        if not self.is_curricular:
            return cosines
        is_hard = cosines > self.cosine_with_margin(target.detach(), margin)
        return torch.where(is_hard, cosines * (self.running_target + cosines), cosines)


@dataclass(frozen=True, kw_only=True)
class SubcentreSettings(ArcFaceSettings):
    """Settings of sub-centre ArcFace."""

    margin: float = 0.5
    scale: float = 64.0
    centres: int = 3  # weights per class, of which the nearest counts; 3 as published

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.centres", self.centres, 1, 64)


class SubcentreArcFace(ArcFace):
    """ArcFace with several weights per class, the nearest of which counts (Deng et al., ECCV 2020)."""

    def __init__(self, n_classes: int, dim: int, settings: SubcentreSettings) -> None:
        self.n_centres = settings.centres  # first: the base makes so many weights per class
        super().__init__(n_classes, dim, settings)


@dataclass(frozen=True, kw_only=True)
class MadaCosSettings(ClassSettings):
    """Settings of MadaCos."""

    rho: float = 0.02  # in CFCD's published configurations; ULTRON is said to use 0.04 (a third party's reading)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rho < 1.0:
            raise UltronError(f"loss.rho must lie between 0 and 1; found {self.rho}")


class MadaCos(PartialFcLoss):
    """Margin and scale from the median target cosine m of the global batch (CFCD, Zhu et al., ICCV 2023; as in the
    authors' code).

    scale = ln(9999999 (1 - rho) / rho) / (1 - m), at least 32; margin = m - ln(B rho / (1 - rho)) / scale, at least 0,
    and 0 when not training; B = the sum of exp(scale cos) over the other classes of the sample that is the median (the
    lower one of an even number). Neither carries a gradient. logits = scale cos, the target's scale (cos - margin).
    """

    LEAST_SCALE = 32.0

    def __init__(self, n_classes: int, dim: int, settings: MadaCosSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.rho = settings.rho

    def margin_of(self, targets: torch.Tensor, log_negatives: LogNegatives) -> Margin:
        median = float(targets.median())
        # A median of 1 would make the scale infinite.
        scale = max(math.log(9999999.0 * (1.0 - self.rho) / self.rho) / max(1.0 - median, 1e-6), self.LEAST_SCALE)
        margin = 0.0
        if self.training and math.isfinite(median):
            row = int((targets == median).nonzero()[0, 0])  # the first: equal on every process
            log_b = float(log_negatives(row, scale))
            margin = max(median - (log_b + math.log(self.rho / (1.0 - self.rho))) / scale, 0.0)
        return Margin(margin=margin, scale=scale)

    def with_margin(self, target: torch.Tensor, margin: float) -> torch.Tensor:
        return target - margin
