"""The loss of CFCD's second stage against a literal form of its local part."""

import math

import pytest
import torch
from torch import Tensor

from ultron_cli.training.losses import create_loss
from ultron_cli.training.losses.cfcd import local_loss, match


def distance(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def literal_tuple_loss(maps: Tensor, margin: float, ratio: float, attended: float) -> tuple[Tensor, int]:
    """One tuple of maps (T, C, h, w), place by place. Returns the sum and the number of matches."""
    photos = [[photo[:, y, x] for y in range(photo.shape[1]) for x in range(photo.shape[2])] for photo in maps]
    attention = [float(place.detach().abs().sum()) for place in photos[1]]
    units = [[place / place.norm() for place in places] for places in photos]
    kept_places = sorted(range(len(attention)), key=lambda i: -attention[i])[: int(attended * len(attention))]
    total, n_matches = torch.zeros((), dtype=maps.dtype), 0
    for i, p in enumerate(units[1]):
        to_anchor = sorted((distance(a, p), j) for j, a in enumerate(units[0]))
        (nearest_distance, j), (second_distance, _) = to_anchor[:2]
        back = min(range(len(units[1])), key=lambda k: distance(units[0][j], units[1][k]))
        if back != i or not nearest_distance < ratio * second_distance or i not in kept_places:
            continue
        n_matches += 1
        a = units[0][j]
        for places in units[2:]:
            n = min(places, key=lambda place: distance(a, place))
            total = total + torch.clamp(((a - p) ** 2).sum() - ((a - n) ** 2).sum() + margin, min=0)
    return total, n_matches


@pytest.fixture
def maps() -> Tensor:
    """Two tuples of 4 maps of 3 x 4 places; positives are their anchors, moved and a little changed."""
    made = torch.rand(8, 6, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for first in (0, 4):
        made[first + 1] = made[first].roll(1, 1) + 0.1 * made[first + 1]
    return made


def test_local_loss_equals_its_literal_form_and_its_gradient(maps: Tensor) -> None:
    labels = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    loss = local_loss(ours, labels, 4, margin=0.3, ratio=0.9, attended=0.5)
    parts = [literal_tuple_loss(part, 0.3, 0.9, 0.5) for part in theirs.split(4)]
    assert sum(n for _, n in parts) >= 4
    right = 2 * torch.stack([total for total, _ in parts]).mean()  # twice the mean: the sum of the authors' two tuples
    assert right > 0
    torch.testing.assert_close(loss, right)
    loss.backward()
    right.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_matches_are_mutual_distinct_and_attended() -> None:
    anchor = torch.eye(4)
    positive = torch.stack([anchor[2], anchor[0], (anchor[1] + anchor[3]) / 2**0.5, anchor[1]])
    anchors, positives = match(anchor, positive, torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.9, 1.0)
    assert list(zip(anchors.tolist(), positives.tolist(), strict=True)) == [
        (2, 0),
        (0, 1),
        (1, 3),
    ]  # place 2 lies between two of the anchor's
    assert match(anchor, positive, torch.tensor([1.0, 3.0, 2.0, 4.0]), 0.9, 0.5)[1].tolist() == [1, 3]
    assert match(anchor[:1], positive, torch.ones(4), 0.9, 1.0)[0].tolist() == []


def test_stand_ins_of_wrong_landmarks_do_not_count(maps: Tensor) -> None:
    settings = {"margin": 0.3, "ratio": 0.9, "attended": 0.5}
    assert local_loss(maps[:4], torch.tensor([0, 1, 2, 3]), 4, **settings) == 0  # the positive is of another landmark
    right, _ = literal_tuple_loss(maps[[0, 1, 3]], 0.3, 0.9, 0.5)
    torch.testing.assert_close(local_loss(maps[:4], torch.tensor([0, 0, 0, 3]), 4, **settings), 2 * right)


def test_the_loss_adds_the_local_part_to_madacos(maps: Tensor) -> None:
    torch.manual_seed(0)
    labels, descriptors = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5]), torch.randn(8, 16)
    loss = create_loss("cfcd-stage2", n_classes=6, dim=16, tuple_size=4, local_weight=0.7, local_margin=0.3)
    plain = create_loss("madacos", n_classes=6, dim=16)
    plain.load_state_dict(loss.state_dict())
    right = plain(descriptors, labels) + 0.7 * local_loss(maps.float(), labels, 4, margin=0.3, ratio=0.9, attended=0.5)
    torch.testing.assert_close(loss(descriptors, labels, maps.float()), right)
