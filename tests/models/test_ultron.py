"""The whole network: sizes and shapes, settings and their errors, precision, compilation, checkpointing, first steps of
learning."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ultron_cli.configs import to_dict
from ultron_cli.errors import UltronError
from ultron_cli.models import MODELS, create_model
from ultron_cli.models.core import normalise_images
from ultron_cli.models.parts.cdconv import CDConv, MobileBlock
from ultron_cli.models.ultron import UltronSettings
from ultron_cli.models.weights.checkpoints import load_checkpoint, load_weights, save_checkpoint
from ultron_cli.models.weights.model_choice import ModelChoice, untrained_model

pytestmark = pytest.mark.slow

TINY = {"depths": (1, 1, 1, 1), "widths": (8, 8, 16, 16), "heads": (1, 1), "expansion": 2, "descriptor_dim": 12}
STRIDES = (4, 8, 16, 32)


def photos(n: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random photos, normalised, in channels-last order as they come from normalise_images."""
    generator = torch.Generator().manual_seed(seed)
    images = F.interpolate(torch.randn(n, 3, 8, 8, generator=generator) * 1.5, size=(height, width), mode="bicubic")
    return images.contiguous(memory_format=torch.channels_last)


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """With MobileNet blocks that take part: they begin as the identity."""
    for module in model.modules():
        if isinstance(module, MobileBlock):
            torch.nn.init.ones_(module.project.norm.weight)
    return model


def tiny(name: str = "ultron-t", seed: int = 0, **settings: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return awake(create_model(name, **(TINY | settings)))


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (48, 160), (131, 40)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_size_gives_stage_maps_and_unit_descriptors(
    size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    model = tiny().to(memory_format=memory_format)
    images = photos(2, *size).contiguous(memory_format=memory_format)
    with torch.inference_mode():
        maps, descriptors = model.stage_maps(images), model(images)
    for stage_map, stride, width in zip(maps, STRIDES, TINY["widths"], strict=True):
        assert stage_map.shape == (2, width, -(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(model.feature_map(images), maps[-1])
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(
        descriptors, tiny()(images.contiguous()), rtol=1e-4, atol=1e-5
    )  # whatever the memory order


def test_rows_and_columns_stay_in_place() -> None:
    """With layers of short reach: attention in 3x3 windows, dilation 1."""
    model, images = tiny(attention="na", window=3, depthwise="plain"), torch.zeros(1, 3, 64, 256)
    with torch.inference_mode():
        dark = model.feature_map(images)
        images[..., 192:] = 2.0
        change = (model.feature_map(images) - dark).abs().sum(1)[0]
    assert change.shape == (2, 8)
    assert change[:, -1].sum() > 10 * change[:, 0].sum()


def test_sizes_of_the_three_models() -> None:
    """Millions of parameters; t must stay under 2 for laptops."""
    with torch.device("meta"):
        counts = {
            name: sum(parameter.numel() for parameter in create_model(name).parameters()) / 1e6
            for name in ("ultron-s", "ultron-b", "ultron-t")
        }
    assert counts["ultron-t"] < 2
    assert 30 < counts["ultron-s"] < 40
    assert 85 < counts["ultron-b"] < 115


def test_settings_of_s_are_the_papers() -> None:
    settings = UltronSettings()
    assert (settings.depths, settings.widths, settings.heads) == ((3, 5, 9, 5), (64, 128, 320, 512), (10, 16))
    assert (settings.thresholds, settings.deltas, settings.threshold, settings.gate) == (
        (0.75, 0.5),
        (3, 6),
        "value",
        "none",
    )
    assert (settings.mck_on, settings.attention, settings.window, settings.descriptor_dim) == ("key", "scala", 7, 512)
    b = create_model_settings("ultron-b")
    assert (b.depths, b.widths, b.heads) == ((5, 7, 18, 5), (96, 192, 384, 768), (12, 24))


def create_model_settings(name: str) -> UltronSettings:
    return UltronSettings(**MODELS[name].preset)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"windows": 7}, r"unknown setting model\.windows; did you mean window"),
        ({"window": 8}, "window must be odd"),
        ({"heads": (2, 7)}, "stage 4 has 128 channels .* for 7 heads"),
        ({"widths": (24, 48, 96)}, "widths takes 4 values"),
        ({"thresholds": (0.5, 0.75)}, "tau1 above tau2"),
        ({"gate": "multiplies"}, "gate` must be one of none, multiply; .*did you mean multiply"),
        ({"mck_on": "value"}, "must be one of key, query, none"),
        ({"attention_dropout": 1.0}, "attention_dropout` must lie between"),
        ({"deltas": (0, 6)}, "deltas` must lie between"),
        ({"backbone": "resnet50"}, "a timm backbone belongs to model gem"),
    ],
)
def test_wrong_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_model("ultron-t", **settings)


def test_every_choice_changes_the_network() -> None:
    """Each setting really reaches its module: the descriptors change, or the weights do."""
    images = photos()
    base = tiny(threshold="value")
    with torch.inference_mode():
        reference = base(images)
        assert torch.equal(base(images), reference)  # so that any difference below comes from the setting
        for settings in (
            {"mck_on": "query"},
            {"mck_on": "none"},
            {"attention": "na"},
            {"depthwise": "plain"},
            {"gate": "multiply"},
            {"threshold": "quantile"},
            {"thresholds": (0.6, 0.4)},
            {"deltas": (2, 3)},
            {"window": 3},
            {"pooling": "gem"},
            {"pooling_exponent": 3.0},
            {"gem_p": 1.0},
            {"pooling_shift": "left"},
            {"mck_bias": True},
            {"pooling_beta": True},
        ):
            other = tiny(**settings)
            for name, parameter in other.named_parameters():  # both begin at 0
                if name.endswith((".convolutions.0.bias", ".beta")):
                    parameter += 0.5
            shared = {
                key: value
                for key, value in base.state_dict().items()
                if key in other.state_dict() and value.shape == other.state_dict()[key].shape
            }
            other.load_state_dict(shared, strict=False)
            has_other_weights = other.state_dict().keys() != base.state_dict().keys()
            assert has_other_weights or not torch.equal(other(images), reference), settings


def test_what_begins_as_the_default_is_the_default_at_first() -> None:
    """MCK's bias and SimPool's beta are 0, the query's exponent has its value."""
    settings = {"mck_bias": True, "pooling_beta": True, "gem_p_learnable": True}
    base, other = tiny(), tiny(**settings)
    missing, unexpected = other.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected and {name.rsplit(".", 1)[-1] for name in missing} == {"bias", "beta", "p"}
    assert torch.equal(other(photos()), base(photos()))
    other.train()(photos()).square().sum().backward()
    learnt = {name: parameter.grad for name, parameter in other.named_parameters() if name in missing}
    assert len(learnt) == len(missing) and all(gradient is not None for gradient in learnt.values())


def test_na_is_mck_on_none() -> None:
    torch.testing.assert_close(tiny(attention="na", mck_on="query")(photos()), tiny(mck_on="none")(photos()))
    assert not any("context" in name for name in tiny(attention="na").state_dict())


def test_a_photo_stands_alone_in_its_batch() -> None:
    model, images = tiny(), photos(3)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("gate", "seed"), [("none", 0), ("none", 2), ("multiply", 2)])
def test_bfloat16_is_near_float32(gate: str, seed: int) -> None:
    """1 - cosine under 1e-3 on random weights; with dilations chosen from bfloat16 it was up to 8e-3 for these
    seeds."""
    torch.manual_seed(seed)
    model = awake(create_model("ultron-t", gate=gate)).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = model(photos(4, 96, 128))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(photos(4, 96, 128))
    assert rounded.dtype == torch.float32
    assert float((1 - (exact * rounded).sum(dim=1)).max()) < 1e-3


@pytest.mark.parametrize(("training", "backend"), [(False, "eager"), (True, "aot_eager")])
def test_compiles_as_one_graph(training: bool, backend: str) -> None:
    """With gradients in training."""
    model, twin = tiny(gate="multiply").train(training), tiny(gate="multiply").train(training)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    outputs = [network(photos(1)) for network in (compiled, twin)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    if training:
        for output in outputs:
            output[0, :4].sum().backward()
        for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(
                parameter.grad, other.grad, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_other_settings_trace_as_one_graph() -> None:
    """All in one network: one that cannot be traced breaks the graph, whatever the others are."""
    settings = {"threshold": "quantile", "pooling": "gem", "checkpointing": True, "drop_path": 0.3}
    compiled = torch.compile(tiny(**settings, attention_dropout=0.2).train(), fullgraph=True, backend="eager")
    assert compiled(photos()).shape == (2, 12)


def test_checkpointing_changes_no_number() -> None:
    settings = {"drop_path": 0.4, "attention_dropout": 0.2, "gate": "multiply"}
    results = []
    for checkpointing in (False, True):
        model = tiny(checkpointing=checkpointing, **settings).train()
        torch.manual_seed(1)
        descriptors = model(photos(4))
        (descriptors[0] @ descriptors[1]).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        results.append((descriptors, gradients, dict(model.named_buffers())))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("settings", [{"gate": "none"}, {"gate": "multiply"}, {"attention": "na", "pooling": "gem"}])
def test_training_gets_going(settings: dict[str, object]) -> None:
    """From random weights, t tells eight smooth photos apart in a few steps, under shifts and noise; every weight has a
    gradient."""
    torch.manual_seed(0)
    model = create_model("ultron-t", **settings).train()
    classes = torch.nn.Parameter(torch.randn(8, model.descriptor_dim))
    optimizer = torch.optim.AdamW([*(p for p in model.parameters() if p.requires_grad), classes], lr=1e-3)
    images, labels, losses = photos(8, 64, 64), torch.arange(8).repeat(2), []
    for step in range(14):
        batch = torch.cat([images.roll((step, -step), (2, 3)), images.flip(3).roll(-2 * step, 3)]) + 0.1 * torch.randn(
            16, 3, 64, 64
        )
        loss = F.cross_entropy(16 * model(batch) @ F.normalize(classes, dim=1).T, labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    without = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


def test_descriptors_differ_at_first() -> None:
    """The shift of attention pooling, common to all channels, must not make all photos alike before training."""
    torch.manual_seed(0)
    descriptors = create_model("ultron-t").train()(photos(8))
    cosines = (descriptors @ descriptors.T).detach()
    assert float(cosines[~torch.eye(8, dtype=torch.bool)].mean()) < 0.5


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    loaded = untrained_model("ultron-t", {"gate": "multiply", "deltas": [2, 5]}, seed=1)
    assert loaded.model.label == "ultron-t"
    save_checkpoint(tmp_path / "checkpoint.pt", loaded.model, {})
    again = load_checkpoint(tmp_path / "checkpoint.pt")
    assert again.weights_sha256 == loaded.weights_sha256
    assert again.model.settings == loaded.model.settings and again.model.settings.deltas == (2, 5)
    assert to_dict(again.model.settings)["gate"] == "multiply"
    means = {"mean": [0.485, 0.456, 0.406], "sd": [0.229, 0.224, 0.225]}
    assert again.model.preprocessing.to_dict() == means | {"interpolation": "bicubic", "scaling": "bilinear"}
    with pytest.raises(UltronError, match=r"model \(checkpoint ultron-t, asked ultron-s\)"):
        load_weights(tmp_path / "checkpoint.pt", "ultron-s", {})


def test_weights_that_are_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match="no published weights of ultron-t"):
        ModelChoice(model="ultron-t", pretrained=True).load()
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(UltronError, match=r"resnet\.pth is not a checkpoint of ultron.*ultron-t"):
        load_weights(tmp_path / "resnet.pth", "ultron-t", {})


def test_cam_takes_the_network() -> None:
    pytest.importorskip("pytorch_grad_cam")
    from ultron_cli.visualization.cam.similarity import similarity_cam

    model = tiny()
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        other = model(normalise_images(pixels[1:], model.preprocessing))[0]
    cam = similarity_cam(model, pixels[0].numpy(), other, method="hirescam")
    assert cam.heat.shape == (64, 96)
    assert -1 <= cam.cosine <= 1


def test_cdconv_is_in_the_first_two_stages_only() -> None:
    model = tiny()
    counts = [sum(isinstance(module, CDConv) for module in stage.modules()) for stage in model.stages]
    assert counts == [1, 1, 0, 0]
