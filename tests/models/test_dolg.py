"""DOLG against its literal form, and its ablations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.small_networks import with_statistics
from ultron_cli.models import create_model

SMALL_DOLG = {"backbone": "test_resnet", "atrous_dim": 6, "local_dim": 10, "descriptor_dim": 12}


def literal_dolg(model: nn.Module, images: Tensor) -> Tensor:
    """Place by place, from the maps of timm's own forward pass."""
    f3, f4 = model.backbone.network.forward_intermediates(images, indices=2, intermediates_only=True)
    local, state = model.local, model.local.state_dict()
    descriptors = []
    for three, four in zip(f3, f4, strict=True):
        pooled = torch.stack([(channel.clamp(min=1e-6) ** 3).mean() ** (1 / 3) for channel in four])
        whole = model.global_layer.weight @ pooled + model.global_layer.bias
        mean = F.relu(state["atrous.whole.weight"][:, :, 0, 0] @ three.mean((1, 2)) + state["atrous.whole.bias"])
        branches = [mean[:, None, None].expand(-1, *three.shape[1:])]
        for i, dilation in enumerate((0, 6, 12, 18)):
            weight, bias = state[f"atrous.branches.{i}.weight"], state[f"atrous.branches.{i}.bias"]
            branches.append(F.conv2d(three[None], weight, bias, padding=dilation, dilation=max(1, dilation))[0])
        joined = F.relu(F.conv2d(torch.cat(branches)[None], state["atrous.join.weight"], state["atrous.join.bias"]))
        reduced = local.norm(F.conv2d(joined, state["reduce.weight"], state["reduce.bias"]))[0]
        orthogonal = []
        for y in range(reduced.shape[1]):
            for x in range(reduced.shape[2]):
                vector = reduced[:, y, x]
                attention = F.softplus(
                    state["attention.weight"][0, :, 0, 0] @ F.relu(vector) + state["attention.bias"][0]
                )
                placed = attention * vector / vector.norm()
                orthogonal.append(placed - (placed @ whole) / (whole @ whole) * whole)
        fused = torch.cat([whole, torch.stack(orthogonal).mean(0)])
        descriptors.append(model.head.weight @ fused + model.head.bias)
    return F.normalize(torch.stack(descriptors), dim=1)


@torch.no_grad()
def test_dolg_equals_its_literal_form(images: Tensor) -> None:
    torch.manual_seed(0)
    model = with_statistics(create_model("dolg-r50", **SMALL_DOLG))
    torch.testing.assert_close(model(images), literal_dolg(model, images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_dolg_local_part_is_orthogonal_to_the_global_vector(images: Tensor) -> None:
    from ultron_cli.models.dolg import orthogonal_part

    local, whole = torch.randn(2, 10, 4, 5), torch.randn(2, 10)
    assert torch.einsum("bchw,bc->bhw", orthogonal_part(local, whole), whole).abs().max() < 1e-5


@pytest.mark.parametrize(
    "ablation",
    [
        {"local_from": "f4"},
        {"fusion": "concat"},
        {"fusion": "hadamard"},
        {"global_pooling": "avg"},
        {"multi_atrous": False},
        {"self_attention": False},
    ],
)
def test_dolg_ablations_run_and_differ(ablation: dict, images: Tensor) -> None:
    torch.manual_seed(0)
    model = create_model("dolg-r50", **SMALL_DOLG, **ablation).train()
    descriptors = model(images)
    assert descriptors.shape == (2, 12)
    descriptors[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.local.parameters())
