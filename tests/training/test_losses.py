"""ArcFace against its equation, and the learning-rate schedule."""

import itertools
import math

import numpy as np
import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.training.loop import rate_at
from ultron_cli.training.losses import create_loss


def literal_arcface(descriptors: np.ndarray, weight: np.ndarray, labels: np.ndarray, margin: float, scale: float) -> float:
    """Deng et al. (CVPR 2019), eq. 3: sample by sample, class by class, with the angle itself."""
    total = 0.0
    for x, label in zip(descriptors, labels, strict=True):
        logits = []
        for j, w in enumerate(weight):
            cosine = float(x @ w / (np.linalg.norm(x) * np.linalg.norm(w)))
            if j == label:
                angle = math.acos(max(-1.0, min(1.0, cosine)))
                cosine = math.cos(angle + margin) if angle + margin < math.pi else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        highest = max(logits)
        total += highest + math.log(sum(math.exp(z - highest) for z in logits)) - logits[label]
    return total / len(labels)


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 16.0), (0.15, 30.0), (0.5, 64.0)])
def test_arcface_equals_its_equation(margin: float, scale: float) -> None:
    torch.manual_seed(0)
    loss = create_loss("arcface", n_classes=5, dim=7, margin=margin, scale=scale).double()
    descriptors = torch.randn(6, 7, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    descriptors[5] = -loss.weight.detach()[0]  # angle pi: beyond it the logit goes on linearly
    value = loss.logits(loss.cosines(descriptors.float()).double(), labels)
    expected = literal_arcface(descriptors.numpy(), loss.weight.detach().numpy(), labels.numpy(), margin, scale)
    assert float(torch.nn.functional.cross_entropy(value.detach(), labels)) == pytest.approx(expected, abs=2e-4)


def test_gradient_is_finite_at_angle_zero() -> None:
    loss = create_loss("arcface", n_classes=3, dim=4)
    descriptors = loss.weight.detach()[:1].clone().requires_grad_()
    loss(descriptors, torch.tensor([0])).backward()
    assert torch.isfinite(descriptors.grad).all()


def test_logits_stay_float32_under_autocast() -> None:
    loss = create_loss("arcface", n_classes=3, dim=4)
    descriptors = torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(descriptors, torch.tensor([0, 1]))
    assert inside.dtype == torch.float32
    assert inside.item() == loss(descriptors, torch.tensor([0, 1])).item()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("arcfce", {}, "unknown loss 'arcfce'; did you mean arcface"),
        ("arcface", {"margin": 2.0}, "angle in radians"),
        ("arcface", {"scale": 0.0}, "must be positive"),
        ("arcface", {"margn": 0.1}, "unexpected keyword argument 'margn'"),
    ],
)
def test_wrong_loss_settings(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_loss(name, n_classes=3, dim=4, **settings)


def test_schedule_warms_up_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
