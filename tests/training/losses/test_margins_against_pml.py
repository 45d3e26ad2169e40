"""The losses against pytorch-metric-learning's of the same name: value and gradients, with the same weights,
descriptors and labels.

Equal are ArcFace (also beyond pi - margin, where both go on as cos(angle) - margin sin(margin)), CosFace, sub-centre
ArcFace and the normalised softmax, for descriptors of any length. They differ in one place, tested last: a descriptor
within 3e-4 radians of its class weight, where ours keeps the sine at 3e-4 and with it the gradient finite; theirs has
none at 0. Left out, as they have no counterpart there: curricular ArcFace, MadaCos, the softmax without normalised
weights. Theirs: (D, N) weights, ArcFace's margin in degrees, a temperature of 1 / scale.
"""

import math

import pytest
import torch
from torch.nn.functional import normalize

from ultron_cli.training.losses import MarginLoss, create_loss

theirs = pytest.importorskip("pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed")

N_CLASSES, DIM, BATCH = 11, 16, 24
TOLERANCE = {
    torch.float32: 1e-5,
    torch.float64: 1e-10,
}  # float32: cosines are good to 1e-7, logits are 64 times as long


def batch(weight: torch.Tensor, n_centres: int, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, D) descriptors of lengths 0.5 to 2 and (B,) labels. place: about their class weights, anywhere, or about the
    opposite of them."""
    labels = torch.arange(BATCH) % N_CLASSES
    centres = normalize(weight.view(N_CLASSES, n_centres, DIM)[labels, torch.arange(BATCH) % n_centres], dim=1)
    towards = {"near": 1.0, "anywhere": 0.0, "opposite": -1.0}[place]
    noise = 0.15 * torch.randn(BATCH, DIM, dtype=weight.dtype)  # about 0.6 long
    return normalize(towards * centres + noise, dim=1) * torch.linspace(0.5, 2.0, BATCH, dtype=weight.dtype)[
        :, None
    ], labels


def value_and_gradients(
    loss: torch.nn.Module, weight: torch.nn.Parameter, descriptors: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """[(), (B, D), weight's shape]: the loss and its gradients with respect to descriptors and weights."""
    descriptors = descriptors.clone().requires_grad_()
    value = loss(descriptors, labels)
    return [value.detach(), *torch.autograd.grad(value, [descriptors, weight])]


def assert_equal(ours: MarginLoss, their: torch.nn.Module, descriptors: torch.Tensor, labels: torch.Tensor) -> None:
    """Value and both gradients; ours takes its weights over from theirs."""
    their.W.data = ours.weight.detach().T.clone()
    our_values = value_and_gradients(ours, ours.weight, descriptors, labels)
    value, of_descriptors, of_weight = value_and_gradients(their, their.W, descriptors, labels)
    tolerance = TOLERANCE[descriptors.dtype]
    assert our_values[1].abs().max() > 1e-3  # there is something to compare
    for a, b in zip(our_values, (value, of_descriptors, of_weight.T), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def make(name: str, dtype: torch.dtype, **settings: object) -> MarginLoss:
    torch.manual_seed(0)
    return create_loss(name, n_classes=N_CLASSES, dim=DIM, **settings).to(dtype)


everywhere = pytest.mark.parametrize("place", ["near", "anywhere", "opposite"])
both_types = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@both_types
@everywhere
@pytest.mark.parametrize(("margin", "scale"), [(0.15, 30.0), (0.5, 64.0), (1.2, 16.0)])
def test_arcface(margin: float, scale: float, place: str, dtype: torch.dtype) -> None:
    ours = make("arcface", dtype, margin=margin, scale=scale)
    descriptors, labels = batch(ours.weight.detach(), 1, place)
    angles = ours.cosines(descriptors).detach().gather(1, labels[:, None]).acos()
    assert place != "opposite" or margin < 0.5 or (angles > math.pi - margin).any()  # both branches are compared
    assert_equal(
        ours, theirs.ArcFaceLoss(N_CLASSES, DIM, margin=math.degrees(margin), scale=scale), descriptors, labels
    )


@both_types
@everywhere
@pytest.mark.parametrize(("margin", "scale"), [(0.0, 16.0), (0.35, 64.0)])
def test_cosface(margin: float, scale: float, place: str, dtype: torch.dtype) -> None:
    ours = make("cosface", dtype, margin=margin, scale=scale)
    assert_equal(
        ours, theirs.CosFaceLoss(N_CLASSES, DIM, margin=margin, scale=scale), *batch(ours.weight.detach(), 1, place)
    )


@both_types
@everywhere
@pytest.mark.parametrize("centres", [1, 3])
def test_subcentre_arcface(centres: int, place: str, dtype: torch.dtype) -> None:
    ours = make("subcentre-arcface", dtype, margin=0.5, scale=64.0, centres=centres)
    their = theirs.SubCenterArcFaceLoss(
        num_classes=N_CLASSES, embedding_size=DIM, margin=math.degrees(0.5), scale=64.0, sub_centers=centres
    )
    assert_equal(ours, their, *batch(ours.weight.detach(), centres, place))


@both_types
@everywhere
@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_without_a_margin_both_are_the_normalised_softmax(name: str, place: str, dtype: torch.dtype) -> None:
    ours = make(name, dtype, margin=0.0, scale=20.0)
    assert_equal(
        ours, theirs.NormalizedSoftmaxLoss(N_CLASSES, DIM, temperature=1 / 20.0), *batch(ours.weight.detach(), 1, place)
    )


def test_on_a_class_weight_the_floor_under_our_sine_lowers_the_logit() -> None:
    ours, their = (
        make("arcface", torch.float32, margin=0.5),
        theirs.ArcFaceLoss(N_CLASSES, DIM, margin=math.degrees(0.5)),
    )
    angle = torch.tensor([0.0, 1e-4, 3e-3, math.pi])
    our_logits, expected = (
        ours.with_margin(angle.cos()[:, None], 0.5)[:, 0],
        their.modify_cosine_of_target_classes(angle.cos()),
    )
    torch.testing.assert_close(our_logits[2:], expected[2:], rtol=0.0, atol=1e-6)
    torch.testing.assert_close(
        expected[:2] - our_logits[:2], torch.full((2,), math.sqrt(1e-7) * math.sin(0.5)), rtol=1e-2, atol=0.0
    )
