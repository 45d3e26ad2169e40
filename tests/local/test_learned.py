"""DISK, ALIKED and XFeat: with drawn weights of a file what kornia gives, packed, and found again by path."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.local.test_detectors import noise
from tests.retrieval.local_features.test_extraction import extract, photos  # noqa: F401 - a fixture
from ultron_cli.errors import UltronError
from ultron_cli.local import choose_detector
from ultron_cli.local.dense import MIDDLE, STORED_SCALE
from ultron_cli.local.detectors import strongest
from ultron_cli.local.lightglue import LightGlue, LightGlueSettings
from ultron_cli.retrieval.local_features.detection import Detection
from ultron_cli.retrieval.local_features.files import open_local_features
from ultron_cli.retrieval.local_features.request import LocalRequest
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files

DRAWN_LEAST = {"disk": 0.0, "aliked": 0.2, "xfeat": 0.001}  # drawn weights of XFeat give little
DIMS = {"disk": 128, "aliked": 64, "xfeat": 64}
SIZE = (128, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Drawn weights of each network, as their authors' files hold them."""
    kornia = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    aliked = kornia.ALIKED("aliked-t16").state_dict()
    contents = {
        "disk": {"extractor": kornia.DISK().state_dict()},
        "aliked": {name: value for name, value in aliked.items() if "num_batches" not in name},
        "xfeat": kornia.XFeat().net.state_dict(),
    }
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in contents}


def settings(name: str, weights: dict[str, Path]) -> list[str]:
    return [f"weights={weights[name]}", f"least_score={DRAWN_LEAST[name]}"]


def of_kornia(name: str, path: Path, pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(places, scores, descriptors) of the network as its package runs it."""
    from kornia.feature import ALIKED, DISK, XFeat

    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    state = torch.load(path, weights_only=True)
    with torch.inference_mode():
        if name == "disk":
            disk = DISK().eval()
            disk.load_state_dict(state["extractor"])
            features = disk(photo)[0]
            return features.keypoints, features.detection_scores, features.descriptors
        if name == "aliked":
            aliked = ALIKED("aliked-t16").eval()
            aliked.load_state_dict(state, strict=False)
            features = aliked(photo)[0]
            return features.keypoints, features.keypoint_scores, features.descriptors
        xfeat = XFeat().eval()
        xfeat.net.load_state_dict(state)
        answer = xfeat.detectAndCompute(photo, detection_threshold=DRAWN_LEAST[name])[0]
        return answer["keypoints"], answer["scores"], answer["descriptors"]


@pytest.mark.parametrize("name", DIMS)
def test_features_are_those_of_the_network(name: str, weights: dict[str, Path]) -> None:
    """Of a photo whose sides need no padding."""
    pixels = noise(1, SIZE)
    detector = choose_detector(name, settings(name, weights)).make()
    assert detector.descriptor_dim == DIMS[name] and detector.descriptor_type == "uint8"
    features = detector.detect(pixels, 10_000)
    places, scores, vectors = (part.numpy() for part in of_kornia(name, weights[name], pixels))
    assert len(features) == len(places) > 5 and features.descriptors.shape == (len(places), DIMS[name])
    np.testing.assert_allclose(features.positions, places, atol=1e-3)
    np.testing.assert_allclose(features.strengths, scores, rtol=1e-4)
    unpacked = (features.descriptors.astype(np.float32) - MIDDLE) / STORED_SCALE
    assert np.abs(unpacked - np.clip(vectors, -0.5, 127 / 256)).max() <= 0.51 / STORED_SCALE
    assert (features.scales > 0).all() and not features.angles.any() and features.size == SIZE
    fewer = strongest(detector.detect(pixels, 5), 5)
    np.testing.assert_array_equal(fewer.positions, strongest(features, 5).positions)


@pytest.mark.parametrize("name", DIMS)
def test_photos_of_any_size(name: str, weights: dict[str, Path]) -> None:
    """Features lie in the photo; a black one, and one smaller than a network takes, are no faults."""
    detector = choose_detector(name, settings(name, weights)).make()
    for width, height in ((97, 65), (16, 40), (64, 32)):
        features = detector.detect(noise(3, (128, 96))[:height, :width], 100)
        assert features.size == (width, height)
        x, y = features.positions.T
        assert not len(features) or (x.min() >= -0.5 and y.min() >= -0.5)
        assert not len(features) or (x.max() < width - 0.5 and y.max() < height - 0.5)
    detector.detect(np.zeros((48, 80, 3), np.uint8), 100)


def test_files_that_are_no_weights_of_the_network(weights: dict[str, Path], tmp_path: Path) -> None:
    cut = torch.load(weights["xfeat"], weights_only=True)
    path = tmp_path / "w.pth"
    cases = [("disk", torch.load(weights["aliked"], weights_only=True)), ("aliked", {}), ("xfeat", [1])]
    cases += [("xfeat", {name: value for name, value in cut.items() if "running_var" not in name})]
    cases += [("aliked", {"desc_head.agg_weights": torch.zeros(3, 3, 3)})]
    cases += [("disk", {"extractor": 3}), ("xfeat", {**cut, "skip1.1.weight": torch.zeros(3)})]
    for name, content in cases:
        torch.save(content, path)
        with pytest.raises(UltronError, match=r"w\.pth holds no weights of (DISK|ALIKED|XFeat) \("):
            choose_detector(name, [f"weights={path}"]).make()
    path.write_bytes(b"none")
    with pytest.raises(UltronError, match="not a weights file"):
        choose_detector("xfeat", [f"weights={path}"]).make()
    with pytest.raises(UltronError, match=r"`local\.weights` must be a file of the detector's weights; found none"):
        choose_detector("xfeat")


def test_extracted_verified_and_found_by_path(
    photos: Path,  # noqa: F811
    weights: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights are known by what they hold, wherever they lie; a photo by path is described by those of the file."""
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    moved = {"xfeat": tmp_path / "moved.pth"}
    moved["xfeat"].write_bytes(weights["xfeat"].read_bytes())
    requests = [
        LocalRequest(detector=choose_detector("xfeat", settings("xfeat", of)), max_keypoints=40, max_side_px=128)
        for of in (weights, moved)
    ]
    extract(photos, tmp_path / "out", local=requests[0])
    assert extract(photos, tmp_path / "out", local=requests[1])["local"]["database"]["computed"] == 0
    files = (tmp_path / "out" / "queries.h5", tmp_path / "out" / "database.h5")
    ranking = search_files(*files, None, "cpu", options=SearchOptions(steps=parse_rerank("geometry", [])))
    assert ranking.rows.shape == (1, 5)
    with open_local_features(tmp_path / "out" / "database.local.h5") as file:
        assert file.info.settings["weights"] != str(weights["xfeat"])
        again = Detection.like(file).of_photo(photos / "jpg" / "p2.png")
        for part in ("positions", "descriptors", "strengths"):
            np.testing.assert_array_equal(getattr(again, part), getattr(file.read(2), part))
        content = torch.load(weights["xfeat"], weights_only=True)
        before = weights["xfeat"].read_bytes()
        torch.save({**content, "skip1.1.bias": content["skip1.1.bias"] + 1}, weights["xfeat"])
        with pytest.raises(UltronError, match=r"xfeat\.pth holds other weights than those by which .*database\.local"):
            Detection.like(file)
        weights["xfeat"].write_bytes(before)


def test_lightglue_gets_learned_descriptors_as_they_were(weights: dict[str, Path], tmp_path: Path) -> None:
    """Around 0 and of unit length."""
    shape = {"input_dim": 128, "descriptor_dim": 32, "num_heads": 2, "n_layers": 1, "add_scale_ori": False}
    from kornia.feature import LightGlue as Network

    torch.save(Network(features=None, **shape).state_dict(), tmp_path / "disk_lightglue.pth")
    matcher = LightGlue(LightGlueSettings(weights=str(tmp_path / "disk_lightglue.pth")))
    pixels = noise(1, SIZE)
    features = choose_detector("disk", settings("disk", weights)).make().detect(pixels, 10_000)
    _, _, vectors = of_kornia("disk", weights["disk"], pixels)
    taken = matcher._input(features)["descriptors"][0]
    assert (torch.linalg.norm(taken, dim=1) - 1).abs().max() < 1e-5
    assert (taken * vectors).sum(dim=1).min() > 0.98
    assert len(matcher.match(features, features)) <= len(features)
