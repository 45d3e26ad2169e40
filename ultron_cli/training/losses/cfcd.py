"""CFCD's second stage: MadaCos and a local part, features matched between two photos of a landmark, against the nearest
of other landmarks.

Zhu et al., ICCV 2023, section 3.3, as in the authors' code (github.com/bassyess/CFCD, after FIRe's superfeature loss).
A batch is made of tuples: an anchor, a positive of its landmark, negatives of others. Symbols: T photos of a tuple, K =
h w places of a map, C channels, M matches. Ours: a stand-in for an unreadable photo may be of any landmark, so a
positive of another landmark gives no match and a negative of the anchor's is left out; and the loss is twice the mean
over tuples, which is the authors' sum over the two tuples of a GPU's share of a batch.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ultron_cli.configs import within
from ultron_cli.training.losses.base import LossResult, TupleSettings, at_least_float32
from ultron_cli.training.losses.margins import MadaCos, MadaCosSettings

TUPLES_PER_GPU = 2  # of the published configurations: 128 photos, 8 GPUs, tuples of 8


@torch.no_grad()
def match(
    anchor: torch.Tensor, positive: torch.Tensor, attention: torch.Tensor, ratio: float, attended: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (M,) of the anchor and (M,) of the positive, int64, that are each other's nearest.

    anchor, positive: (K, C) unit features. attention: (K,) of the positive, of whose places the share `attended` with
    the most counts. ratio: a place's distance to its nearest is below this share of that to its second nearest (Lowe).
    """
    if len(anchor) < 2:  # a map of one place has no second nearest
        no_place = torch.empty(0, dtype=torch.int64, device=anchor.device)
        return no_place, no_place
    distances = torch.cdist(anchor, positive)
    two_least, places = distances.topk(2, dim=0, largest=False)
    nearest = places[0]
    positions = torch.arange(len(positive), device=anchor.device)
    is_attended = torch.zeros(len(positive), dtype=torch.bool, device=anchor.device)
    is_attended[attention.topk(int(attended * len(positive))).indices] = True
    is_distinct = two_least[0] < ratio * two_least[1]
    is_match = (distances.argmin(1)[nearest] == positions) & is_distinct & is_attended
    return nearest[is_match], positions[is_match]


def tuple_loss(
    features: torch.Tensor,
    attention: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: float,
    ratio: float = 0.9,
    attended: float = 0.5,
) -> torch.Tensor:
    """Sum over matches and negatives of max(0, |a - p|^2 - |a - n|^2 + margin), n the feature of a negative photo
    nearest to the anchor's a.

    features: (T, K, C) unit vectors, anchor first, positive second. attention: (T, K). labels: (T,) int64.
    """
    negatives = features[2:][labels[2:] != labels[0]]
    if labels[1] != labels[0] or not len(negatives):
        return features.new_zeros(())
    anchors, positives = match(features[0], features[1], attention[1], ratio, attended)
    if not len(anchors):
        return features.new_zeros(())
    a, p = features[0][anchors], features[1][positives]
    with torch.no_grad():
        nearest = torch.cdist(a.expand(len(negatives), -1, -1), negatives).argmin(2)  # (negatives, M)
    n = negatives.gather(1, nearest[..., None].expand(-1, -1, features.shape[2]))
    return F.relu((a - p).square().sum(1) - (a - n).square().sum(2) + margin).sum()


def local_loss(
    maps: torch.Tensor, labels: torch.Tensor, tuple_size: int, *, margin: float, ratio: float, attended: float
) -> torch.Tensor:
    """Twice the mean over tuples of their loss. maps: (B, C, h, w), tuple after tuple; a place's attention is the sum
    of its magnitudes."""
    places = maps.flatten(2).transpose(1, 2)
    attention, features = places.abs().sum(2).detach(), F.normalize(places, dim=2)
    parts = [part.split(tuple_size) for part in (features, attention, labels)]
    losses = [tuple_loss(*part, margin=margin, ratio=ratio, attended=attended) for part in zip(*parts, strict=True)]
    return TUPLES_PER_GPU * torch.stack(losses).mean()


@dataclass(frozen=True, kw_only=True)
class CfcdStage2Settings(MadaCosSettings, TupleSettings):
    """Settings of CFCD's second stage."""

    # Of the triplet loss, as in the published configurations (the authors' code reads the margin from there but leaves
    # the weight at 1).
    local_weight: float = 0.05
    local_margin: float = 0.1
    # Of the matching (match), as in the authors' code.
    ratio: float = 0.9
    attended: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        within("loss.local_weight", self.local_weight, 0.0, 1000.0)
        within("loss.local_margin", self.local_margin, 0.0, 4.0)
        within("loss.ratio", self.ratio, 0.01, 1.0)
        within("loss.attended", self.attended, 0.01, 1.0)


class CfcdStage2(MadaCos):
    """MadaCos, and a triplet loss on local features matched within tuples. maps: (B, C, h, w), tuple after tuple."""

    needs_maps = True

    def __init__(self, n_classes: int, dim: int, settings: CfcdStage2Settings) -> None:
        super().__init__(n_classes, dim, settings)
        self.local_settings = settings

    def result(self, descriptors: torch.Tensor, labels: torch.Tensor, maps: torch.Tensor | None = None) -> LossResult:
        if maps is None:
            raise ValueError("the second stage of CFCD needs the maps of the tuples")
        settings = self.local_settings
        classification = super().result(descriptors, labels)
        with torch.autocast(descriptors.device.type, enabled=False):
            local = local_loss(
                at_least_float32(maps),
                labels,
                settings.tuple_size,
                margin=settings.local_margin,
                ratio=settings.ratio,
                attended=settings.attended,
            )
        return replace(classification, loss=classification.loss + settings.local_weight * local)
