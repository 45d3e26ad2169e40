"""What every loss is (Loss), and the base of those with class weights (MarginLoss): cross-entropy of scale x cosine to
the class weights, with a margin on the target.

Symbols: B batch, N classes, D descriptor dimensions. Every loss takes (B, D) descriptors and (B,) int64 labels and
gives a scalar. Logits and margins are float32 even under autocast. With several processes, medians and running means
are over the batch of all of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli import distributed
from ultron_cli.configs import within
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    from ultron_cli.training.losses.batch import BatchSettings

LogNegatives = Callable[[int, float], torch.Tensor]
"""(row of the global batch, scale) -> ln of the sum of exp(scale cos) over the row's other classes."""


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """float64 as it is, everything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of every loss. What a run asks of them has an answer here, which a loss may replace."""

    # Which photos form a batch. "shuffled": all of them in any order; or an import path (batches/of_users.py).
    batches: str = "shuffled"
    # Of batches by import path.
    batches_settings: dict[str, object] | None = None

    @property
    def kinds_of_batches(self) -> tuple[str, ...]:
        """What `batches` may be, beside an import path."""
        return ("shuffled",)

    @property
    def photos_together(self) -> int:
        """Photos that one part of a batch must hold together: a batch is divided among processes and `accumulate`
        parts between such groups only."""
        return 1

    @property
    def together_text(self) -> str:
        """The setting, or what is made of settings, that photos_together follows; empty where it is 1."""
        return ""

    @property
    def of_batches(self) -> "BatchSettings | None":
        """These settings where the loss compares the photos of a batch (batch.py); None for the others."""
        return None

    @property
    def of_tuples(self) -> "TupleSettings | None":
        """These settings where the loss works on tuples of photos; None for the others."""
        return None

    @property
    def has_class_weights(self) -> bool:
        """Whether the loss is a MarginLoss, by whose class weights photos can be classified."""
        return False

    @property
    def has_shards(self) -> bool:
        """Whether each process holds a part of the class weights of its own."""
        return False


@dataclass(frozen=True, kw_only=True)
class ClassSettings(LossSettings):
    """Settings of every loss with class weights; both are of Partial-FC (An et al., CVPR 2022)."""

    # Share of the classes that a step compares with, above 0 and up to 1. The batch's own classes are always among
    # them.
    sample_rate: float = 1.0
    # The class weights are spread over the processes instead of copied.
    sharded: bool = False

    @property
    def has_class_weights(self) -> bool:
        return True

    @property
    def has_shards(self) -> bool:
        return self.sharded

    def __post_init__(self) -> None:
        if not 0.0 < self.sample_rate <= 1.0:
            raise UltronError(
                f"loss.sample_rate is a share of the classes, above 0 and up to 1; found {self.sample_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class TupleSettings(ClassSettings):
    """Settings of a loss that works on tuples of photos; they say how batches are made (batches/tuples.py)."""

    # Photos of a tuple: an anchor, a positive of its landmark, negatives of others.
    tuple_size: int = 8
    # Photos that the starting weights take for another landmark are drawn with it.
    hard_negatives: bool = True

    @property
    def photos_together(self) -> int:
        return self.tuple_size

    @property
    def together_text(self) -> str:
        return "loss.tuple_size"

    @property
    def of_tuples(self) -> "TupleSettings":
        return self

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.tuple_size", self.tuple_size, 3, 1024)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The margin and the scale (inverse temperature) that a step uses; neither carries a gradient."""

    margin: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LossResult:
    """The loss of a batch, and what is logged beside it."""

    # Scalar with gradient: the mean over this process's photos, or, of a loss that gathers the photos of all processes
    # (distributed.gather_batch), that of the global batch on every process.
    loss: torch.Tensor
    # Photos of the batch that are recognised; a scalar without gradient. With class weights: the target is nearest to
    # its class weight, margin aside; without: see nearest_is_right. Where the loss is that of the global batch, this is
    # this process's equal part of the count.
    n_right: torch.Tensor
    # What the step used.
    margin: float = 0.0
    scale: float = 1.0


class Loss(nn.Module):
    """What a run asks of a loss: `result`, and what it says of itself beside it.

    Its parameters are optimised with the network's, and their gradients averaged over the processes. Its parameters and
    buffers are all that the next step may depend on: checkpoints hold them, so that a run resumes exactly. It never
    changes the descriptors of the network, which are used without it.
    """

    # Whether the loss takes descriptors of unit norm, or else as the network's last layer gives them.
    takes_unit: bool = True
    # Whether the loss also takes the network's last maps.
    needs_maps: bool = False
    # What the dataclass of its settings derives.
    settings_base: type[LossSettings] = LossSettings

    def __init__(self, n_classes: int, dim: int, settings: LossSettings) -> None:
        """n_classes: landmarks that are trained on. dim: of the descriptors."""
        super().__init__()
        self.n_classes = n_classes
        self.dim = dim
        self.settings = settings

    def result(self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None) -> LossResult:
        """The loss of (B, D) descriptors and (B,) int64 labels of this process, and what is logged beside it.

        maps: the network's last maps (B, C, h, w), for a loss with `needs_maps`; the others leave them alone.
        """
        raise NotImplementedError

    def chance(self, n_photos: int) -> float:
        """Share of `n_right` that guessing gives, 0..1. n_photos: of the batch that is compared."""
        raise NotImplementedError

    def forward(
        self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The scalar loss alone."""
        return self.result(descriptors, labels, maps).loss


@torch.no_grad()
def nearest_is_right(descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) bool: whether the nearest other photo of the batch is of the same landmark. descriptors: (B, D) of unit
    norm."""
    similarities = (descriptors @ descriptors.T).fill_diagonal_(-math.inf)
    return labels[similarities.argmax(1)] == labels


class MarginLoss(Loss):
    """Base of the losses with class weights. A subclass overrides cosines, margin_of, with_margin or others; `result`
    joins them."""

    settings: ClassSettings
    settings_base = ClassSettings
    # Weights per class.
    n_centres: int = 1
    # Number of the first class whose weights this process holds; above 0 only with sharded class weights.
    first_class: int = 0

    def __init__(self, n_classes: int, dim: int, settings: ClassSettings) -> None:
        super().__init__(n_classes, dim, settings)
        self.fixed_margin = Margin(
            margin=float(getattr(settings, "margin", 0.0)), scale=float(getattr(settings, "scale", 1.0))
        )
        weight = torch.empty(n_classes * self.n_centres, dim)
        nn.init.xavier_uniform_(weight)
        self.weight = nn.Parameter(weight)

    @property
    def n_local_classes(self) -> int:
        """Number of classes whose weights this process holds."""
        return len(self.weight) // self.n_centres

    def cosines(self, descriptors: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """(B, D) -> (B, N) cosines to the class weights, or to those of `classes` (rows of this process's weights)."""
        weight = self.weight.view(-1, self.n_centres, self.weight.shape[1])
        weight = at_least_float32(weight if classes is None else weight[classes])
        unit = F.normalize(weight, dim=2).flatten(0, 1)
        cosines = F.normalize(at_least_float32(descriptors), dim=1).to(unit.dtype) @ unit.T
        return cosines if self.n_centres == 1 else cosines.unflatten(1, (-1, self.n_centres)).amax(2)

    def margin_of(self, targets: torch.Tensor, log_negatives: LogNegatives) -> Margin:
        """The margin and scale of a step from the (processes * B,) target cosines of the global batch, without
        gradient."""
        return self.fixed_margin

    def with_margin(self, target: torch.Tensor, margin: float) -> torch.Tensor:
        """(B, 1) target cosines -> the same with the margin."""
        return target

    def others(self, cosines: torch.Tensor, target: torch.Tensor, margin: float) -> torch.Tensor:
        """(B, N) cosines -> what the classes other than the target count as. target: (B, 1) cosines, margin aside."""
        return cosines

    def logits(self, cosines: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, Margin]:
        """(B, N) cosines -> logits with the margin on each target, and the margin and scale that they have."""
        column = labels[:, None]
        target = cosines.gather(1, column)

        def log_negatives(row: int, scale: float) -> torch.Tensor:
            process, local_row = divmod(row, len(labels))
            value = cosines.new_full((), -math.inf)
            if process == distributed.process_index():
                negatives = scale * cosines.detach()[local_row].index_fill(0, labels[local_row], -math.inf)
                value = torch.logsumexp(negatives, 0)
            return distributed.max_over_processes(value)

        with torch.no_grad():
            margin = self.margin_of(distributed.gather_rows(target[:, 0]), log_negatives)
        with_margin = self.with_margin(target, margin.margin)
        return margin.scale * self.others(cosines, target, margin.margin).scatter(1, column, with_margin), margin

    def classify(self, descriptors: torch.Tensor, labels: torch.Tensor) -> LossResult:
        """The classification loss with all class weights in this process."""
        cosines = self.cosines(descriptors)
        n_right = (cosines.detach().argmax(1) == labels).sum()
        logits, margin = self.logits(cosines, labels)
        return LossResult(
            loss=F.cross_entropy(logits, labels), n_right=n_right, margin=margin.margin, scale=margin.scale
        )

    def result(self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None) -> LossResult:
        with torch.autocast(descriptors.device.type, enabled=False):
            return self.classify(descriptors, labels)

    def chance(self, n_photos: int) -> float:
        return 1.0 / max(1.0, self.n_classes * self.settings.sample_rate)
