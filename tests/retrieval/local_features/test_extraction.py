"""Local features beside descriptors: as detected, in the photo's pixels, whoever computes them and however often they
are interrupted."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run
from tests.local.test_detectors import CORNERS, blob, noise
from ultron_cli.datasets.photos import PhotoShape, load_placed
from ultron_cli.errors import UltronError
from ultron_cli.local import choose_detector
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction import shards
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset
from ultron_cli.retrieval.extraction.shards import Extraction
from ultron_cli.retrieval.local_features.extraction import MIN_SIDE_PX, Placing
from ultron_cli.retrieval.local_features.files import open_local_features
from ultron_cli.retrieval.local_features.request import LocalRequest

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})
PARTS = ("offsets", "sizes", "keypoints", "descriptors", "photo_digests")
N_DATABASE = 5


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of five photos and a query with a box."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "jpg").mkdir()
    for i in range(N_DATABASE):
        Image.fromarray(noise(i)).save(folder / "jpg" / f"p{i}.png")
    Image.fromarray(noise(9, (320, 240))).save(folder / "jpg" / "q.png")
    gnd = {
        "imlist": [f"p{i}" for i in range(N_DATABASE)],
        "qimlist": ["q"],
        "gnd": [{"bbx": [64, 32, 256, 176], "easy": [0], "hard": [1], "junk": []}],
    }
    (folder / "gnd_photos.json").write_text(json.dumps(gnd))
    return folder


def extract(folder: Path, out: Path, detector: str = "rootsift", **settings: object) -> ExtractSummary:
    request = ExtractRequest(
        dataset=str(folder),
        scales=(1.0,),
        max_side_px=64,
        n_workers=0,
        local=LocalRequest(detector=choose_detector(detector), max_keypoints=40, max_side_px=128),
        out=out,
    )
    return extract_dataset(replace(request, **settings), CHOICE, "cpu")


def content(path: Path) -> list[bytes]:
    with h5py.File(path) as handle:
        return [handle[name][:].tobytes() for name in PARTS]


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extracted at once."""
    out = tmp_path_factory.mktemp("whole")
    extract(photos, out)
    return out


def test_files_lie_beside_the_descriptors_and_say_what_they_hold(photos: Path, whole: Path) -> None:
    summary = extract(photos, whole)  # all is there
    assert {role: part["computed"] for role, part in summary["local"].items()} == {"database": 0, "query": 0}
    assert summary["local"]["query"]["path"] == str(whole / "queries.local.h5")
    with open_local_features(whole / "database.local.h5") as file:
        assert file.names == [f"p{i}" for i in range(N_DATABASE)] and file.marks is not None
        assert file.info.detector == "rootsift" and file.info.max_keypoints == 40 and file.info.max_side_px == 128
        assert (file.counts <= 40).all() and file.n_features == summary["local"]["database"]["n_features"]
        assert file.info.origin.dataset_folder == str(photos.resolve())
        assert abs(summary["local"]["database"]["bytes_per_photo"] - file.bytes_per_photo) < 0.1
        packages = file.info.origin.other["packages"]
        assert isinstance(packages, dict) and "opencv-python-headless" in packages


def test_features_of_a_query_lie_in_its_box_in_pixels_of_the_photo(photos: Path, whole: Path) -> None:
    with open_local_features(whole / "queries.local.h5") as file:
        features = file.read(0)
    assert features.size == (320, 240) and len(features) == 40
    x, y = features.positions.T
    assert x.min() >= 63.5 and x.max() <= 255.5 and y.min() >= 31.5 and y.max() <= 175.5
    assert x.max() > 200 and y.max() > 130  # the detector saw 128 x 96 px of it


def test_a_spot_is_found_at_its_place_of_the_photo(tmp_path: Path) -> None:
    """Whatever part of the photo is seen at whatever size."""
    path = tmp_path / "spot.png"
    Image.fromarray(blob(300.4, 200.6, 12.0, (640, 480))).save(path)
    detect = Placing(choose_detector("sift").make(), 10)
    for box, side_px in [(None, None), (None, 320), ((200, 100, 500, 340), None), ((201, 103, 487, 341), 150)]:
        features = detect(load_placed(path, box, PhotoShape(max_side_px=side_px, min_side_px=MIN_SIDE_PX)))
        assert features.size == (640, 480)
        assert np.abs(features.positions - (300.4, 200.6)).max() < 0.35
        assert abs(features.scales[0] / 12 - 1.78) < 0.15


def test_descriptors_that_are_there_stay(photos: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path, local=None)
    descriptors = (tmp_path / "database.h5").read_bytes()
    summary = extract(photos, tmp_path)
    assert summary["files"]["database"]["computed"] == 0 and summary["local"]["database"]["computed"] == N_DATABASE
    assert (tmp_path / "database.h5").read_bytes() == descriptors


@pytest.mark.parametrize("n_workers", [1, 2])
def test_equal_by_any_number_of_processes(photos: Path, whole: Path, tmp_path: Path, n_workers: int) -> None:
    extract(photos, tmp_path, n_workers=n_workers)
    for name in ("database.local.h5", "queries.local.h5"):
        assert content(tmp_path / name) == content(whole / name)


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
    summary = extract(photos, tmp_path)
    assert summary["local"]["database"]["computed"] == N_DATABASE - 4
    assert content(tmp_path / "database.local.h5") == content(whole / "database.local.h5")
    assert not list(tmp_path.glob("*.parts"))


def test_killed_and_continued_is_the_same(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL once two shards are on the disk."""
    extract(photos, tmp_path, local=None)
    write: Callable[..., None] = Extraction._write_shard

    def write_and_die(self: Extraction, parts: Path, i: int, shard: object) -> None:
        write(self, parts, i, shard)
        if i == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Extraction, "_write_shard", write_and_die)
    process = multiprocessing.get_context("fork").Process(target=extract, args=(photos, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.setattr(Extraction, "_write_shard", write)
    assert extract(photos, tmp_path)["local"]["database"]["computed"] == N_DATABASE - 4
    assert content(tmp_path / "database.local.h5") == content(whole / "database.local.h5")


def test_other_settings_are_refused_by_name(photos: Path, whole: Path) -> None:
    with pytest.raises(UltronError, match=r"database\.local\.h5 was made with another configuration: .*rootsift"):
        extract(photos, whole, "sift")


def test_bad_photos_are_left_out_of_both_files(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(noise(i)).save(folder / f"p{i}.png")
    (folder / "p1.png").write_bytes(b"torn")
    with pytest.raises(UltronError, match=r"p1\.png"):
        extract(folder, tmp_path / "x")
    extract(folder, tmp_path / "x", skip_bad=True)
    with open_local_features(tmp_path / "x" / "database.local.h5") as file:
        assert file.names == ["p0.png", "p2.png"] and [photo.name for photo in file.info.skipped] == ["p1.png"]


def test_a_photo_that_changed_is_detected_anew(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(noise(i)).save(folder / f"p{i}.png")
    extract(folder, tmp_path / "x")
    Image.fromarray(noise(7, (80, 80))).save(folder / "p1.png")
    assert extract(folder, tmp_path / "x")["local"]["database"]["computed"] == 1
    with open_local_features(tmp_path / "x" / "database.local.h5") as file:
        assert file.read(1).size == (80, 80) and file.read(2).size == (160, 120)


def test_a_users_detector_by_the_command_line(ultron: Run, photos: Path, tmp_path: Path) -> None:
    code = tmp_path / "corners.py"
    code.write_text(CORNERS)
    arguments = ("extract", photos, "--untrained", "--backbone", "test_resnet", "--max-side", 64, "--scales", 1)
    out = ("--out", tmp_path / "x", "--local", f"{code}:Corners", "--local-set", "margin=1", "--local-side", 0)
    exit_code, text, err = ultron(*arguments, *out, "--json")
    assert exit_code == 0, err
    assert json.loads(text)["local"]["database"]["n_features"] == 2 * N_DATABASE
    with open_local_features(tmp_path / "x" / "queries.local.h5") as file:
        assert file.read(0).positions.tolist() == [[65, 33], [255, 175]] and file.dtype == np.float32
    code.write_text(CORNERS + "\n# changed\n")
    exit_code, _, err = ultron(*arguments, *out)
    assert exit_code == 2 and "code_sha256" in err


def test_flags_without_local_are_refused(ultron: Run, photos: Path) -> None:
    code, _, err = ultron("extract", photos, "--untrained", "--local-side", 320, "--local-set", "a=1")
    assert code == 2 and "without --local there are no local features; leave out --local-side and --local-set" in err
    code, _, err = ultron("extract", photos, "--untrained", "--local", "surf")
    assert code == 2 and "--local must be one of rootsift, sift, orb, dense, disk, aliked, xfeat; found" in err
