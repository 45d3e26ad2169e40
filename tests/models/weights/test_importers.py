"""`ultron weights import --from senet|cfcd|cirtorch` against networks written plainly in the published layouts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Run, read_json
from tests.models.weights.published_networks import PublishedCfcd, PublishedCirtorch, PublishedSenet
from ultron_cli.models.core import normalise_images
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.retrieval.whitening import read_whitening

pytestmark = pytest.mark.slow


@pytest.fixture
def images() -> Tensor:
    """Noise and a few patches of colour."""
    draws = torch.Generator().manual_seed(0)
    patches = torch.nn.functional.interpolate(torch.randn(1, 3, 3, 5, generator=draws), (96, 160), mode="bilinear")
    return torch.cat([torch.randn(1, 3, 96, 160, generator=draws), 2 * patches])


def with_statistics(network: nn.Module) -> nn.Module:
    """In evaluation mode, normalisations and biases with values that are not the initial ones, layers that keep the
    spread of what they get."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def assert_same_descriptors(ours: Tensor, theirs: Tensor) -> None:
    assert (ours * theirs).sum(1).min() > 0.99999
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3  # else equal descriptors of different photos would say little


@pytest.mark.parametrize(
    ("source", "network", "label", "scales"),
    [("cfcd", PublishedCfcd, "cfcd-r50", "5"), ("senet", PublishedSenet, "senet-r50", "3")],
)
@torch.no_grad()
def test_pycls_layouts(
    source: str, network: type[nn.Module], label: str, scales: str, images: Tensor, tmp_path: Path, ultron: Run
) -> None:
    torch.manual_seed(0)
    theirs = with_statistics(network())
    state = {
        f"module.{name}": value for name, value in theirs.state_dict().items()
    }  # as data-parallel training saves it
    torch.save({"epoch": 3, "model_state": state}, tmp_path / "authors.pyth")
    code, text, error = ultron(
        "weights", "import", tmp_path / "authors.pyth", "--from", source, "--out", tmp_path / "ours.pt", "--json"
    )
    assert code == 0, error
    result = json.loads(text)
    assert (result["model"], result["scales"], result["whitenings"]) == (label, scales, [])
    if source == "cfcd":
        assert "authors.pyth: left out, of use in training only: desc_cls.fc.weight" in error
    model = load_checkpoint(tmp_path / "ours.pt").model
    assert_same_descriptors(model(images), theirs(images.flip(1)))
    assert len(model.recommended_scales) == int(scales)
    imported = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert imported["imported"] == {
        "from": source,
        "file": "authors.pyth",
        "input": "BGR folded into RGB",
        "scales": scales,
    }
    assert imported["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


def test_keys_without_a_place_are_listed(tmp_path: Path, ultron: Run) -> None:
    state = PublishedSenet().state_dict()
    state["SSM.SSE.conv_in.3.0.bias"] = torch.zeros(2)
    del state["SSM.FFN.2.bias"]
    torch.save(state, tmp_path / "authors.pth")
    code, _, error = ultron(
        "weights", "import", tmp_path / "authors.pth", "--from", "senet", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and not (tmp_path / "ours.pt").exists()
    assert "1 keys without a place: SSM.SSE.conv_in.3.0.bias; 1 places without a key: similarity.join.2.bias" in error


@pytest.mark.parametrize(
    ("architecture", "pooling", "whitening"),
    [
        ("resnet18", "gem", True),
        ("resnet18", "gemmp", False),
        ("resnet18", "mac", False),
        ("densenet121", "spoc", True),
    ],
)
@torch.no_grad()
def test_cirtorch(
    architecture: str, pooling: str, whitening: bool, images: Tensor, tmp_path: Path, ultron: Run
) -> None:
    torch.manual_seed(0)
    theirs = with_statistics(PublishedCirtorch(architecture, pooling, whitening))
    torch.save(
        {"epoch": 1, "meta": theirs.meta, "state_dict": theirs.state_dict(), "min_loss": np.float64(0.5)},
        tmp_path / "net.pth",
    )
    code, text, error = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt", "--json"
    )
    assert code == 0, error
    result = json.loads(text)
    scales = "1,1.41421356,0.707106781" if whitening else "1,0.707106781,0.5"
    assert (result["model"], result["scales"]) == (f"gem-{architecture}", scales)
    model = load_checkpoint(tmp_path / "ours.pt").model
    assert model.settings.scale_gem == (pooling == "gem" and not whitening)
    assert (model.whitening is not None) == whitening
    assert_same_descriptors(model(images), theirs(images))
    pixels = torch.randint(0, 256, (1, 96, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    right = literal_multiscale(theirs, normalise_images(pixels, model.preprocessing), whitening)
    torch.testing.assert_close(describe(model, pixels, model.recommended_scales), right, rtol=0, atol=1e-5)


def literal_multiscale(network: PublishedCirtorch, images: Tensor, whitening: bool) -> Tensor:
    """The published protocol: unit descriptors at the scales of cirtorch's README, joined by its extract_ms."""
    scales = [1, 2 ** (1 / 2), 1 / 2 ** (1 / 2)] if whitening else [1, 1 / 2 ** (1 / 2), 1 / 2]
    power = float(network.pool.p) if network.pooling == "gem" and not whitening else 1.0
    total = torch.zeros(1, network.meta["outputdim"])
    for scale in scales:
        scaled = images
        if scale != 1:
            scaled = nn.functional.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        total += network(scaled) ** power
    joined = (total / len(scales)) ** (1 / power)
    return joined / joined.norm()


def test_extraction_takes_the_scales_of_the_checkpoint(toy: Path, tmp_path: Path, ultron: Run) -> None:
    """Without --scales; a checkpoint that says none has those of its model."""
    theirs = with_statistics(PublishedCirtorch("resnet18", "gem", False))
    torch.save({"meta": theirs.meta, "state_dict": theirs.state_dict()}, tmp_path / "net.pth")
    code, text, _ = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt"
    )
    assert code == 0 and "--scales 1,0.707106781,0.5 " in text
    content = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert content["scales"] == [1.0, 2**-0.5, 0.5]
    torch.save({key: value for key, value in content.items() if key != "scales"}, tmp_path / "before.pt")
    for name, scales in (("ours", [1.0, 2**-0.5, 0.5]), ("before", [0.7071, 1.0, 1.4142])):
        command = ("extract", "--weights", tmp_path / f"{name}.pt", "--dataset", toy, "--max-side", 64, "--json")
        assert read_json(ultron(*command, "--out", tmp_path / name))["config"]["scales"] == scales


def lw(dim: int) -> dict[str, np.ndarray]:
    draws = np.random.Generator(np.random.PCG64(dim))
    return {"m": draws.normal(0, 0.01, (dim, 1)), "P": draws.normal(0, 1, (dim, dim))}


@pytest.mark.parametrize("zipped", [True, False])
def test_learned_whitenings_of_cirtorch_become_whitening_files(
    zipped: bool, images: Tensor, tmp_path: Path, ultron: Run
) -> None:
    """zipped False: the format of 2018, in which the published networks are."""
    theirs = with_statistics(PublishedCirtorch("resnet18", "gem", False))
    whitenings = {
        "retrieval-SfM-120k": {
            "ss": lw(512),
            "ms": {"m": lw(512)["m"] + 0.5, "P": lw(512)["P"][:64].astype(np.float32)},
        }
    }
    torch.save(
        {"meta": theirs.meta | {"Lw": whitenings}, "state_dict": theirs.state_dict()},
        tmp_path / "net.pth",
        _use_new_zipfile_serialization=zipped,
    )
    code, text, error = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt"
    )
    assert code == 0, error
    names = [tmp_path / f"ours-lw-retrieval-SfM-120k-{scales}.h5" for scales in ("ms", "ss")]
    assert all(f"{path}: learned whitening" in text for path in names)
    assert read_whitening(names[0]).projection.shape == (64, 512)
    whitening = read_whitening(names[1])
    assert whitening.method == "lw" and whitening.provenance["imported"]["name"] == "retrieval-SfM-120k-ss"
    with torch.no_grad():
        descriptors = load_checkpoint(tmp_path / "ours.pt").model(images).numpy()
    right = whitenings["retrieval-SfM-120k"]["ss"]["P"] @ (
        descriptors.T.astype(np.float64) - whitenings["retrieval-SfM-120k"]["ss"]["m"]
    )
    right = right / (np.linalg.norm(right, axis=0, keepdims=True) + 1e-6)
    np.testing.assert_allclose(whitening.apply(descriptors), right.T, atol=1e-6)


def test_names_of_arrays_as_numpy_1_wrote_them(tmp_path: Path, ultron: Run) -> None:
    theirs = PublishedCirtorch("resnet18", "gem", False)
    content = {"meta": theirs.meta | {"Lw": {"a": {"ss": lw(512)}}}, "state_dict": theirs.state_dict()}
    torch.save(content, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "new.pth").read_bytes()
    assert b"numpy._core.multiarray" in data
    (tmp_path / "net.pth").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert (
        ultron("weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt")[0] == 0
    )
    np.testing.assert_array_equal(read_whitening(tmp_path / "ours-lw-a-ss.h5").projection, lw(512)["P"])


class Harmful:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["HARM"],)


def test_nothing_in_a_cirtorch_file_is_run(tmp_path: Path, ultron: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    torch.save({"meta": {"architecture": Harmful()}, "state_dict": {}}, tmp_path / "net.pth")
    code, _, error = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and "was refused, and nothing in it was run" in error
    objects = np.array([Harmful()], dtype=object)
    meta = {"architecture": "resnet18", "pooling": "gem", "Lw": {"a": {"ss": {"m": objects, "P": objects}}}}
    torch.save({"meta": meta, "state_dict": {}}, tmp_path / "net.pth")
    assert (
        ultron("weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt")[0] == 2
    )
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "vgg16"}, "has architecture vgg16, which ultron does not import (it takes resnet18"),
        ({"pooling": "rmac", "regional": True}, "has pooling rmac and regional, which"),
        ({"local_whitening": True}, "has local whitening, which"),
        (
            {"mean": [0.5, 0.5, 0.5]},
            "wants photos of mean [0.5, 0.5, 0.5], resnet18 is given those of [0.485, 0.456, 0.406]",
        ),
        ({"Lw": {"a": {"ss": lw(8)}}}, "whitening a-ss has m (8, 1) and P (8, 8), the descriptors have 512 dimensions"),
        (
            {"Lw": {"a": {"ss": {"m": np.full((512, 1), np.nan), "P": np.eye(512)}}}},
            "whitening a-ss must hold finite numbers m and P",
        ),
        ({"Lw": {"a": {"ss": {"m": [[1], [1, 2]], "P": "x"}}}}, "whitening a-ss must hold finite numbers m and P"),
        ({"architecture": ["resnet18"]}, "is no network of cirtorch"),
        ({"pooling": {"gem": 1}}, "is no network of cirtorch"),
        ({"mean": "grey"}, "wants photos of mean nan"),
        ({"std": [[1], [1, 2]]}, "wants photos of std nan"),
    ],
)
def test_what_cirtorch_networks_are_refused(change: dict, words: str, tmp_path: Path, ultron: Run) -> None:
    meta = {
        "architecture": "resnet18",
        "pooling": "gem",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    } | change
    torch.save({"meta": meta, "state_dict": {"pool.p": torch.ones(1)}}, tmp_path / "net.pth")
    code, _, error = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and words in error and error.count("\n") == 1, error
    assert not (tmp_path / "ours.pt").exists()


def test_other_files_are_no_networks_of_cirtorch(tmp_path: Path, ultron: Run) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "net.pth")
    code, _, error = ultron(
        "weights", "import", tmp_path / "net.pth", "--from", "cirtorch", "--out", tmp_path / "ours.pt"
    )
    assert code == 2 and "is no network of cirtorch: it must hold state_dict, and meta" in error


def test_list_names_every_source(ultron: Run) -> None:
    code, text, _ = ultron("weights", "list", "--json")
    sources = json.loads(text)["sources"]
    assert (
        code == 0
        and sources["senet"] == ["senet-r101", "senet-r50"]
        and sources["cirtorch"] == ["gem"]
        and sources["cfcd"] == ["cfcd-r101", "cfcd-r50"]
    )
