"""Extraction by another runtime: what is stored, what goes on with what, and what `auto` takes."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ultron_kernels import scaling

from tests.conftest import Run
from ultron_cli.datasets.photos import LoadedPhoto
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import limited_threads
from ultron_cli.models import runtimes
from ultron_cli.models.runtimes import RuntimeEntry, Threads
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction import runtime_choice
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset
from ultron_cli.retrieval.extraction.streams import described_by_photo
from ultron_cli.retrieval.photo_queries import search_photos

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of seven smooth photos of three shapes."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(7):
        small = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        small.resize(((96, 64), (64, 96), (80, 64))[i % 3], Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Threads]:
    """openvino's place taken by torch a photo at a time, so that nothing is exported; returns what it was opened
    with."""
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    threads_used: list[Threads] = []

    class StandIn:
        @staticmethod
        def open_network(loaded: LoadedModel, device: torch.device, precision: str, threads: Threads) -> Network:
            threads_used.append(threads)
            return loaded.model

    entry = RuntimeEntry(module="stand_in", is_per_photo=True, is_for_auto=True)
    monkeypatch.setitem(sys.modules, "ultron_cli.models.runtimes.stand_in", StandIn)
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", entry)
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", RuntimeEntry(module="onnx_runtime", packages=("no_such",)))
    return threads_used


def extracted(photo_folder: Path, out: Path, **changes: object) -> ExtractSummary:
    request = {"dataset": str(photo_folder), "out": out, "scales": (1.0,), "n_workers": 0} | changes
    return extract_dataset(ExtractRequest(**request), CHOICE, "cpu")  # type: ignore[arg-type]  # fields by name


def rows_of(path: Path) -> tuple[list[str], np.ndarray]:
    with DescriptorFile(path) as stored:
        return stored.names, stored.read()


@pytest.mark.parametrize("n_workers", [None, 1])
def test_descriptors_are_torchs_and_say_who_made_them(
    photo_folder: Path, tmp_path: Path, n_workers: int | None
) -> None:
    extracted(photo_folder, tmp_path / "torch")
    with limited_threads(2):
        summary = extracted(photo_folder, tmp_path / "other", runtime="openvino", n_workers=n_workers)
    names, descriptors = rows_of(tmp_path / "other" / "database.h5")
    expected_names, expected = rows_of(tmp_path / "torch" / "database.h5")
    assert names == expected_names
    assert (descriptors * expected).sum(axis=1).min() > 0.99999
    assert summary["config"]["runtime"] == "openvino"
    with DescriptorFile(tmp_path / "other" / "database.h5") as stored:
        assert stored.info.extraction.runtime == "openvino"
        assert stored.info.provenance.runtime_cosine == pytest.approx(1.0, abs=1e-5)
    with DescriptorFile(tmp_path / "torch" / "database.h5") as stored:
        assert stored.info.extraction.runtime == "torch" and stored.info.provenance.runtime_cosine is None


def test_photos_are_scaled_by_the_compiled_library_on_each_thread(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not scaling.is_ready(worth_building=True):
        pytest.skip("compiled scaling cannot be had on this machine")
    scale_photo = scaling.scale_photo
    threads: list[str] = []

    def noted(*arguments: Any) -> None:
        threads.append(threading.current_thread().name.partition("_")[0])
        scale_photo(*arguments)

    monkeypatch.setattr(scaling, "scale_photo", noted)
    with limited_threads(2):
        extracted(photo_folder, tmp_path / "several", runtime="openvino", scales=(0.7071, 1.0))
    names, _ = rows_of(tmp_path / "several" / "database.h5")
    n_probed = min(len(names), runtime_choice.N_PROBED)
    assert threads == ["describe"] * 2 * (len(names) + n_probed)


def test_a_photo_that_cannot_be_read_is_left_out(photo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = sorted((photo_folder).iterdir())[:5]
    for photo in photos:
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / photos[1].name).write_bytes(b"no photo")
    with pytest.raises(UltronError, match=photos[1].name):
        extracted(folder, tmp_path / "out", runtime="openvino")
    summary = extracted(folder, tmp_path / "out", runtime="openvino", skip_bad=True)
    assert [photo["name"] for photo in summary["skipped"]] == [photos[1].name]
    assert len(rows_of(tmp_path / "out" / "database.h5")[0]) == 4


def test_only_the_same_runtime_goes_on(photo_folder: Path, tmp_path: Path, stand_in: list[Threads]) -> None:
    extracted(photo_folder, tmp_path, runtime="openvino")
    with pytest.raises(UltronError, match=r"runtime \(stored openvino, asked torch\)"):
        extracted(photo_folder, tmp_path)
    assert extracted(photo_folder, tmp_path, runtime="auto")["files"]["database"]["computed"] == 0
    extracted(photo_folder, tmp_path, overwrite=True)
    stand_in.clear()
    assert (
        extracted(photo_folder, tmp_path, runtime="auto")["files"]["database"]["computed"] == 0
    )  # torch's, and nothing opened
    assert not stand_in


def speeds(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    monkeypatch.setattr(runtime_choice._Probe, "seconds", lambda self, runtime, precision: seconds[runtime.name])


@pytest.mark.parametrize(("torch_s", "taken"), [(3.0, "openvino"), (1.0, "torch")])
def test_auto_takes_the_fastest(
    photo_folder: Path,
    tmp_path: Path,
    torch_s: float,
    taken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    speeds(monkeypatch, {"torch": torch_s, "openvino": 2.0})
    with caplog.at_level(logging.INFO):
        assert extracted(photo_folder, tmp_path, runtime="auto")["config"]["runtime"] == taken
    assert f"runtime {taken} (photos/s: torch {4 / torch_s:.2f}, openvino 2.00)" in caplog.text


def test_what_does_not_agree_is_not_taken(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    speeds(monkeypatch, {"torch": 3.0, "openvino": 2.0})
    monkeypatch.setattr(runtime_choice._Probe, "least_cosine", lambda self, runtime, precision: 0.9999899)
    assert extracted(photo_folder, tmp_path, runtime="auto")["config"]["runtime"] == "torch"
    assert "runtime openvino does not agree with torch" in caplog.text
    with pytest.raises(WorkFailed, match=r"photos' descriptors is 0\.9999899, at least 0\.99999 is wanted, or use"):
        extracted(photo_folder, tmp_path / "named", runtime="openvino")
    assert not (tmp_path / "named").exists()


def test_photos_are_searched_by_the_runtime_of_the_database(
    photo_folder: Path,
    tmp_path: Path,
    stand_in: list[Threads],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    extracted(photo_folder, tmp_path, runtime="openvino")
    stand_in.clear()
    photo = sorted((photo_folder).iterdir())[0]
    before = search_photos([photo], tmp_path / "database.h5", 3, "cpu")
    assert [threads.n_at_once for threads in stand_in] == [1] and "torch describes" not in caplog.text
    monkeypatch.setitem(
        runtimes.RUNTIMES, "openvino", RuntimeEntry(module="x", packages=("no_such",), extra="openvino")
    )
    after = search_photos([photo], tmp_path / "database.h5", 3, "cpu")
    assert (after.rows == before.rows).all()
    assert 'runtime openvino needs no_such; install it: pip install "ultron[openvino]"' in caplog.text


def test_what_is_not_installed_is_said_in_one_line(ultron: Run, photo_folder: Path, tmp_path: Path) -> None:
    arguments = ("extract", photo_folder, "--untrained", "--backbone", "test_resnet", "--out", tmp_path / "x")
    code, _, err = ultron(*arguments, "--runtime", "onnxruntime")
    assert code == 2 and "error: runtime onnxruntime needs no_such; install it: pip install" in err
    code, _, err = ultron(*arguments, "--runtime", "tensorrt")
    assert code == 2 and "torch, compile, onnxruntime, openvino, auto" in err.replace("'", "")
    code, out, err = ultron(*arguments, "--runtime", "openvino", "--json", "--max-side", 64, "--scales", 1)
    assert code == 0 and json.loads(out)["config"]["runtime"] == "openvino", err


def test_photos_come_in_order_whichever_is_done_first() -> None:
    n_under_way = 0

    def reader(row: int) -> Callable[[], LoadedPhoto]:
        def read() -> LoadedPhoto:
            nonlocal n_under_way
            n_under_way += 1
            return LoadedPhoto(row, None if row == 5 else torch.zeros(1, 1, 3, dtype=torch.uint8))

        return read

    def describe(photos: Sequence[LoadedPhoto]) -> np.ndarray:
        assert torch.get_num_threads() == 1
        return np.full((1, 2), photos[0].row)

    described = described_by_photo(map(reader, range(40)), describe, Threads(n_at_once=3))
    first = next(described)
    assert first.photos[0].row == 0 and n_under_way <= 12  # no more are read than can be waited for
    rest = list(described)
    assert [part.photos[0].row for part in rest] == list(range(1, 40))
    assert [part.results is None for part in rest] == [row == 5 for row in range(1, 40)]
