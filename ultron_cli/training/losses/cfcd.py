"""The local part of CFCD's second stage: features matched between two photos of a landmark, against the nearest of
other landmarks.

Zhu et al., ICCV 2023, section 3.3, as in the authors' code (github.com/bassyess/CFCD, after FIRe's superfeature loss).
A batch is made of tuples: an anchor, a positive of its landmark, negatives of others. Symbols: T photos of a tuple, K =
h w places of a map, C channels, M matches. Ours: a stand-in for an unreadable photo may be of any landmark, so a
positive of another landmark gives no match and a negative of the anchor's is left out; and the loss is twice the mean
over tuples, which is the authors' sum over the two tuples of a GPU's share of a batch.
"""

import torch
import torch.nn.functional as F

TUPLES_PER_GPU = 2  # of the published configurations: 128 photos, 8 GPUs, tuples of 8


@torch.no_grad()
def match(
    anchor: torch.Tensor, positive: torch.Tensor, attention: torch.Tensor, ratio: float, attended: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (M,) of the anchor and (M,) of the positive, int64, that are each other's nearest.

    anchor, positive: (K, C) unit features. attention: (K,) of the positive, of whose places the share `attended` with
    the most counts. ratio: a place's distance to its nearest is below this share of that to its second nearest (Lowe).
    """
    if len(anchor) < 2:
        return (
            torch.empty(0, dtype=torch.int64, device=anchor.device),
        ) * 2  # a map of one place has no second nearest
    distances = torch.cdist(anchor, positive)
    two, places = distances.topk(2, dim=0, largest=False)
    nearest = places[0]
    positions = torch.arange(len(positive), device=anchor.device)
    is_attended = torch.zeros(len(positive), dtype=torch.bool, device=anchor.device)
    is_attended[attention.topk(int(attended * len(positive))).indices] = True
    kept = (distances.argmin(1)[nearest] == positions) & (two[0] < ratio * two[1]) & is_attended
    return nearest[kept], positions[kept]


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
