"""The losses against literal transcriptions of their equations, in float64."""

import pytest
import torch

from tests.training.losses import literal_losses as literal
from ultron_cli.errors import UltronError
from ultron_cli.training.losses import MarginLoss, create_loss

LABELS = [0, 1, 2, 3, 4, 0, 2]


def make(
    name: str, n_classes: int = 5, dim: int = 7, **settings: object
) -> tuple[MarginLoss, torch.Tensor, torch.Tensor]:
    """A loss in float64 with (7, dim) descriptors near their class weights, as halfway through training."""
    torch.manual_seed(0)
    loss = create_loss(name, n_classes=n_classes, dim=dim, **settings).double()
    labels = torch.tensor(LABELS)
    first = loss.weight.detach()[:: loss.n_centres]
    descriptors = torch.nn.functional.normalize(
        torch.nn.functional.normalize(first[labels], dim=1) + 0.4 * torch.randn(len(labels), dim), dim=1
    )
    return loss, descriptors, labels


def plain(loss: MarginLoss, descriptors: torch.Tensor) -> tuple:
    return descriptors.numpy(), loss.weight.detach().numpy(), LABELS


def test_softmax_equals_its_equation() -> None:
    loss, descriptors, labels = make("softmax")
    assert loss(descriptors, labels).item() == pytest.approx(literal.softmax(*plain(loss, descriptors)), abs=1e-12)


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 16.0), (0.35, 64.0)])
def test_cosface_equals_its_equation(margin: float, scale: float) -> None:
    loss, descriptors, labels = make("cosface", margin=margin, scale=scale)
    assert loss(descriptors, labels).item() == pytest.approx(
        literal.cosface(*plain(loss, descriptors), margin, scale), abs=1e-11
    )


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 16.0), (0.15, 30.0), (0.5, 64.0)])
def test_arcface_equals_its_equation(margin: float, scale: float) -> None:
    loss, descriptors, labels = make("arcface", margin=margin, scale=scale)
    descriptors[5] = -torch.nn.functional.normalize(
        loss.weight.detach()[0], dim=0
    )  # angle pi: beyond it the logit goes on linearly
    # At angle pi the sine is 0; the floor under its root, which keeps the gradient finite, moves the logit by scale x
    # 3e-4.
    assert loss(descriptors, labels).item() == pytest.approx(
        literal.arcface(*plain(loss, descriptors), margin, scale), abs=1e-9
    )


@pytest.mark.parametrize("centres", [1, 3])
def test_subcentre_arcface_equals_its_equation(centres: int) -> None:
    loss, descriptors, labels = make("subcentre-arcface", margin=0.3, scale=32.0, centres=centres)
    assert loss.weight.shape == (5 * centres, 7)
    assert loss(descriptors, labels).item() == pytest.approx(
        literal.arcface(*plain(loss, descriptors), 0.3, 32.0, centres), abs=1e-11
    )


def test_curricular_arcface_equals_its_equation_over_several_steps() -> None:
    loss, descriptors, labels = make("arcface", margin=0.4, scale=30.0, curricular=True)
    t = 0.0
    for _ in range(4):
        expected, t = literal.curricular(*plain(loss, descriptors), 0.4, 30.0, t)
        assert loss(descriptors, labels).item() == pytest.approx(expected, abs=1e-11)
    loss.eval()
    loss(descriptors, labels)
    assert float(loss.running_target) == pytest.approx(t, abs=1e-12)  # an evaluation leaves it alone


@pytest.mark.parametrize("settings", [{}, {"sharded": True}])
def test_curricular_arcface_where_angle_and_margin_pass_pi(settings: dict[str, object]) -> None:
    """A class as far away as the target is not hard there: its cosine lies below cos(angle + margin)."""
    loss, descriptors, labels = make("arcface", margin=0.4, scale=30.0, curricular=True, **settings)
    descriptors = descriptors.clone()
    with torch.no_grad():
        loss.weight[1] = loss.weight[0] + 0.02 * torch.randn(7).double()  # at cosine -0.998 beside the target's -1
        descriptors[5] = -torch.nn.functional.normalize(loss.weight[0] + 0.01 * torch.randn(7).double(), dim=0)
    cosines = loss.cosines(descriptors[5:6])[0].detach()
    beyond = cosines[0] - 0.4 * torch.tensor(0.4).sin()
    assert beyond < cosines[1] < torch.cos(torch.acos(cosines[0]) + 0.4) and torch.acos(cosines[0]) > torch.pi - 0.4
    expected, _ = literal.curricular(*plain(loss, descriptors), 0.4, 30.0, 0.0)
    assert loss(descriptors, labels).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rho", [0.02, 0.04, 0.5])
@pytest.mark.parametrize("n_photos", [6, 7])  # an even number has two medians: the lower one
def test_madacos_equals_its_equation(rho: float, n_photos: int) -> None:
    loss, descriptors, labels = make("madacos", rho=rho)
    result = loss.result(descriptors[:n_photos], labels[:n_photos])
    expected, margin, scale = literal.madacos(
        descriptors[:n_photos].numpy(), loss.weight.detach().numpy(), LABELS[:n_photos], rho
    )
    assert result.loss.item() == pytest.approx(expected, abs=1e-10)
    assert (result.margin, result.scale) == (pytest.approx(margin, abs=1e-12), pytest.approx(scale))


def test_madacos_bounds_and_evaluation() -> None:
    loss, descriptors, labels = make("madacos")
    hopeless = loss.result(-descriptors, labels)  # the least scale, no margin below 0
    assert (hopeless.scale, hopeless.margin) == (32.0, 0.0)
    exact = torch.nn.functional.normalize(loss.weight.detach()[labels], dim=1).requires_grad_()
    loss(exact, labels).backward()  # the median cosine is 1: nothing overflows
    assert torch.isfinite(exact.grad).all()
    loss.eval()
    evaluated = loss.result(descriptors, labels)
    assert evaluated.margin == 0.0
    assert evaluated.scale > 32.0


def test_margin_and_scale_of_madacos_carry_no_gradient() -> None:
    loss, descriptors, labels = make("madacos")
    result = loss.result(descriptors.requires_grad_(), labels)
    result.loss.backward()
    fixed = create_loss("cosface", n_classes=5, dim=7, margin=result.margin, scale=result.scale).double()
    fixed.load_state_dict(loss.state_dict())
    copy = descriptors.detach().clone().requires_grad_()
    fixed(copy, labels).backward()
    assert torch.allclose(descriptors.grad, copy.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "arcface", "cosface", "subcentre-arcface", "madacos"])
def test_gradients(name: str) -> None:
    loss, descriptors, labels = make(name)
    loss.eval()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels) if name != "madacos" else loss.cosines(x).sum(), (descriptors.requires_grad_(),)
    )


def test_gradient_is_finite_at_angle_zero() -> None:
    loss = create_loss("arcface", n_classes=3, dim=4)
    descriptors = loss.weight.detach()[:1].clone().requires_grad_()
    loss(descriptors, torch.tensor([0])).backward()
    assert torch.isfinite(descriptors.grad).all()


@pytest.mark.parametrize("name", ["softmax", "arcface", "cosface", "subcentre-arcface", "madacos"])
def test_logits_stay_float32_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    loss = create_loss(name, n_classes=3, dim=4)
    descriptors = torch.nn.functional.normalize(torch.randn(2, 4), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(descriptors, torch.tensor([0, 1]))
    assert inside.dtype == torch.float32
    assert inside.item() == loss(descriptors, torch.tensor([0, 1])).item()


@pytest.mark.parametrize("name", ["arcface", "cosface", "subcentre-arcface", "madacos"])
def test_partial_loss_with_all_classes_is_the_loss(name: str) -> None:
    whole, descriptors, labels = make(name)
    part, _, _ = make(name, sharded=True)
    assert torch.equal(whole.weight, part.weight)
    whole_input, part_input = descriptors.clone().requires_grad_(), descriptors.clone().requires_grad_()
    a, b = whole.result(whole_input, labels), part.result(part_input, labels)
    a.loss.backward()
    b.loss.backward()
    assert a.loss.item() == pytest.approx(b.loss.item(), abs=1e-12)
    assert torch.allclose(whole_input.grad, part_input.grad, rtol=0, atol=1e-12)
    assert torch.allclose(whole.weight.grad, part.weight.grad, rtol=0, atol=1e-12)
    assert int(a.n_right) == int(b.n_right)


def test_sampled_classes_hold_the_batch_and_move_alone() -> None:
    from ultron_cli.training.losses.partial_fc import sample_classes

    torch.manual_seed(1)
    classes = sample_classes(torch.tensor([7, 3, 7]), 100, 0.1)
    assert len(classes) == 10
    assert {3, 7} <= set(classes.tolist())
    assert len(sample_classes(torch.tensor([1, 2, 3]), 100, 0.01)) == 3
    loss = create_loss("arcface", n_classes=100, dim=8, sample_rate=0.1)
    descriptors, labels = torch.nn.functional.normalize(torch.randn(3, 8), dim=1), torch.tensor([7, 3, 7])
    torch.manual_seed(1)
    value = loss(descriptors, labels)
    value.backward()
    moved = loss.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert moved.tolist() == classes.tolist()
    small = create_loss("arcface", n_classes=10, dim=8)
    small.weight.data = loss.weight.data[classes]
    assert value.item() == pytest.approx(small(descriptors, torch.searchsorted(classes, labels)).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("arcfce", {}, "unknown loss 'arcfce'; did you mean arcface"),
        ("arcface", {"margin": 2.0}, "angle in radians"),
        ("arcface", {"scale": 0.0}, "must be positive"),
        ("arcface", {"margn": 0.1}, r"unknown setting loss\.margn; did you mean margin"),
        ("arcface", {"margin": "wide"}, r"loss\.margin must be a number"),
        ("madacos", {"rho": 1.0}, "between 0 and 1"),
        ("cosface", {"sample_rate": 0.0}, "share of the classes"),
        ("subcentre-arcface", {"centres": 0}, r"loss\.centres"),
    ],
)
def test_wrong_loss_settings(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_loss(name, n_classes=3, dim=4, **settings)
