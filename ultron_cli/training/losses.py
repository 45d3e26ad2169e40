"""Classification losses on unit descriptors; each holds its class weights. Logits and margins are float32 even under autocast."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError, nearest_names


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019): the target's logit is scale cos(angle + margin).

    n_classes, dim: shape of the class weights. margin: radians; 0 gives the normalised softmax. scale: inverse temperature.
    forward: (B, D) unit descriptors, (B,) int64 labels -> scalar.
    Beyond angle + margin > pi the logit continues linearly (cos angle - margin sin margin), so that it stays monotone.
    """

    def __init__(self, n_classes: int, dim: int, margin: float = 0.15, scale: float = 30.0) -> None:
        super().__init__()
        if not 0.0 <= margin < math.pi / 2:
            raise UltronError(f"loss.margin is an angle in radians from 0 to below pi/2; found {margin}")
        if scale <= 0:
            raise UltronError(f"loss.scale must be positive; found {scale}")
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(n_classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def cosines(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, n_classes) cosines to the class weights."""
        return F.normalize(descriptors.float(), dim=1) @ F.normalize(self.weight.float(), dim=1).T

    def logits(self, cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, n_classes) cosines -> logits with the margin on each target."""
        target = cosines.gather(1, labels[:, None])
        # The gradient of the square root is infinite at 0, which a descriptor on its class weight would reach.
        sine = (1.0 - target.square()).clamp(min=1e-7).sqrt()
        with_margin = target * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = target - math.sin(self.margin) * self.margin
        target = torch.where(target > math.cos(math.pi - self.margin), with_margin, beyond)
        return self.scale * cosines.scatter(1, labels[:, None], target)

    def forward(self, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(descriptors.device.type, enabled=False):
            return F.cross_entropy(self.logits(self.cosines(descriptors), labels), labels)


LOSSES = {"arcface": ArcFace}


def create_loss(name: str, *, n_classes: int, dim: int, **settings: Any) -> nn.Module:
    """A loss by name with its settings. Raises UltronError for an unknown name or setting."""
    if name not in LOSSES:
        raise UltronError(f"unknown loss {name!r}{nearest_names(name, LOSSES)} (known: {', '.join(LOSSES)})")
    try:
        return LOSSES[name](n_classes, dim, **settings)
    except TypeError as error:
        raise UltronError(f"loss {name}: {str(error).split('__init__() ')[-1]}; see its settings in the documentation") from error
