"""DOLG, SuperGlobal, CFCD and GGeM against literal second implementations, and their checkpoints through the
importer."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import Run
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import normalise_images
from ultron_cli.models.parts.pooling import GGeM
from ultron_cli.models.superglobal import regional_gem
from ultron_cli.models.weights.checkpoints import load_checkpoint, load_weights, save_checkpoint
from ultron_cli.models.weights.pycls import LAYOUTS, cvnet_name, dolg_name, resnet_name
from ultron_cli.retrieval.extraction.describe import describe

SMALL = {"backbone": "test_resnet", "atrous_dim": 6, "local_dim": 10, "descriptor_dim": 12}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch normalisation with running values that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


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
    model = with_statistics(create_model("dolg-r50", **SMALL))
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
    model = create_model("dolg-r50", **SMALL, **ablation).train()
    descriptors = model(images)
    assert descriptors.shape == (2, 12)
    descriptors[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.local.parameters())


@torch.no_grad()
def test_superglobal_equals_its_literal_form(images: Tensor) -> None:
    """ReLUP by hand: the blocks of a plain network are run one by one with the floor put in."""
    torch.manual_seed(0)
    model = with_statistics(create_model("superglobal", backbone="test_resnet", descriptor_dim=12))
    network = model.backbone.network
    maps = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    for number, stage in enumerate((network.layer1, network.layer2, network.layer3, network.layer4), start=1):
        floor, inner = (0.014 if number <= 3 else 0.0), (0.014 if number == 1 else 0.0)
        for block in stage:
            names = [name for name in ("1", "2", "3") if hasattr(block, f"conv{name}")]
            inside = maps
            for name in names:
                inside = getattr(block, f"bn{name}")(getattr(block, f"conv{name}")(inside))
                if name != names[-1]:
                    inside = inside.clamp(min=inner)
            shortcut = block.downsample(maps) if block.downsample is not None else maps
            maps = (inside + shortcut).clamp(min=floor)
    height, width = maps.shape[-2:]
    mirrored = [[abs(i) if i < n else 2 * n - 2 - i for i in range(-2, n + 2)] for n in (height, width)]
    refined = torch.zeros_like(maps)
    for y in range(height):
        for x in range(width):
            rows, columns = mirrored[0][y : y + 5], mirrored[1][x : x + 5]
            around = torch.stack([maps[:, :, i, j] for i in rows for j in columns])
            refined[:, :, y, x] = (maps[:, :, y, x] + (around**2.5).mean(0) ** (1 / 2.5)) / 2
    pooled = F.normalize((refined.clamp(min=1e-8) ** 4.6).mean((2, 3)) ** (1 / 4.6), dim=1)
    torch.testing.assert_close(
        model(images), F.normalize(pooled @ model.head.weight.T + model.head.bias, dim=1), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_superglobal_takes_the_maximum_over_scales() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 96, 160, 3), dtype=torch.uint8)
    for scale_gem in (True, False):
        model = create_model("superglobal", backbone="test_resnet", descriptor_dim=12, scale_gem=scale_gem)
        images = normalise_images(pixels, model.preprocessing)
        sides = ((48, 80), (192, 320), (96, 160))
        stacked = torch.stack(
            [model(F.interpolate(images, size=size, mode="bilinear", antialias=True)) for size in sides]
        )
        right = F.normalize(stacked.amax(0) if scale_gem else stacked.mean(0), dim=1)
        torch.testing.assert_close(describe(model, pixels, (0.5, 2.0, 1.0)), right, rtol=0, atol=1e-6)


def test_regional_gem_of_a_map_too_small_to_reflect() -> None:
    maps = torch.rand(1, 2, 1, 2)
    assert regional_gem(maps).shape == maps.shape
    torch.testing.assert_close(regional_gem(torch.full((1, 1, 2, 2), 3.0)), torch.full((1, 1, 2, 2), 3.0))


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


def test_regional_gem_has_a_gradient_where_all_is_0() -> None:
    """A channel without a response anywhere: the root of 0 must not turn training into NaN."""
    maps = torch.rand(1, 2, 6, 7)
    maps[:, 1] = 0.0
    regional_gem(maps.requires_grad_()).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all() and maps.grad[:, 0].min() > 0


@torch.no_grad()
def test_ggem_equals_gem_group_by_group() -> None:
    maps, pooling = torch.randn(2, 12, 4, 5), GGeM(12, 3)
    pooling.p.copy_(torch.tensor([1.0, 2.5, 6.0]))
    right = [
        (maps[:, i].clamp(min=1e-6) ** pooling.p[i // 4]).mean((1, 2)) ** (1 / pooling.p[i // 4]) for i in range(12)
    ]
    torch.testing.assert_close(pooling(maps), torch.stack(right, 1))
    with pytest.raises(ValueError, match="12 channels do not divide into 5 groups"):
        GGeM(12, 5)


def test_ggem_takes_as_many_groups_as_heads() -> None:
    model = create_model("gem", backbone="test_vit", pooling="ggem")
    assert model.pooling.p.shape == (model.backbone.network.blocks[-1].attn.num_heads,)
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, model.descriptor_dim)  # not square
    with pytest.raises(
        UltronError, match="ggem needs a number of groups and test_resnet has no attention heads to tell it"
    ):
        create_model("gem", backbone="test_resnet", pooling="ggem")


@pytest.mark.parametrize("name", ["dolg-r50", "superglobal"])
def test_only_resnets(name: str) -> None:
    with pytest.raises(UltronError, match="takes a ResNet of timm"):
        create_model(name, backbone="test_vit")


@pytest.mark.parametrize("name", ["dolg-r50", "superglobal", "cfcd-r50"])
def test_settings_travel_with_the_checkpoint(name: str, tmp_path: Path, images: Tensor) -> None:
    settings = SMALL if name.startswith("dolg") else {"backbone": "test_resnet", "descriptor_dim": 12}
    model = with_statistics(create_model(name, **settings))
    save_checkpoint(tmp_path / "c.pt", model, {})
    loaded = load_checkpoint(tmp_path / "c.pt").model
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))
    assert loaded.settings == model.settings


@pytest.mark.parametrize(
    ("name", "layers"), [("dolg-r50", "global_layer, head, local"), ("superglobal", "head"), ("cfcd-r50", "head, norm")]
)
def test_backbone_weights_alone_are_refused(name: str, layers: str, tmp_path: Path) -> None:
    model = create_model(name, backbone="test_resnet")
    torch.save(model.backbone.network.state_dict(), tmp_path / "timm.pth")
    with pytest.raises(UltronError, match=f"has backbone weights only, {layers} of {name} would stay random"):
        load_weights(tmp_path / "timm.pth", name, {"backbone": "test_resnet"})


def test_pycls_names() -> None:
    assert resnet_name("stem.conv.weight") == "backbone.network.conv1.weight"
    assert resnet_name("s3.b23.f.c_bn.running_var") == "backbone.network.layer3.22.bn3.running_var"
    assert resnet_name("s2.b1.proj.weight") == "backbone.network.layer2.0.downsample.0.weight"
    assert resnet_name("s2.b1.bn.bias") == "backbone.network.layer2.0.downsample.1.bias"
    assert dolg_name("localmodel.aspp.aspp.3.bias") == "local.atrous.branches.3.bias"
    assert dolg_name("desc_cls.weight") is None and cvnet_name("encoder_k.stem.conv.weight") is None


def published(model: nn.Module, layout: str) -> dict[str, Tensor]:
    """A model's weights as its authors' file has them: their names, BGR, a classifier, the prefix of data-parallel
    training."""
    ours = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ours["backbone.network.conv1.weight"] = ours["backbone.network.conv1.weight"].flip(1)
    candidates = [
        f"stem.{part}.{leaf}" for part in ("conv", "bn") for leaf in ("weight", "bias", "running_mean", "running_var")
    ]
    candidates += [
        f"s{stage}.b{block}.{part}.{leaf}"
        for stage in range(1, 5)
        for block in range(1, 24)
        for part in ("f.a", "f.a_bn", "f.b", "f.b_bn", "f.c", "f.c_bn", "proj", "bn")
        for leaf in ("weight", "bias", "running_mean", "running_var")
    ]
    if layout == "dolg":
        names = [f"globalmodel.{name}" for name in candidates]
        names += [f"localmodel.aspp.aspp.{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")]
        parts = (
            "localmodel.aspp.im_pool.1",
            "localmodel.aspp.conv_after.0",
            "localmodel.conv1",
            "localmodel.conv2",
            "fc_t",
            "fc",
        )
        names += [f"{part}.{leaf}" for part in parts for leaf in ("weight", "bias")]
        names += [f"localmodel.bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")] + ["pool_g.p"]
    else:
        names = [f"encoder_q.{name}" for name in [*candidates, "head.fc.weight", "head.fc.bias", "head.pool.p"]]
    file = {name: ours[new] for name in names if (new := LAYOUTS[layout].rename(name)) in ours}
    assert len(file) == len([name for name in ours if not name.endswith("num_batches_tracked")])
    extra = (
        {"desc_cls.weight": torch.zeros(3, 512), "desc_cls.t": torch.zeros(1)}
        if layout == "dolg"
        else {"encoder_q.sefc.bias": torch.zeros(1)}
    )
    pool = "pool_g.p" if layout == "dolg" else "encoder_q.head.pool.p"
    return {f"module.{name}": tensor.reshape(1) if name == pool else tensor for name, tensor in (file | extra).items()}


@pytest.mark.parametrize(("layout", "name"), [("dolg", "dolg-r50"), ("cvnet", "superglobal")])
def test_import_gives_the_descriptor_of_the_bgr_network(layout: str, name: str, tmp_path: Path, ultron: Run) -> None:
    torch.manual_seed(0)
    model = with_statistics(
        create_model(name, backbone="resnet50", **({} if layout == "dolg" else {"descriptor_dim": 64}))
    )
    torch.save({"model_state": published(model, layout)}, tmp_path / "authors.pyth")
    code, text, error = ultron(
        "weights", "import", tmp_path / "authors.pyth", "--from", layout, "--out", tmp_path / "ours.pt"
    )
    assert code == 0, error
    assert "next: ultron extract --weights" in text and "of use in training only" in error
    imported = load_checkpoint(tmp_path / "ours.pt").model
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(imported(image), model(image))  # BGR in the file, RGB in both models here


def test_import_refuses_what_it_cannot_place(tmp_path: Path, ultron: Run) -> None:
    model = create_model("superglobal", backbone="resnet50", descriptor_dim=8)
    state = published(model, "cvnet")
    state["module.encoder_q.head.unknown"] = torch.zeros(2)
    del state["module.encoder_q.s4.b3.f.c.weight"]
    torch.save(state, tmp_path / "authors.pth")
    code, _, error = ultron(
        "weights", "import", tmp_path / "authors.pth", "--from", "cvnet", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and not (tmp_path / "ours.pt").exists()
    assert (
        "1 keys without a place: encoder_q.head.unknown" in error
        and "1 places without a key: backbone.network.layer4.2.conv3.weight" in error
    )
    code, _, error = ultron(
        "weights", "import", tmp_path / "authors.pth", "--from", "dolg", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and "check --from" in error
    code, _, error = ultron(
        "weights", "import", tmp_path / "authors.pth", "--from", "delf", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and "--from must be one of dolg, cvnet, senet, cfcd, cirtorch, timm" in error


def test_a_trained_network_with_other_switches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "net.pt", create_model("superglobal", backbone="test_resnet", descriptor_dim=12), {})
    same, other = (
        load_weights(tmp_path / "net.pt", "superglobal", changes)
        for changes in ({}, {"regional_gem": False, "p_plus": 2.0})
    )
    assert (other.model.settings.regional_gem, other.model.settings.p_plus, other.model.settings.gem_plus) == (
        False,
        2.0,
        True,
    )
    assert same.weights_sha256 == other.weights_sha256
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        right = create_model(
            "superglobal", backbone="test_resnet", descriptor_dim=12, regional_gem=False, p_plus=2.0
        ).eval()
        right.load_state_dict(same.model.state_dict())
        assert torch.equal(other.model.eval()(images), right(images))
        assert not torch.allclose(other.model(images), same.model.eval()(images), atol=1e-4)
    with pytest.raises(
        UltronError,
        match=r"descriptor_dim \(checkpoint 12, asked 13\); leave these flags out \(of superglobal these may differ: "
        r"gem_plus, ",
    ):
        load_weights(tmp_path / "net.pt", None, {"descriptor_dim": 13, "relup": 0.0})


def test_scale_gem_needs_descriptors_that_are_not_negative() -> None:
    with pytest.raises(
        UltronError, match=r"scale_gem needs pooling gem and no whitening layer.* found descriptor_dim 8"
    ):
        create_model("gem", backbone="test_resnet", scale_gem=True, descriptor_dim=8)
