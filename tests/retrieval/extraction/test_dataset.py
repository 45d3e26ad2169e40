"""Extraction: shards survive a kill, only the same configuration continues, and nothing is dropped silently."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.prepared_python import start_python
from ultron_cli.datasets.folder import open_dataset
from ultron_cli.errors import UltronError
from ultron_cli.locks import only_writer
from ultron_cli.models import create_model
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction import described, shards
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.extraction.describe import describe

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 8)


def request(dataset: Path, out: Path, **changes: object) -> ExtractRequest:
    return ExtractRequest(**({"dataset": str(dataset), "out": out, "scales": (1.0,), "n_workers": 0} | changes))


def rows_of(path: Path) -> tuple[list[str], np.ndarray]:
    with DescriptorFile(path) as stored:
        return stored.names, stored.read()


def literal_descriptor(path: Path, box: tuple[float, ...] | None, scales: tuple[float, ...]) -> np.ndarray:
    """One photo at a time, as cirtorch does it: crop, normalise, per scale unit descriptor, mean, unit.

    A side that a scale brings below 32 px, the network's minimum, becomes 32 px.
    """
    torch.manual_seed(0)
    model = create_model("gem", backbone="test_resnet")
    image = Image.open(path).convert("RGB")
    if box is not None:
        image = image.crop(tuple(round(side) for side in box))
    assert min(image.size) >= 32
    pixels = np.asarray(image).astype(np.float64) / 255
    mean, sd = np.array(model.preprocessing.mean), np.array(model.preprocessing.sd)
    images = torch.from_numpy((pixels - mean) / sd).permute(2, 0, 1)[None].float()
    total = np.zeros(model.descriptor_dim)
    for scale in scales:
        height, width = int(images.shape[-2] * scale), int(images.shape[-1] * scale)
        if scale == 1.0:
            scaled = images
        elif min(height, width) >= 32:
            scaled = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        else:
            scaled = F.interpolate(images, size=(max(32, height), max(32, width)), mode="bilinear", align_corners=False)
        with torch.inference_mode():
            pooled = (
                model.backbone(scaled).clamp(min=1e-6).pow(3).mean((-2, -1)).pow(1 / 3)[0].numpy().astype(np.float64)
            )
        total += pooled / np.linalg.norm(pooled)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("scales", [(1.0,), (0.7071, 1.0, 1.4142)])
def test_descriptors_equal_a_literal_pipeline(toy: Path, tmp_path: Path, scales: tuple[float, ...]) -> None:
    extract_dataset(request(toy, tmp_path / "x", scales=scales), CHOICE, "cpu")
    dataset = open_dataset(str(toy), tmp_path)
    for file_name, boxed in (("queries.h5", True), ("database.h5", False)):
        names, rows = rows_of(tmp_path / "x" / file_name)
        for name, row in list(zip(names, rows, strict=True))[:5]:
            expected = literal_descriptor(dataset.photo_path(name), dataset.query(name).bbx if boxed else None, scales)
            np.testing.assert_allclose(row, expected, atol=2e-5)


def test_file_says_everything_that_shaped_it(toy: Path, tmp_path: Path) -> None:
    extract_dataset(request(toy, tmp_path / "x", storage="float16", max_side_px=80), CHOICE, "cpu")
    with h5py.File(tmp_path / "x" / "queries.h5") as stored:
        attributes = dict(stored.attrs)
        assert stored["descriptors"].dtype == np.float16
        assert stored["names"].asstr()[0].startswith("toy_")
    assert (attributes["format"], attributes["version"], bool(attributes["complete"])) == (
        "ultron-descriptors",
        1,
        True,
    )
    assert (attributes["dataset"], attributes["role"], attributes["crop"]) == ("toy", "query", "bbx")
    assert json.loads(attributes["scales"]) == [1.0]
    config = json.loads(attributes["config"])
    assert config["max_side_px"] == 80
    assert config["model"]["name"] == "gem"
    settings = {
        "backbone": "test_resnet",
        "pooling": "gem",
        "p": 3.0,
        "p_learnable": False,
        "descriptor_dim": None,
        "attention": None,
    }
    assert config["model"]["settings"].items() >= settings.items()
    assert config["weights_sha256"] == attributes["weights_sha256"]
    assert config["preprocessing"]["interpolation"] in ("bicubic", "bilinear")


def test_batching_does_not_change_descriptors(toy: Path, tmp_path: Path) -> None:
    for batch_size in (1, 7):
        extract_dataset(request(toy, tmp_path / str(batch_size), batch_size=batch_size), CHOICE, "cpu")
    (names_a, a), (names_b, b) = (rows_of(tmp_path / n / "database.h5") for n in ("1", "7"))
    assert names_a == names_b
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("n_done", [0, 1, 3])
def test_an_interrupted_run_continues(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_done: int) -> None:
    whole = extract_dataset(request(toy, tmp_path / "whole"), CHOICE, "cpu")
    written = []
    write = described.write_descriptors

    def stops_after(path: Path, *arguments: object) -> None:
        if "database" in str(path) and len(written) == n_done:
            raise KeyboardInterrupt
        if "database" in str(path):
            written.append(path)
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(described, "write_descriptors", stops_after)
    with pytest.raises(KeyboardInterrupt):
        extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert not (tmp_path / "x" / "database.h5").exists()
    monkeypatch.setattr(described, "write_descriptors", write)
    summary = extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    n_database = whole["files"]["database"]["n"]
    assert summary["files"]["database"] == {
        "path": str(tmp_path / "x" / "database.h5"),
        "n": n_database,
        "computed": n_database - 8 * n_done,
    }
    assert summary["files"]["query"]["computed"] == 0
    for file_name in ("queries.h5", "database.h5"):
        (names_a, a), (names_b, b) = (rows_of(tmp_path / folder / file_name) for folder in ("whole", "x"))
        assert names_a == names_b
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert not list((tmp_path / "x").glob("*.parts"))


def test_killed_at_any_moment_only_whole_files_are_left(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL as soon as each next shard appears; every file under a final name must open."""
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 2)
    out = tmp_path / "x"
    code = (
        "from ultron_cli.retrieval.extraction import shards; shards.PHOTOS_PER_SHARD = 2; from ultron_cli.cli "
        "import main; import sys; sys.exit(main())"
    )
    flags = ["--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0", "--out", str(out)]
    command = ["-c", code, "extract", toy, *flags]
    environment = os.environ | {"ULTRON_WORKSPACE": str(tmp_path / "runs")}
    for n_shards in (1, 3):
        process = start_python(command, tmp_path / "log.txt", environment=environment)
        while len(list(out.glob("database.h5.parts/shard-*.h5"))) < n_shards:
            process.join(0.01)
            assert process.is_alive(), (process.exitcode, (tmp_path / "log.txt").read_text())
        process.kill()
        process.join()
        for path in out.rglob("[!.]*.h5"):
            with DescriptorFile(path) as stored:
                assert stored.n == len(stored.read())
    done = len(list(out.glob("database.h5.parts/shard-*.h5")))
    summary = extract_dataset(request(toy, out), CHOICE, "cpu")
    assert summary["files"]["database"]["computed"] == summary["files"]["database"]["n"] - 2 * done


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scales": (0.5, 1.0)}, r"scales \(stored \[1.0\], asked \[0.5, 1.0\]\)"),
        ({"max_side_px": 64}, r"max_side_px \(stored 1024, asked 64\)"),
        ({"crop": "none"}, r"crop \(stored bbx, asked none\)"),
    ],
)
def test_another_configuration_is_refused_and_told(
    toy: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    before = (tmp_path / "x" / "queries.h5").read_bytes()
    with pytest.raises(UltronError, match=words) as raised:
        extract_dataset(request(toy, tmp_path / "x", **changes), CHOICE, "cpu")
    assert "`overwrite`" in str(raised.value)
    assert (tmp_path / "x" / "queries.h5").read_bytes() == before
    extract_dataset(request(toy, tmp_path / "x", overwrite=True, **changes), CHOICE, "cpu")


def test_other_weights_are_refused(toy: Path, tmp_path: Path) -> None:
    extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    other = ModelChoice(untrained=True, seed=1, model="gem", settings={"backbone": "test_resnet"})
    with pytest.raises(UltronError, match="weights_sha256"):
        extract_dataset(request(toy, tmp_path / "x"), other, "cpu")


def test_finished_work_is_reused(toy: Path, tmp_path: Path) -> None:
    extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    again = extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert [part["computed"] for part in again["files"].values()] == [0, 0]


def folder_of_photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Image.new("RGB", (40 + i, 50), (20 * i, 90, 60)).save(folder / f"{i}.jpg")
    Image.new("RGB", (7, 5), (1, 2, 3)).save(folder / "tiny.png")
    Image.new("L", (64, 64), 90).save(folder / "grey.png")
    Image.new("CMYK", (64, 64), (10, 20, 30, 40)).save(folder / "print.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a photo")
    return folder


def test_a_bad_photo_stops_the_run_by_name(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path)
    with pytest.raises(UltronError, match=r"broken\.jpg: cannot be decoded .*`skip_bad`"):
        extract_dataset(request(folder, tmp_path / "x"), CHOICE, "cpu")
    assert not (tmp_path / "x" / "database.h5").exists()


@pytest.mark.parametrize("n_workers", [0, 1])
def test_skip_bad_lists_and_counts(tmp_path: Path, n_workers: int) -> None:
    folder = folder_of_photos(tmp_path)
    summary = extract_dataset(request(folder, tmp_path / "x", skip_bad=True, n_workers=n_workers), CHOICE, "cpu")
    assert summary["files"]["database"]["n"] == 13
    assert [entry["name"] for entry in summary["skipped"]] == ["broken.jpg"]
    with DescriptorFile(tmp_path / "x" / "database.h5") as stored:
        assert stored.info.skipped[0].name == "broken.jpg"
        assert "cannot be decoded" in stored.info.skipped[0].reason
        assert "broken.jpg" not in stored.names
        assert {"tiny.png", "grey.png", "print.jpg"} <= set(stored.names)


def test_no_readable_photo_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UltronError, match="not one of 1 photo could be decoded"):
        extract_dataset(request(tmp_path / "p", tmp_path / "x", skip_bad=True), CHOICE, "cpu")
    assert not (tmp_path / "x" / "database.h5").exists()


def test_a_second_writer_is_refused(toy: Path, tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "x", "held"),
        pytest.raises(UltronError, match="another `ultron extract` is writing"),
    ):
        extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")


def test_no_side_falls_below_the_networks_minimum() -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone="test_resnet")
    with torch.inference_mode():
        descriptors = describe(model, torch.randint(0, 256, (1, 32, 400, 3), dtype=torch.uint8), (0.3535, 1.0))
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(1))


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        ("float32", "in float32; take other weights$"),
        ("bfloat16", "in bfloat16; take other weights, or try `precision=float32`$"),
    ],
)
def test_a_descriptor_that_is_not_finite_is_not_stored(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, advice: str
) -> None:
    """float32 is advised only where it is not what was used."""
    monkeypatch.setattr(described, "describe_batch", lambda model, batch, *_: np.full((len(batch), 256), np.nan))
    with pytest.raises(UltronError, match=f"a descriptor that is not finite {advice}"):
        extract_dataset(request(toy, tmp_path / "out", precision=precision), CHOICE, "cpu")
