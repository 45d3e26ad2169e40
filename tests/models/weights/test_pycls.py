"""Checkpoints in the layout of pycls: names, and BGR networks that become RGB ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Run
from tests.models.small_networks import with_statistics
from ultron_cli.models import create_model
from ultron_cli.models.dolg import dolg_name
from ultron_cli.models.superglobal import cvnet_name
from ultron_cli.models.weights import IMPORTERS
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.models.weights.pycls import CheckpointLayout, resnet_name

pytestmark = pytest.mark.slow


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
    importer = IMPORTERS[layout].function()
    assert isinstance(importer, CheckpointLayout)
    file = {name: ours[new] for name in names if (new := importer.rename(name)) in ours}
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
    assert code == 2 and "--from must be one of cfcd, dolg, cirtorch, timm, senet, cvnet" in error
