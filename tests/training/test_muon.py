"""Muon: its orthogonal steps beside a literal iteration, PyTorch's own optimiser and the singular values; and AdamW's
for the rest, to the bit."""

import copy

import pytest
import torch
from torch import nn

from ultron_cli.configs import from_dict
from ultron_cli.models import create_model
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.losses import create_loss
from ultron_cli.training.muon import Muon, orthogonalised
from ultron_cli.training.optimisers import make_optimizer

SHAPES = ((4, 4), (3, 24), (24, 3), (16, 20), (64, 288), (1, 1))


def matrix_of(shape: tuple[int, int], falls_to: float = 1e-2) -> torch.Tensor:
    """Singular values that fall from 1 to falls_to."""
    draws = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=draws, dtype=torch.float64), full_matrices=False)
    return left @ torch.diag(torch.logspace(0, torch.tensor(falls_to).log10().item(), min(shape)).double()) @ right


def literal(matrix: torch.Tensor) -> torch.Tensor:
    """Five rounds on the singular values, one by one: each s becomes 3.4445 s - 4.7750 s^3 + 2.0315 s^5."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / torch.linalg.vector_norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_made_orthogonal(shape: tuple[int, int]) -> None:
    matrix = matrix_of(shape)
    torch.testing.assert_close(orthogonalised(matrix), literal(matrix), rtol=0, atol=1e-9)
    torch.testing.assert_close(orthogonalised(matrix.float()).double(), literal(matrix), rtol=0, atol=1e-3)
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.65 and values.max() < 1.25


def test_no_direction_gives_no_step() -> None:
    assert not orthogonalised(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("shape", [(12, 12), (8, 40), (40, 8)])
def test_steps_of_a_matrix_are_those_of_pytorch_s_muon(shape: tuple[int, int]) -> None:
    """Which multiplies in bfloat16: the same direction and length, but for its rounding."""
    draws = torch.Generator().manual_seed(1)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours], "weight_decay": 0.1, "are_matrices": True}], lr=0.01),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        before = ours.detach().clone()
        gradient = torch.randn(shape, generator=draws)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
        steps = [(parameter.detach() - before).flatten() for parameter in (ours, theirs)]
        assert torch.cosine_similarity(*steps, dim=0) > 0.999
        assert steps[0].norm().item() == pytest.approx(steps[1].norm().item(), rel=0.02)
        with torch.no_grad():
            theirs.copy_(ours)


def test_the_rest_goes_by_adamw_to_the_bit() -> None:
    draws = torch.Generator().manual_seed(2)
    ours = [nn.Parameter(torch.randn(n, generator=draws)) for n in (5, 7)]
    theirs = copy.deepcopy(ours)
    groups = [[{"params": [a], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}] for a, b in (ours, theirs)]
    optimizers = Muon(groups[0], lr=0.01), torch.optim.AdamW(groups[1], lr=0.01, fused=True)
    for step in range(3):
        for parameter, other in zip(ours, theirs, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=draws)
            other.grad = parameter.grad.clone()
        if step == 1:  # as a frozen parameter
            ours[0].grad = theirs[0].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for parameter, other in zip(ours, theirs, strict=True):
        assert torch.equal(parameter, other)


def test_matrices_between_channels_are_apart() -> None:
    """Those of the network: no class weights, depthwise convolutions, norms, biases or tables."""
    config = from_dict(TrainConfig, {"optimizer": "muon", "weight_decay": 0.1})
    network, classes = create_model("ultron-t", gate="multiply"), create_loss("arcface", n_classes=5, dim=256)
    names = {id(parameter): name for module in (network, classes) for name, parameter in module.named_parameters()}
    for settings in (config, from_dict(TrainConfig, {"optimizer": "muon", "decay_norms_and_biases": True})):
        groups = make_optimizer(settings, network, classes).param_groups
        apart, decayed, spared = ([names[id(parameter)] for parameter in group["params"]] for group in groups)
        assert sorted([*apart, *decayed, *spared]) == sorted(names.values())
        for name in ("head.weight", "entries.0.0.weight", "stages.0.0.expand.weight"):
            assert name in apart
        assert (
            not any(word in name for name in apart for word in ("norm", "bias", "depthwise", "importance"))
            and "weight" in decayed
        )
        assert [group["are_matrices"] for group in groups] == [True, False, False]
        assert any(name.endswith("depthwise.weight") for name in decayed)


def test_a_state_that_was_stored_goes_on_to_the_bit() -> None:
    def run(n_steps: int, stored_at: int | None) -> list[torch.Tensor]:
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 4))
        layers.to(memory_format=torch.channels_last)
        config = from_dict(TrainConfig, {"optimizer": "muon", "lr": 0.01})
        optimizer = make_optimizer(config, layers)
        for step in range(n_steps):
            if step == stored_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = make_optimizer(config, layers)
                optimizer.load_state_dict(state)
            inputs = torch.randn(4, 3, 3, 3)
            optimizer.zero_grad()
            layers(inputs).square().mean().backward()
            optimizer.step()
        return [parameter.detach() for parameter in layers.parameters()]

    for whole, resumed in zip(run(6, None), run(6, 3), strict=True):
        assert torch.equal(whole, resumed)
