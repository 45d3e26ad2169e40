"""Schedules and optimisers of a person's own."""

import math
from pathlib import Path

import pytest
import torch

from ultron_cli import user_code
from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.optimisers import lr_at, make_optimizer, phase_at
from ultron_cli.training.schedules import schedule_until

PARTS = """
import math
import torch


class Cosine:
    def __init__(self, power: float = 1.0):
        self.power = power

    def __call__(self, epoch, epochs):
        return (0.5 * (1 + math.cos(math.pi * epoch / epochs))) ** self.power


class Negative:
    def __call__(self, epoch, epochs):
        return -1


class NoCall: ...


class cosine:
    def __call__(self, epoch, epochs):
        return 1


class NoStep(torch.optim.Optimizer): ...


class Plain(torch.optim.SGD):
    def __init__(self, groups, share: float = 1.0):
        super().__init__(groups)
        self.share = share
"""


@pytest.fixture
def parts(tmp_path: Path) -> str:
    (tmp_path / "parts.py").write_text(PARTS)
    user_code.permit(str(tmp_path / "parts.py"), "torch.optim")
    return f"{tmp_path / 'parts.py'}"


def config(**changes: object) -> TrainConfig:
    return from_dict(TrainConfig, {"lr": 0.1, "epochs": 10, "warmup_epochs": 1} | changes)


def test_a_schedule_has_the_rates_after_the_warm_up(parts: str) -> None:
    squared = config(schedule=f"{parts}:Cosine", schedule_settings={"power": "2"})
    rates = [lr_at(squared, step, 5) for step in range(50)]
    assert rates[:5] == [lr_at(config(), step, 5) for step in range(5)]
    squares = [0.1 * (0.5 * (1 + math.cos(math.pi * step / 50))) ** 2 for step in range(5, 50)]
    assert rates[5:] == pytest.approx(squares)


def test_schedules_that_agree_until_an_epoch_may_go_on(parts: str) -> None:
    cosine_by_path = {"schedule": f"{parts}:Cosine"}
    assert schedule_until(config(**cosine_by_path), 10) != schedule_until(config(**cosine_by_path, epochs=20), 10)
    assert schedule_until(config(**cosine_by_path), 10) == schedule_until(config(**cosine_by_path), 10)


@pytest.mark.parametrize(
    ("settings", "line", "words"),
    [
        ({"schedule": "NoCall"}, 19, "NoCall needs the method __call__(epoch, epochs), see UserSchedule; write it"),
        ({"schedule": "cosine"}, 22, "cosine is the name of a schedule of ultron"),
        (
            {"schedule": "Cosine", "schedule_settings": {"powr": 2}},
            7,
            "Cosine: unknown setting schedule_settings.powr; did you mean power? (known: power)",
        ),
        ({"optimizer": "NoStep"}, 27, "NoStep must be a torch.optim.Optimizer with the method step"),
        ({"optimizer": "NoCall"}, 19, "NoCall must be a torch.optim.Optimizer with the method step"),
        (
            {"optimizer": "Plain", "optimizer_settings": {"shar": 1}},
            31,
            "Plain: unknown setting optimizer_settings.shar; did you mean share? (known: share)",
        ),
        (
            {"switch": {"epoch": 2, "optimizer": "Plain", "optimizer_settings": {"shar": 1}}},
            31,
            "Plain: unknown setting switch.optimizer_settings.shar; did you mean share? (known: share)",
        ),
    ],
)
def test_wrong_ones_name_their_line(parts: str, settings: dict[str, object], line: int, words: str) -> None:
    def named(value: object) -> object:
        return f"{parts}:{value}" if isinstance(value, str) else value

    values = {key: named(value) for key, value in settings.items() if key != "switch"}
    if isinstance(switch := settings.get("switch"), dict):
        values["switch"] = {key: named(value) for key, value in switch.items()}
    with pytest.raises(UltronError) as error:
        config(**values)
    assert str(error.value).startswith(f"{parts}, line {line}: {words}")


def test_a_rate_below_0(parts: str) -> None:
    with pytest.raises(UltronError, match=r"line 15: Negative must give a share .*, 0 or more; found -1 for epoch 1.4"):
        lr_at(config(schedule=f"{parts}:Negative"), 7, 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule_settings": {"power": 2}}, "schedule_settings are of a schedule by import path, found schedule cos"),
        (
            {"optimizer_settings": {"betas": 2}},
            "optimizer_settings are of an optimizer by import path, found ",
        ),
        (
            {"optimizer": "torch.optim:RAdam", "optimizer_settings": {"lr": 2}},
            "the rate of torch.optim:RAdam is `lr`, found optimizer_settings.lr; leave it out",
        ),
        ({"optimizer": "adam"}, "`optimizer` must be one of adamw, sgd; found 'adam'; did you mean adamw?"),
        ({"schedule": "cosin"}, "`schedule` must be one of cosine, steps, constant; found 'cosin'; did you mean cos"),
    ],
)
def test_settings_without_a_part(parts: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UltronError) as error:
        config(**settings)
    assert str(error.value).startswith(words)


def test_optimisers_of_torch_step_as_the_ones_by_name(parts: str) -> None:
    """AdamW by import path, with a setting that the name does not have, moves weights as AdamW does."""

    def moved(settings: TrainConfig) -> torch.Tensor:
        layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.fill_(0.5)
        optimizer = make_optimizer(settings, layer)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        return layer.weight.detach()

    by_path = {"optimizer": "torch.optim:AdamW", "optimizer_settings": {"betas": "0.9,0.999"}}
    torch.manual_seed(0)
    by_name = moved(config(optimizer="adamw"))
    torch.manual_seed(0)
    torch.testing.assert_close(moved(config(**by_path)), by_name)


def test_a_switch_to_one_of_a_persons_own(parts: str) -> None:
    switched = config(switch={"epoch": 4, "optimizer": f"{parts}:Plain", "optimizer_settings": {"share": 0.5}, "lr": 2})
    optimizer = make_optimizer(switched, torch.nn.Linear(2, 2), epoch=4)
    assert type(optimizer).__name__ == "Plain" and optimizer.param_groups[0]["lr"] == phase_at(switched, 4).lr == 2
