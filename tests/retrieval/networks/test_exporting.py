"""Networks for other tools: the same descriptors, standard operators, and a record of what made them."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.parts.cdconv import CDConv, MobileBlock
from ultron_cli.models.parts.scala import ScalaAttention, ScalaBlock
from ultron_cli.models.weights.checkpoints import LoadedModel, load_weights, sha256_of_weights
from ultron_cli.models.weights.network_record import KEY, NetworkRecord
from ultron_cli.models.weights.reading import read_weights_file
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.retrieval.networks.exporting import ExportRequest, export_network
from ultron_cli.retrieval.whitening import Whitening

SCALES = (0.7071, 1.0)
SIDES_PX = ((64, 96), (131, 67), (48, 224))  # maps of 4 x 6, 9 x 5 and 3 x 14 places under a window of 7
LEAST_COSINE = 0.99999
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quiet_tracer() -> Iterator[None]:
    """torch tells its structured trace to every listener, and pytest listens: tracing takes several times as long."""
    tracer = logging.getLogger("torch.__trace")
    tracer.disabled = True
    yield
    tracer.disabled = False


@dataclass(frozen=True, kw_only=True)
class TinySettings:
    descriptor_dim: int = 12


class Tiny(RetrievalModel):
    """One block of each operator of ULTRON, stride 16."""

    settings_type = TinySettings
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), sd=(0.2, 0.3, 0.25), scaling="antialias")

    def __init__(self) -> None:
        super().__init__("tiny", TinySettings())
        self.descriptor_dim = self.settings.descriptor_dim
        self.stem = nn.Conv2d(3, 16, 16, stride=16)
        self.mobile = MobileBlock(16, 2, CDConv(32))
        self.attention = ScalaBlock(16, ScalaAttention(16, 2))
        self.head = nn.Linear(16, self.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        features = self.mobile(self.stem(images))
        return self.attention(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.head(feature_map.mean((2, 3)))


def loaded(model: RetrievalModel) -> LoadedModel:
    return LoadedModel(model.eval(), sha256_of_weights(model), {"kind": "untrained", "seed": 0})


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    torch.manual_seed(0)
    model = Tiny()
    nn.init.normal_(model.mobile.project.norm.weight)
    return loaded(model)


@pytest.fixture(scope="module")
def whitening() -> Whitening:
    numbers = np.random.default_rng(1)
    return Whitening(
        method="pca-whitening",
        mean=numbers.normal(0, 0.1, 12),
        projection=numbers.normal(0, 1, (5, 12)),
        eigenvalues=np.ones(5),
        sha256="0" * 64,
    )


@pytest.fixture(scope="module")
def onnx_file(tiny: LoadedModel, whitening: Whitening, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_network(tiny, ExportRequest(format="onnx", scales=SCALES, whitening=whitening), path)
    return path


def photos(n: int, height: int, width: int) -> torch.Tensor:
    small = torch.rand(n, 3, 5, 7, generator=torch.Generator().manual_seed(height))
    return (255 * F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)).to(torch.uint8)


def right(model: RetrievalModel, images: torch.Tensor, whitening: Whitening | None = None) -> np.ndarray:
    with torch.inference_mode():
        rows = describe(model, images.permute(0, 2, 3, 1), SCALES).numpy()
    return whitening.apply(rows) if whitening else rows


def least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a.astype(np.float64) * b).sum(1).min())


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_onnxruntime_gives_the_descriptors_of_any_size(
    tiny: LoadedModel, whitening: Whitening, onnx_file: Path
) -> None:
    run = session(onnx_file).run
    for n, sides in zip((1, 3, 2), SIDES_PX, strict=True):
        images = photos(n, *sides)
        (rows,) = run(None, {"images": images.numpy()})
        assert rows.shape == (n, 5) and rows.dtype == np.float32
        assert least_cosine(rows, right(tiny.model, images, whitening)) > LEAST_COSINE


def test_the_file_has_standard_operators_one_copy_of_the_weights_and_no_place_of_this_machine(
    tiny: LoadedModel, onnx_file: Path
) -> None:
    import onnx

    content = onnx_file.read_bytes()
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""} and not model.functions
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    n_values = sum(value.numel() for value in tiny.model.parameters())
    n_stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert n_stored < 1.2 * n_values
    assert b".py" not in content and str(Path.cwd()).encode() not in content
    (input_,), (output,) = model.graph.input, model.graph.output
    assert [dim.dim_param or dim.dim_value for dim in input_.type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    assert (input_.name, output.name) == ("images", "descriptors")


def test_the_file_says_what_made_it(tiny: LoadedModel, onnx_file: Path) -> None:
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    record = json.loads(metadata[KEY])
    assert record["model"] == {"name": "tiny", "settings": {"descriptor_dim": 12}}
    assert record["weights_sha256"] == tiny.weights_sha256
    assert record["scales"] == list(SCALES) and record["mean"] == [0.5, 0.4, 0.3] and record["crop"] == "bbx"
    assert record["whitening"] == {"method": "pca-whitening", "dim": 5, "sha256": "0" * 64}
    assert record["least_side_px"] == 46 and record["max_side_px"] == 1024 and record["pixels"] == "uint8"


@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_torch_export_loads_and_agrees(tiny: LoadedModel, whitening: Whitening, tmp_path: Path, pixels: str) -> None:
    path = tmp_path / "tiny.pt2"
    request = ExportRequest(
        format="torch-export",
        scales=SCALES,
        whitening=whitening,
        pixels=pixels,  # type: ignore[arg-type]
        sides_px=(64, 96) if pixels == "float" else None,
    )
    record = export_network(tiny, request, path)
    files = {KEY: ""}
    program = torch.export.load(str(path), extra_files=files)
    with pytest.raises(UltronError, match=r"is a program for torch\.export\.load and not weights; name a checkpoint"):
        read_weights_file(path)
    assert "ultron" not in str(program.graph) and json.loads(files[KEY])["label"] == record.label == "tiny"
    for n, sides in ((3, (64, 96)), (1, (131, 67)))[: 1 if pixels == "float" else 2]:
        images = photos(n, *sides)
        rows = program.module()(images if pixels == "uint8" else images / 255).detach().numpy()
        assert least_cosine(rows, right(tiny.model, images, whitening)) > LEAST_COSINE


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_state_dict_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gem{suffix}"
    settings = {"backbone": "test_resnet", "descriptor_dim": 6}
    model = create_model("gem", **settings)
    export_network(loaded(model), ExportRequest(format="state-dict"), path)
    again = load_weights(path, "gem", settings)
    assert again.weights_sha256 == sha256_of_weights(model)
    if suffix == ".pt":
        plain = torch.load(path, weights_only=True)
        create_model("gem", **settings).load_state_dict(plain)
        assert json.loads(plain._metadata[KEY])["descriptor_dim"] == 6
    else:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()[KEY])["label"] == "gem-test_resnet"


def test_what_does_not_fit_is_refused(tiny: LoadedModel, whitening: Whitening, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    with pytest.raises(UltronError, match=r"a state dict holds weights alone"):
        ExportRequest(format="state-dict", scales=(1.0, 2.0))
    with pytest.raises(
        UltronError, match=r"`size` must have sides of 64 px at least for tiny at scales 0.5, 1; found 48"
    ):
        export_network(tiny, ExportRequest(format="onnx", scales=(0.5, 1.0), sides_px=(48, 96)), out)
    other = create_model("gem", backbone="test_resnet")
    with pytest.raises(UltronError, match=r"whitens 12-d descriptors, gem-test_resnet gives 96-d"):
        export_network(loaded(other), ExportRequest(format="onnx", whitening=whitening), out)
    assert not out.exists()


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(tmp_path: Path) -> None:
    class Choosing(Tiny):
        def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
            return super().pool(feature_map if feature_map.sum() > 0 else -feature_map)

    with pytest.raises(UltronError, match=r"^tiny cannot be written as torch-export for photos of any size"):
        export_network(loaded(Choosing()), ExportRequest(format="torch-export"), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_a_record_reads_back() -> None:
    from ultron_cli.schema.values import fit

    record = NetworkRecord(
        ultron_version="1", label="x", model={}, weights_sha256="", descriptor_dim=2, pixels="float",
        mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0), interpolation="bicubic", scaling="area", box_edges="rounded",
        scales=(1.0,), sides_px=(64, 96), least_side_px=32,
    )  # fmt: skip
    assert fit(json.loads(record.to_json()), NetworkRecord) == record
    assert record.fault(("bicubic",)) is None
