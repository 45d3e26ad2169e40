"""CFCD against its equations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.small_networks import with_statistics
from ultron_cli.models import create_model


@torch.no_grad()
def test_cfcd_equals_its_equations(images: Tensor) -> None:
    torch.manual_seed(0)
    model = with_statistics(create_model("cfcd-r50", backbone="test_resnet", descriptor_dim=8))
    pooled = (model.feature_map(images).clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    head = pooled @ model.head.weight.T + model.head.bias
    norm = (head - model.norm.running_mean) / (
        model.norm.running_var + 1e-5
    ).sqrt() * model.norm.weight + model.norm.bias
    torch.testing.assert_close(model(images), F.normalize(norm, dim=1), rtol=0, atol=1e-6)
