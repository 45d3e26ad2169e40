"""Classification losses on unit descriptors; each holds its class weights. Logits and margins are float32 even under
autocast.

Symbols: B batch, N classes, D descriptor dimensions. Every loss takes (B, D) descriptors and (B,) int64 labels and
gives a scalar, the mean over the batch. Several processes: medians and running means are over the batch of all
processes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli import distributed
from ultron_cli.errors import UltronError
from ultron_cli.training.losses.cfcd import local_loss
from ultron_cli.training.losses.settings import (
    ArcFaceSettings,
    CfcdStage2Settings,
    LossSettings,
    MadaCosSettings,
    SubcentreSettings,
)

LogNegatives = Callable[
    [int, float], torch.Tensor
]  # (row of the global batch, scale) -> ln of the sum of exp(scale cos) over its other classes


def _float(values: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


class MarginLoss(nn.Module):
    """Base: cross-entropy of scale x cosine, a margin on the target. A subclass overrides with_margin, others and
    adapt.

    scale_now, margin_now: what the last step used. n_right: of the last batch, targets nearest to their class weight,
    margin aside.
    """

    n_centres = 1
    takes_unit = True  # descriptors of unit norm; else as the network's last layer gives them
    needs_maps = False  # whether forward also takes the network's last maps

    def __init__(self, n_classes: int, dim: int, settings: LossSettings) -> None:
        super().__init__()
        self.n_classes, self.settings = n_classes, settings
        self.scale: float = getattr(settings, "scale", 1.0)
        self.margin: float = getattr(settings, "margin", 0.0)
        self.scale_now, self.margin_now = float(self.scale), float(self.margin)
        self.n_right: torch.Tensor | int = 0
        weight = torch.empty(n_classes * self.n_centres, dim)
        nn.init.xavier_uniform_(weight)
        self.first_class, n_own = 0, n_classes
        if settings.sharded:
            self.first_class, n_own = self._own_classes()
            weight = weight[self.first_class * self.n_centres : (self.first_class + n_own) * self.n_centres].clone()
        self.weight = nn.Parameter(weight)

    def _own_classes(self) -> tuple[int, int]:
        """First class and number of classes of this process's shard."""
        if self.n_classes < distributed.n_processes():
            raise UltronError(
                f"loss.sharded needs a class per process; found {self.n_classes} classes for "
                f"{distributed.n_processes()}; set loss.sharded=false"
            )
        bounds = [round(i * self.n_classes / distributed.n_processes()) for i in range(distributed.n_processes() + 1)]
        return bounds[distributed.process_index()], bounds[distributed.process_index() + 1] - bounds[
            distributed.process_index()
        ]

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) cosines to the class weights, or to those of `classes` (rows of this process's weights)."""
        weight = self.weight.view(-1, self.n_centres, self.weight.shape[1])
        weight = _float(weight if classes is None else weight[classes])
        unit = F.normalize(weight, dim=2).flatten(0, 1)
        cosines = F.normalize(_float(descriptors), dim=1).to(unit.dtype) @ unit.T
        return cosines if self.n_centres == 1 else cosines.unflatten(1, (-1, self.n_centres)).amax(2)

    def adapt(self, targets: torch.Tensor, log_negatives: LogNegatives) -> None:
        """Sets margin and scale from the (processes * B,) target cosines of the global batch, without gradient."""

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        """(B, 1) target cosines -> the same with the margin."""
        return target

    def others(self, cosines: torch.Tensor, with_margin: torch.Tensor) -> torch.Tensor:
        """(B, N) cosines -> what the classes other than the target count as. with_margin: (B, 1)."""
        return cosines

    def logits(self, cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, N) cosines -> logits with the margin on each target."""
        column = labels[:, None]
        target = cosines.gather(1, column)

        def log_negatives(row: int, scale: float) -> torch.Tensor:
            owner, own_row = divmod(row, len(labels))
            value = cosines.new_full((), -math.inf)
            if owner == distributed.process_index():
                value = torch.logsumexp(scale * cosines.detach()[own_row].index_fill(0, labels[own_row], -math.inf), 0)
            return distributed.max_over_processes(value)

        with torch.no_grad():
            self.adapt(distributed.gather_rows(target[:, 0]), log_negatives)
        with_margin = self.with_margin(target)
        return self.scale * self.others(cosines, with_margin).scatter(1, column, with_margin)

    def forward(self, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(descriptors.device.type, enabled=False):
            if self.settings.sample_rate < 1.0 or self.settings.sharded:
                from ultron_cli.training.losses.partial_fc import partial_loss

                loss = partial_loss(self, descriptors, labels)
            else:
                cosines = self.cosines(descriptors)
                self.n_right = (cosines.detach().argmax(1) == labels).sum()
                loss = F.cross_entropy(self.logits(cosines, labels), labels)
        self.scale_now, self.margin_now = float(self.scale), float(self.margin)
        return loss


class Softmax(MarginLoss):
    """Plain softmax: a linear classifier without bias, logits = class weight . descriptor, no normalisation of the
    weights."""

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) inner products with the class weights."""
        return (
            _float(descriptors).to(self.weight.dtype)
            @ _float(self.weight if classes is None else self.weight[classes]).T
        )


class Linear(Softmax):
    """The classifier of networks for classification: a linear layer with bias on descriptors that are not brought to
    unit norm."""

    takes_unit = False

    def __init__(self, n_classes: int, dim: int, settings: LossSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) class scores."""
        return F.linear(
            _float(descriptors).to(self.weight.dtype),
            *((p if classes is None else p[classes]) for p in (self.weight, self.bias)),
        )


class CosFace(MarginLoss):
    """Additive cosine margin (Wang et al., CVPR 2018, eq. 4): the target's logit is scale (cos - margin)."""

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        return target - self.margin


class ArcFace(MarginLoss):
    """Additive angular margin (Deng et al., CVPR 2019, eq. 3): the target's logit is scale cos(angle + margin).

    Beyond angle + margin > pi the logit continues linearly (cos angle - margin sin margin), so that it stays monotone.
    With `curricular` a class whose cosine exceeds the target's with margin counts as cos (t + cos), t the running mean
    of the target cosines (0.01 new).
    """

    settings: ArcFaceSettings

    def __init__(self, n_classes: int, dim: int, settings: ArcFaceSettings) -> None:
        super().__init__(n_classes, dim, settings)
        if settings.curricular:
            self.register_buffer("running_target", torch.zeros(()))

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        # The gradient of the square root is infinite at 0, which a descriptor on its class weight would reach.
        sine = (1.0 - target.square()).clamp(min=1e-7).sqrt()
        added = target * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = target - math.sin(self.margin) * self.margin
        return torch.where(target > math.cos(math.pi - self.margin), added, beyond)

    def adapt(self, targets: torch.Tensor, log_negatives: LogNegatives) -> None:
        if self.settings.curricular and self.training:
            self.running_target.mul_(0.99).add_(0.01 * targets.mean())

    def others(self, cosines: torch.Tensor, with_margin: torch.Tensor) -> torch.Tensor:
        if not self.settings.curricular:
            return cosines
        return torch.where(cosines > with_margin.detach(), cosines * (self.running_target + cosines), cosines)


class SubcentreArcFace(ArcFace):
    """ArcFace with several weights per class, the nearest of which counts (Deng et al., ECCV 2020)."""

    def __init__(self, n_classes: int, dim: int, settings: SubcentreSettings) -> None:
        self.n_centres = settings.centres
        super().__init__(n_classes, dim, settings)


class MadaCos(MarginLoss):
    """Margin and scale from the median target cosine m of the global batch (CFCD, Zhu et al., ICCV 2023; as in the
    authors' code).

    scale = ln(9999999 (1 - rho) / rho) / (1 - m), at least 32; margin = m - ln(B rho / (1 - rho)) / scale, at least 0,
    and 0 when not training; B = the sum of exp(scale cos) over the other classes of the sample that is the median (the
    lower one of an even number). Neither carries a gradient. logits = scale cos, the target's scale (cos - margin).
    """

    settings: MadaCosSettings
    LEAST_SCALE = 32.0

    def __init__(self, n_classes: int, dim: int, settings: MadaCosSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.scale = self.scale_now = self.LEAST_SCALE

    def adapt(self, targets: torch.Tensor, log_negatives: LogNegatives) -> None:
        rho = self.settings.rho
        median = float(targets.median())
        # A median of 1 would make the scale infinite.
        self.scale = max(math.log(9999999.0 * (1.0 - rho) / rho) / max(1.0 - median, 1e-6), self.LEAST_SCALE)
        self.margin = 0.0
        if self.training and math.isfinite(median):
            row = int((targets == median).nonzero()[0, 0])  # the first: equal on every process
            log_b = float(log_negatives(row, self.scale))
            self.margin = max(median - (log_b + math.log(rho / (1.0 - rho))) / self.scale, 0.0)

    def with_margin(self, target: torch.Tensor) -> torch.Tensor:
        return target - self.margin


class CfcdStage2(MadaCos):
    """MadaCos, and a triplet loss on local features matched within tuples (CFCD, second stage; cfcd.py). `maps`: (B, C,
    h, w)."""

    settings: CfcdStage2Settings
    needs_maps = True

    def forward(
        self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None
    ) -> torch.Tensor:
        if maps is None:
            raise ValueError("the second stage of CFCD needs the maps of the tuples")
        own = self.settings
        classification = super().forward(descriptors, labels)
        with torch.autocast(descriptors.device.type, enabled=False):
            local = local_loss(
                _float(maps), labels, own.tuple_size, margin=own.local_margin, ratio=own.ratio, attended=own.attended
            )
        return classification + own.local_weight * local
