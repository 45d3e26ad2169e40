"""Parameter groups, the schedule step by step, the switch of optimisers, clipping, and the running mean."""

import itertools
import math

import pytest
import torch

from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.losses import create_loss
from ultron_cli.training.optimisers import RunningMean, clip_gradients, lr_at, make_optimizer
from ultron_cli.training.schedules import rate_at


def config(**changes: object) -> TrainConfig:
    return from_dict(
        TrainConfig, {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.1, "epochs": 10, "warmup_epochs": 0} | changes
    )


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    decayed, plain = make_optimizer(config(), network).param_groups
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(4, 3, 3, 3)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(plain["params"]) == 3
    everything, nothing = make_optimizer(config(decay_norms_and_biases=True), network).param_groups
    assert (len(everything["params"]), len(nothing["params"])) == (4, 0)


@pytest.mark.parametrize(
    ("model", "loss", "spared", "reached"),
    [
        (
            {"name": "ultron-t", "gate": "multiply"},
            "arcface",
            ["attention.position_bias", "query_key_value.bias"],
            ["depthwise.importance.weight", "query_key_value.weight"],
        ),
        (
            {"name": "gem", "backbone": "test_vit"},
            "softmax",
            ["network.pos_embed", "network.cls_token", "attn.qkv.bias"],
            ["attn.qkv.weight"],
        ),
        (
            {"name": "gem", "backbone": "resnet10t", "attention": "eca"},
            "arcface",
            ["bn1.weight", "bn1.bias"],
            ["se.across.weight"],
        ),
    ],
)
def test_weight_decay_by_kind_of_parameter(model: dict, loss: str, spared: list[str], reached: list[str]) -> None:
    network, classes = create_model(**model), create_loss(loss, n_classes=5, dim=4)
    names = {id(parameter): name for module in (network, classes) for name, parameter in module.named_parameters()}
    decayed, plain = (
        [names[id(parameter)] for parameter in group["params"]]
        for group in make_optimizer(config(), network, classes).param_groups
    )
    for ending in spared:
        assert any(name.endswith(ending) for name in plain) and not any(name.endswith(ending) for name in decayed), (
            ending
        )
    for ending in reached:
        assert any(name.endswith(ending) for name in decayed) and not any(name.endswith(ending) for name in plain), (
            ending
        )
    assert "weight" in decayed  # the class weights
    assert len(decayed) + len(plain) == len(names)


def test_weight_decay_spares_swin_s_tables() -> None:
    shapes = {"relative_position_bias_table": (169, 3), "absolute_pos_embed": (1, 49, 8), "weight": (3, 3)}
    tables = torch.nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})
    decayed, plain = make_optimizer(config(), tables).param_groups
    assert ([tuple(p.shape) for p in decayed["params"]], len(plain["params"])) == ([(3, 3)], 2)
    assert len(make_optimizer(config(decay_norms_and_biases=True), tables).param_groups[0]["params"]) == 3


def test_schedule_warms_up_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_a_cosine_begins_anew_at_its_restarts() -> None:
    """Until the first restart it is the cosine of a run that ends there, to the bit."""
    restarted = config(epochs=10, warmup_epochs=1, restart_epochs=[4, 6])
    until_4 = config(epochs=4, warmup_epochs=1)
    assert [lr_at(restarted, step, 5) for step in range(20)] == [lr_at(until_4, step, 5) for step in range(20)]
    assert [lr_at(restarted, epoch * 5, 5) for epoch in (4, 5, 6, 8)] == pytest.approx([0.1, 0.05, 0.1, 0.05])
    assert lr_at(restarted, 29, 5) == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 0.9)))
    for wrong in ({"restart_epochs": [1]}, {"restart_epochs": [10]}, {"restart_epochs": [6, 4]}):
        with pytest.raises(UltronError, match="restart_epochs must ascend, between warmup_epochs and epochs"):
            config(warmup_epochs=1, **wrong)
    with pytest.raises(UltronError, match=r"goes with schedule = \"cosine\"; found \[4\] with 'constant'"):
        config(schedule="constant", restart_epochs=[4])


def test_steps_and_constant() -> None:
    steps = config(schedule="steps", step_epochs=[4, 8], warmup_epochs=1)
    assert [round(lr_at(steps, epoch * 5, 5), 6) for epoch in (1, 3, 4, 7, 8, 9)] == [
        0.1,
        0.1,
        0.01,
        0.01,
        0.001,
        0.001,
    ]
    assert lr_at(steps, 0, 5) == pytest.approx(0.02)
    assert lr_at(config(schedule="constant"), 49, 5) == 0.1


def test_switch_of_optimisers_changes_the_height_of_one_curve() -> None:
    switched = config(
        optimizer="adamw", lr=1e-3, epochs=40, warmup_epochs=5, switch={"epoch": 10, "optimizer": "sgd", "lr": 1e-2}
    )
    network = torch.nn.Linear(3, 3)
    assert isinstance(make_optimizer(switched, network, epoch=9), torch.optim.AdamW)
    second = make_optimizer(switched, network, epoch=10)
    assert isinstance(second, torch.optim.SGD)
    assert (second.param_groups[0]["weight_decay"], second.defaults["momentum"]) == (1e-4, 0.9)
    assert lr_at(switched, 4, 1) == 1e-3
    assert lr_at(switched, 9, 1) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 4 / 35)))
    assert lr_at(switched, 10, 1) == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 5 / 35)))


def test_clipping_takes_the_norm_of_everything() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert float(clip_gradients([a], [b], 1.0)) == pytest.approx(5.0)
    assert a.grad.tolist() == pytest.approx([0.6, 0.0], abs=1e-5)
    assert b.grad.tolist() == pytest.approx([0.8], abs=1e-5)
    assert float(clip_gradients([a], [b], 10.0)) == pytest.approx(1.0, abs=1e-5)
    assert b.grad.tolist() == pytest.approx([0.8], abs=1e-5)  # short enough: left alone


def test_running_mean() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    network[0].weight.data.fill_(0.0)
    mean = RunningMean(network, 0.5)
    network[0].weight.data.fill_(1.0)
    network[1].num_batches_tracked.fill_(7)
    mean.update_parameters(network)  # the first steps count more: decay 1/10
    assert mean.module.state_dict()["0.weight"].item() == pytest.approx(0.9)
    mean.load(mean.module.state_dict(), n_steps=1000)
    mean.update_parameters(network)
    assert mean.module.state_dict()["0.weight"].item() == pytest.approx(0.95)
    assert mean.module.state_dict()["1.num_batches_tracked"].item() == 7
