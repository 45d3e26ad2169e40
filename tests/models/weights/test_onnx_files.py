"""ONNX files as weights: what a person states, what is refused, and that nothing outside of their folder is read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.weights.onnx_networks import RECORD, network, with_weights_beside
from ultron_cli.errors import UltronError
from ultron_cli.memory import set_memory_budget
from ultron_cli.models.backbones.preprocessing import IMAGENET
from ultron_cli.models.weights.checkpoints import load_weights
from ultron_cli.retrieval.extraction.dataset import longest_side_px
from ultron_cli.retrieval.extraction.describe import describe

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def pixels(n: int = 2, height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def means(values: np.ndarray) -> np.ndarray:
    """What the network gives for (B, H, W, 3) values."""
    rows = values.mean((1, 2)) * [1, 2, 3]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_another_tools_file_is_normalised_as_is_stated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = network(tmp_path / "theirs.onnx")
    with caplog.at_level("INFO", "ultron"):
        loaded = load_weights(path, None, {})
    assert "does not say how photos are normalised: by mean [0.485, 0.456, 0.406]" in caplog.text
    model = loaded.model
    assert (model.label, model.descriptor_dim, model.runtime) == ("theirs", 3, "onnxruntime")
    values = (pixels().numpy() / 255 - IMAGENET.mean) / IMAGENET.sd
    np.testing.assert_allclose(describe(model, pixels(), (1.0,)).numpy(), means(values), atol=1e-5)
    stated = load_weights(path, "onnx", {"mean": [0.0, 0.0, 0.0], "sd": [0.5, 0.5, 0.5]})
    np.testing.assert_allclose(
        describe(stated.model, pixels(), (1.0,)).numpy(), means(pixels().numpy() / 127.5), atol=1e-5
    )
    assert stated.model.made_of() != model.made_of() and stated.weights_sha256 == loaded.weights_sha256
    again = load_weights(path, "onnx", dict(stated.model.made_of()["settings"]))  # as descriptors record it
    assert again.model.made_of() == stated.model.made_of()
    with pytest.raises(UltronError, match=r"is an ONNX file, which gives descriptors and no maps"):
        model.feature_map(torch.zeros(1, 3, 64, 64))


def test_fixed_sizes_and_numbers_of_photos_are_honoured(tmp_path: Path) -> None:
    model = load_weights(network(tmp_path / "x.onnx", (4, 3, 48, 64), kind=2), None, {}).model
    assert model.sides_px == (48, 64) and longest_side_px(None, load_weights(model.path, None, {})) == 64
    photos = pixels(6, 48, 64)  # four at a time, of which the last two are filled up
    np.testing.assert_allclose(describe(model, photos, (1.0,)).numpy(), means(photos.numpy() * 1.0), atol=1e-5)
    stated = load_weights(network(tmp_path / "y.onnx"), None, {"size": [96, 32]}).model
    assert stated.sides_px == (96, 32)


def test_a_file_of_ultron_says_everything_itself(tmp_path: Path) -> None:
    path = network(tmp_path / "ours.onnx", metadata=RECORD.to_dict())
    loaded = load_weights(path, None, {})
    model = loaded.model
    assert (model.label, model.scales_inside, model.min_side_px) == ("gem-tiny", (0.5, 1.0), 64)
    assert longest_side_px(None, loaded) == 640 and model.preprocessing.box_edges == "truncated"
    rows = describe(model, pixels(), model.scales_inside).numpy()  # computed once, whatever the scales
    np.testing.assert_allclose(rows, means(pixels().numpy() / 255), atol=1e-5)
    assert model.made_of()["inside"] == json.loads(RECORD.to_json())
    with pytest.raises(UltronError, match=r"says itself how photos are prepared; leave out model.mean"):
        load_weights(path, None, {"mean": [0.5, 0.5, 0.5]})
    with pytest.raises(UltronError, match=r"holds its network itself; leave out `model`"):
        load_weights(path, "gem", {})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"version": 2}, "has format version 2, this ultron reads up to 1"),
        ({"label": "../x" * 50}, "label must be a short text"),
        ({"label": 7}, "label"),
        ({"scales": []}, "scales must lie between"),
        ({"sd": [0.0, 1.0, 1.0]}, "sd must be above 0"),
        ({"descriptor_dim": 4}, "says that it gives 4-d descriptors, found 3-d"),
        ({"pixels": "uint8"}, "which is not what it says of itself"),
        ({"sides_px": [64, 64]}, "which is not what it says of itself"),
        ({"least_side_px": 10**9}, "sides must lie between 32 and 16384"),
        ({"interpolation": "x"}, "interpolation must be one of"),
    ],
)
def test_an_unsound_record_is_refused(tmp_path: Path, changes: dict[str, object], fault: str) -> None:
    path = network(tmp_path / "x.onnx", metadata={**json.loads(RECORD.to_json()), **changes})
    with pytest.raises(UltronError, match=fault):
        load_weights(path, None, {})


def test_what_is_no_network_of_descriptors_is_refused(tmp_path: Path) -> None:
    for shape, kind, extra, fault in (
        (("n", "h", "w", 3), 1, False, "must take one input of photos"),
        (("n", 3, "h", "w"), 7, False, r"found x tensor\(int64\) \(any, 3, any, any\)"),
        (("n", 3, "h", "w"), 1, True, "must take one input of photos.*; y tensor"),
        ((1, 3, 16, 16), 1, False, "sides of 32 to 16384 px, found 16"),
    ):
        with pytest.raises(UltronError, match=fault):
            load_weights(network(tmp_path / "x.onnx", shape, kind, extra_input=extra), None, {})
    for content in (b"", b"PK\x03\x04", b"\x08\x0a" + bytes(range(200))):
        (tmp_path / "junk.onnx").write_bytes(content)
        with pytest.raises(UltronError, match=r"is truncated or not an ONNX file"):
            load_weights(tmp_path / "junk.onnx", None, {})
    path = network(tmp_path / "x.onnx")
    for settings, fault in (
        ({"size": [48]}, "model.size takes height and width"),
        ({"output": "z"}, "must give one output of descriptors"),
        ({"sd": [0, 1, 1]}, "sd must be above 0"),
        ({"men": 1}, "men"),
    ):
        with pytest.raises(UltronError, match=fault):
            load_weights(path, None, settings)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/passwd", "link.bin", "sub/../../outside.bin"])
def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    path = with_weights_beside(folder / "x.onnx", place)
    with pytest.raises(UltronError, match=r"was refused: it reads weights from .* outside of its own folder"):
        load_weights(path, None, {})


def test_weights_in_the_folder_are_read_and_shape_the_hash(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path / "x.onnx", "w.bin")
    with pytest.raises(UltronError, match=r"has its weights in .* does not exist"):
        load_weights(path, None, {})
    hashes = set()
    for factors in ([1, 2, 3], [3, 2, 1]):
        (tmp_path / "w.bin").write_bytes(np.array(factors, np.float32).tobytes())
        loaded = load_weights(path, None, {"mean": [0.0, 0.0, 0.0], "sd": [1.0, 1.0, 1.0]})
        hashes.add(loaded.weights_sha256)
    assert len(hashes) == 2


def test_a_file_over_the_budget_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "x.onnx")
    set_memory_budget(100)
    try:
        with pytest.raises(UltronError, match=r"the network would take .* more than the 100 B"):
            load_weights(path, None, {})
    finally:
        set_memory_budget(None)


def test_inspecting_runs_nothing_and_shows_what_a_file_says(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from ultron_cli.models.weights.overview import describe_onnx

    facts, text = describe_onnx(network(tmp_path / "ours.onnx", metadata=RECORD.to_dict()))
    assert facts["inputs"] == [{"name": "x", "type": "float", "axes": ("n", 3, "h", "w")}]
    assert (facts["opsets"], facts["values"], facts["custom_operators"]) == ({"ai.onnx": 18}, 5, [])
    assert facts["record"] == RECORD.to_dict()
    assert "inside: mean [0.5, 0.5, 0.5], sd [0.5, 0.5, 0.5]" in text and "inside: 0.5, 1 (bilinear)" in text
    path = with_weights_beside(tmp_path / "theirs.onnx", "/etc/passwd")  # which is not looked at
    model = onnx.load(path, load_external_data=False)
    model.graph.node.append(helper.make_node("Run", ["d"], ["z"], domain="com.example"))
    model.graph.initializer.append(helper.make_tensor("other", TensorProto.INT8, [1, 2], [3, 4]))
    path.write_bytes(model.SerializeToString())
    facts, text = describe_onnx(path)
    assert facts["custom_operators"] == ["com.example::Run"] and facts["weights_beside"] == ["/etc/passwd"]
    assert facts["record"] is None and "not said: mean and sd of ImageNet" in text
    assert {entry["name"]: entry["shape"] for entry in facts["tensors"]}["other"] == (1, 2)  # type: ignore[attr-defined]
