"""Networks whose strided 1x1 convolutions have few channels train in channels_last order."""

import torch
import torch.nn.functional as F

from ultron_cli.models import create_model
from ultron_cli.models.backbones.narrow import StridedPointwise
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.autola.network import AutolaLogits, make_network


def test_strided_pointwise_is_the_convolution() -> None:
    torch.manual_seed(0)
    module = StridedPointwise(4, 6, 1, stride=2, bias=True)
    images = torch.randn(2, 4, 7, 10)
    torch.testing.assert_close(module(images), F.conv2d(images, module.weight, module.bias, stride=2))


def test_narrow_networks_train_in_channels_last_order() -> None:
    """The process died in backward()."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    network = create_model("gem", backbone="cifar_resnet8_w4", pooling="avg").train()
    search = make_network(AutolaConfig(backbone="cifar_resnet8", width=4), 3, AutolaLogits()).train()
    wide = create_model("gem", backbone="cifar_resnet8", pooling="avg").train()
    for model, n_guarded in ((network, 1), (search, 1), (wide, 0)):
        model.to(memory_format=torch.channels_last)
        model(images).square().sum().backward()
        assert sum(isinstance(module, StridedPointwise) for module in model.modules()) == n_guarded
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
