"""How the edges of a query's box become whole pixels: as the network's authors have it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import shared_or_skip
from ultron_cli.datasets.photos import clip_box
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.models import create_model
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.searching import describer_of

BOX = (10.6, 5.2, 60.5, 47.9)  # rounded 11, 5, 60, 48 (half to even); truncated 10, 5, 60, 47


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos of noise, of which the first is a query with a box between pixels."""
    photos = tmp_path / "noise" / "jpg"
    photos.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(draws.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(photos / f"{name}.png")
    gnd = [{"bbx": list(BOX), "easy": [1], "hard": [], "junk": []}]
    (tmp_path / "noise/gnd_noise.json").write_text(json.dumps({"imlist": ["a", "b"], "qimlist": ["a"], "gnd": gnd}))
    return tmp_path / "noise"


def test_a_worked_example() -> None:
    assert clip_box(BOX, 80, 64, "q", "rounded") == (11, 5, 60, 48)
    assert clip_box(BOX, 80, 64, "q", "truncated") == (10, 5, 60, 47)
    assert clip_box((-0.9, 3.5, 79.5, 64.9), 80, 64, "q", "truncated") == (0, 3, 79, 64)
    assert clip_box((7.2, 7.2, 7.9, 7.9), 80, 64, "q", "truncated") == (7, 7, 8, 8)  # of one pixel at least


@pytest.mark.parametrize(("name", "n_differing"), [("roxford5k", 21), ("rparis6k", 8)])
def test_published_boxes_differ_between_the_two_ways(name: str, n_differing: int) -> None:
    path = shared_or_skip("the boxes of ROxford and RParis") / "groundtruth" / f"gnd_{name}.pkl"
    if not path.is_file():
        pytest.skip(f"not checked: the boxes of {name}; {path} is not here")
    truth = load_ground_truth(path).queries
    ways = [[clip_box(query.bbx, 1024, 1024, "q", edges) for query in truth] for edges in ("rounded", "truncated")]
    assert ways[0] == [tuple(round(edge) for edge in query.bbx) for query in truth]
    assert ways[1] == [tuple(int(edge) for edge in query.bbx) for query in truth]
    assert sum(a != b for a, b in zip(*ways, strict=True)) == n_differing


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("gem", "rounded"),
        ("dolg-r50", "truncated"),
        ("superglobal", "truncated"),
        ("senet-r50", "truncated"),
        ("cfcd-r50", "truncated"),
    ],
)
def test_networks_have_their_authors_way(name: str, edges: str) -> None:
    model = create_model(name, backbone="test_resnet")
    assert model.preprocessing.box_edges == edges
    assert "box_edges" not in model.preprocessing.to_dict()  # descriptors of whole photos do not depend on it


@pytest.mark.parametrize(
    ("name", "pixels"), [("gem", (11, 5, 60, 48)), ("cfcd-r50", (10, 5, 60, 47))], ids=["gem", "cfcd"]
)
def test_extraction_crops_as_the_network_has_it(
    name: str, pixels: tuple[int, int, int, int], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    choice = ModelChoice(untrained=True, model=name, settings={"backbone": "test_resnet"})
    request = ExtractRequest(dataset=str(folder), out=tmp_path / "out", scales=(1.0,), n_workers=0)
    extract_dataset(request, choice, "cpu")
    model = choice.load().model
    photo = np.array(Image.open(folder / "jpg/a.png").crop(pixels))
    with torch.inference_mode():
        right = describe(model, torch.from_numpy(photo)[None], (1.0,))[0].numpy()
    with (
        DescriptorFile(tmp_path / "out/queries.h5") as queries,
        DescriptorFile(tmp_path / "out/database.h5") as database,
    ):
        np.testing.assert_allclose(queries.read()[0], right, atol=1e-6)
        assert queries.info.extraction.stored["box_edges"] == (None if name == "gem" else "truncated")
        assert database.info.extraction.stored["box_edges"] is None
        # A box that is given to a search of the database goes the same way.
        describer = describer_of(database.info, torch.device("cpu"), crop="bbx")
    np.testing.assert_allclose(describer.describe_photo(folder / "jpg/a.png", BOX), right, atol=1e-6)


def test_files_of_before_say_nothing_and_were_rounded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    for name, differing in (("gem", []), ("cfcd-r50", ["box_edges (stored None, asked truncated)"])):
        choice = ModelChoice(untrained=True, model=name, settings={"backbone": "test_resnet"})
        request = ExtractRequest(dataset=str(folder), out=tmp_path / name, scales=(1.0,), n_workers=0)
        extract_dataset(request, choice, "cpu")
        with DescriptorFile(tmp_path / name / "queries.h5") as queries:
            info = queries.info
        stored = {key: value for key, value in info.extraction.stored.items() if key != "box_edges"}
        before = ExtractionRecord(stored=stored)
        assert before.differences(info.extraction) == differing
        describer = describer_of(replace(info, extraction=before), torch.device("cpu"), crop="bbx")
        assert describer.load(folder / "jpg/a.png", BOX).shape == (43, 49, 3)
