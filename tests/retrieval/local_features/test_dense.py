"""Places of a network's own map beside its descriptors: where they are, whoever computes them, and what verifies by
them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.local.test_detectors import noise
from tests.retrieval.local_features.test_extraction import CHOICE, content
from ultron_cli.errors import UltronError
from ultron_cli.local import choose_detector
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction import shards
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset
from ultron_cli.retrieval.extraction.shards import Extraction
from ultron_cli.retrieval.local_features.detection import Detection
from ultron_cli.retrieval.local_features.files import open_local_features
from ultron_cli.retrieval.local_features.opened import require_alike
from ultron_cli.retrieval.local_features.request import LocalRequest
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files

SIDE_PX = 256
N_DATABASE = 5


def street(seed: int, left: int = 0) -> Image.Image:
    """256 x 192 px of a wide picture of blocks, from `left` on."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 24, 3), np.uint8)
    return Image.fromarray(blocks).resize((384, 192), Image.Resampling.BICUBIC).crop((left, 0, left + 256, 192))


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A query, the same street 48 px further on (p3), and others."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "jpg").mkdir()
    for i in range(N_DATABASE):
        street(7 if i == 3 else i, 48 if i == 3 else 0).save(folder / "jpg" / f"p{i}.png")
    street(7).save(folder / "jpg" / "q.png")
    gnd = {
        "imlist": [f"p{i}" for i in range(N_DATABASE)],
        "qimlist": ["q"],
        "gnd": [{"bbx": [0, 0, 256, 192], "easy": [3], "hard": [], "junk": []}],
    }
    (folder / "gnd_photos.json").write_text(json.dumps(gnd))
    return folder


def extract(
    folder: Path, out: Path, *assignments: str, choice: ModelChoice = CHOICE, **settings: object
) -> ExtractSummary:
    values = ("scales=[1]", "dim=16", *assignments)
    request = ExtractRequest(
        dataset=str(folder),
        scales=(1.0,),
        max_side_px=64,
        n_workers=0,
        local=LocalRequest(detector=choose_detector("dense", values), max_keypoints=400, max_side_px=SIDE_PX),
        out=out,
    )
    return extract_dataset(replace(request, **settings), choice, "cpu")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extracted at once."""
    out = tmp_path_factory.mktemp("whole")
    extract(photos, out)
    return out


def test_places_of_the_map_in_the_photo(photos: Path, whole: Path) -> None:
    with (
        open_local_features(whole / "database.local.h5") as file,
        open_local_features(whole / "queries.local.h5") as queries,
    ):
        info = file.info
        network = info.extraction.stored["network"]
        assert isinstance(network, dict) and network["layer"] == "layer3" and info.cell_px == 16
        assert network["model"] == {"name": "gem", "settings": network["model"]["settings"]}
        assert info.origin.weights is not None and file.dtype == np.uint8 and file.dim == 16
        features = file.read(0)
        assert len(features) == 16 * 12 and features.size == (256, 192)  # fewer than may be: every cell
        expected = {(x, y) for x in range(3, 256, 16) for y in range(3, 192, 16)}  # test_map_places.py: 3 and 16
        assert set(map(tuple, features.positions.tolist())) == expected
        assert set(features.scales.tolist()) == {16} and not features.angles.any()
        assert file.projection is not None and file.projection.matrix.shape == (16, 192)
        assert file.projection.equals(queries.projection)
        like = Detection.like(file).of_photo(photos / "jpg" / "p0.png")  # as photos by path are described
        assert like.descriptors.tobytes() == features.descriptors.tobytes()


def searched(out: Path, *settings: str) -> Ranking:
    steps = parse_rerank("geometry", [f"geometry.{setting}" for setting in settings])
    return search_files(out / "queries.h5", out / "database.h5", None, "cpu", options=SearchOptions(steps=steps))


def test_geometry_verifies_them(whole: Path) -> None:
    ranking = searched(whole, "least=6")
    assert ranking.rows[0, 0] == 3 and ranking.scores is not None and ranking.scores[0, 0] > 20
    assert ranking.origin.search is not None
    assert ranking.origin.search.steps[-1].measured["n_promoted"] == 1


def test_stopped_and_continued_is_the_same(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[..., None] = Extraction._write_shard

    def write_and_stop(self: Extraction, parts: Path, i: int, shard: object) -> None:
        write(self, parts, i, shard)
        if parts.name == "database.local.h5.parts" and i == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Extraction, "_write_shard", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path)
    monkeypatch.setattr(Extraction, "_write_shard", write)
    summary = extract(photos, tmp_path, n_workers=1)
    assert summary["local"]["database"]["computed"] == N_DATABASE - 4
    for name in ("database.local.h5", "queries.local.h5"):
        assert content(tmp_path / name) == content(whole / name)
    assert not list(tmp_path.glob("*.parts"))


def test_distractors_take_the_projection_of_the_database(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(noise(i)).save(folder / f"d{i}.png")
    extract(folder, tmp_path / "alone")
    extract(folder, tmp_path / "alike", f"projection={whole / 'database.local.h5'}")
    with open_local_features(whole / "queries.local.h5") as queries:
        with open_local_features(tmp_path / "alike" / "database.local.h5") as file:
            require_alike(queries, file)
        with (
            open_local_features(tmp_path / "alone" / "database.local.h5") as file,
            pytest.raises(UltronError, match="went through different projections"),
        ):
            require_alike(queries, file)
    with pytest.raises(UltronError, match=r"the projection of .* is of \(16, 192\), the map's must be of \(16, 96\)"):
        extract(folder, tmp_path / "x", "layer=last", f"projection={whole / 'database.local.h5'}")


@pytest.mark.parametrize("side_px", [16, 40])
def test_small_and_plain_photos_have_few_places_or_alike(tmp_path: Path, side_px: int) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    Image.new("RGB", (side_px, side_px), (90, 90, 90)).save(folder / "a.png")
    Image.new("RGB", (400, 20), (90, 90, 90)).save(folder / "b.png")
    extract(folder, tmp_path / "x", "layer=last")
    with open_local_features(tmp_path / "x" / "database.local.h5") as file:
        assert 1 <= len(file.read(0)) <= 4 and len(file.read(1)) >= 8


def test_other_networks_or_layers_are_refused_by_name(photos: Path, whole: Path) -> None:
    with pytest.raises(UltronError, match=r"database\.local\.h5 was made with another configuration: .*layer"):
        extract(photos, whole, "layer=layer2")
    with pytest.raises(UltronError, match=r"no layer 'layer9'.*stages: layer1, layer2"):
        extract(photos, whole, "layer=layer9")


def test_a_vits_patches(photos: Path, tmp_path: Path) -> None:
    choice = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_vit"})
    extract(photos, tmp_path, choice=choice)
    with open_local_features(tmp_path / "database.local.h5") as file:
        assert file.info.cell_px == 16 and file.read(0).positions.min() == 7.5
    assert searched(tmp_path, "least=6").rows[0, 0] == 3
