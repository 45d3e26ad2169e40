"""Networks and losses compute where their weights are: on tensors that claim to be on a GPU, everywhere; on a real GPU,
where there is one.

PyTorch's fake tensors know shape and device only; an operation on a fake CUDA tensor and one of the CPU fails, as it
would on a GPU.
"""

from collections.abc import Iterator

import pytest
import torch
import ultron_kernels.ops
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.models.test_every_model import photos, small, small_swin  # noqa: F401, a fixture for every test here too
from ultron_cli.models import list_models
from ultron_cli.training.losses import LOSSES, create_loss

pytestmark = pytest.mark.slow

GPU = torch.device("cuda", 0)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def claim_gpu(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Parameters and buffers become fake tensors on a GPU, as module.to() would move them; other tensors stay where
    they are."""
    with mode:
        for part in module.modules():
            for name, parameter in list(part._parameters.items()):
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(
                        torch.empty_like(mode.from_tensor(parameter), device=GPU), parameter.requires_grad
                    )
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = torch.empty_like(mode.from_tensor(buffer), device=GPU)
    return module


@pytest.mark.parametrize("name", list_models())
def test_no_tensor_of_a_network_is_made_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ultron_kernels.ops, "implementation", lambda device_type, backend: device_type)
    mode = FakeTensorMode()
    model = claim_gpu(small(name), mode)
    with mode:
        images = torch.empty(2, 3, 96, 128, device=GPU)
        for training in (False, True):
            assert model.train(training)(images).device == GPU
        assert model.eval().feature_map(images).device == GPU


# The scale of the others, or the pairs that they compare, follow the values, which fake tensors lack.
@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].module == "margins" and name != "madacos"])
def test_no_tensor_of_a_loss_is_made_elsewhere(name: str) -> None:
    mode = FakeTensorMode()
    loss = claim_gpu(create_loss(name, n_classes=5, dim=8), mode)
    with mode:
        assert loss(torch.empty(4, 8, device=GPU), torch.empty(4, dtype=torch.int64, device=GPU)).device == GPU


@pytest.fixture
def plain_float32() -> Iterator[None]:
    """No TF32 in convolutions."""
    convolutions = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    yield
    convolutions.fp32_precision = before


def gradients(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the sum of squares of the descriptor's first half, by parameter name."""
    descriptors = model(images)
    descriptors[:, : descriptors.shape[1] // 2].square().sum().backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None}


def far_apart(values: torch.Tensor, right: torch.Tensor) -> float:
    """Norm of the difference relative to the norm."""
    return float((values - right).norm() / right.norm().clamp(min=1e-6))


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("name", list_models())
def test_descriptors_and_gradients_on_a_gpu_are_those_of_the_cpu(name: str, plain_float32: None) -> None:
    images = photos(2, 3, 96, 128)
    by_device: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for device in ("cpu", GPU):
        model = small(name).eval().to(device)
        with torch.inference_mode():
            descriptors = model(images.to(device)).cpu()
        by_device.append((descriptors, gradients(model, images.to(device))))
    (on_cpu, gradients_on_cpu), (on_gpu, gradients_on_gpu) = by_device
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-4)
    assert gradients_on_gpu.keys() == gradients_on_cpu.keys()
    all_on_gpu, all_on_cpu = (
        torch.cat([grads[key].flatten() for key in gradients_on_cpu]) for grads in (gradients_on_gpu, gradients_on_cpu)
    )
    assert far_apart(all_on_gpu, all_on_cpu) < 1e-2


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name != "cfcd-stage2"]
)  # of maps: see test_training_on_a_gpu.py
def test_losses_on_a_gpu_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    loss = create_loss(name, n_classes=5, dim=24)
    descriptors, labels = nn.functional.normalize(torch.randn(4, 24), dim=1), torch.tensor([0, 3, 1, 3])
    on_cpu = loss(descriptors, labels)
    torch.testing.assert_close(loss.to(GPU)(descriptors.to(GPU), labels.to(GPU)).cpu(), on_cpu, rtol=1e-4, atol=1e-4)
