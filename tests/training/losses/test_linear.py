"""The linear loss: a linear layer on descriptors of any length."""

from typing import Any

import torch

from tests.training.runs_for_tests import SMALL
from ultron_cli.configs import from_dict
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.losses import create_loss
from ultron_cli.training.losses.base import LossResult


def lengths_in_a_step(change: dict[str, Any]) -> torch.Tensor:
    """Norms of the descriptors that the loss is given in a step of a small run."""
    learner = Learner(from_dict(TrainConfig, {**SMALL, **change}), 4, 1, torch.device("cpu"))
    lengths: list[torch.Tensor] = []
    loss_result = learner.loss.result

    def watched_result(descriptors: torch.Tensor, *others: Any) -> LossResult:
        lengths.append(descriptors.detach().norm(dim=1))
        return loss_result(descriptors, *others)

    learner.loss.result = watched_result
    learner.train()
    n_photos = 2 * learner.config.accumulate
    photos = torch.randint(0, 256, (n_photos, 3, 64, 64), dtype=torch.uint8)
    learner.step(photos, torch.arange(n_photos) % 4, 0)
    return torch.cat(lengths)


def test_linear_loss_is_a_linear_layer_on_descriptors_of_any_length() -> None:
    torch.manual_seed(0)
    loss, descriptors, labels = (
        create_loss("linear", n_classes=4, dim=6),
        3 * torch.randn(5, 6),
        torch.tensor([0, 1, 2, 3, 0]),
    )
    loss.bias.data.normal_()
    expected = torch.nn.functional.cross_entropy(descriptors @ loss.weight.T + loss.bias, labels)
    torch.testing.assert_close(loss(descriptors, labels), expected)
    linear, others = (lengths_in_a_step(change) for change in ({"loss": {"name": "linear"}}, {}))
    assert (linear - 1).abs().max() > 1e-3
    torch.testing.assert_close(others, torch.ones_like(others))
