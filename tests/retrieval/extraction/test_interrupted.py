"""An extraction that was stopped, whose shards were damaged, or for which there is no room."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli import output_files
from ultron_cli.errors import WorkFailed
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction import shards
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.extraction.shards import Extraction
from ultron_cli.stops import StoppedBySignal, stop_line

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 2)


def request(toy: Path, out: Path) -> ExtractRequest:
    return ExtractRequest(dataset=str(toy), scales=(1.0,), out=out, n_workers=0)


def rows_of(path: Path) -> np.ndarray:
    with DescriptorFile(path) as stored:
        return stored.read()


def stop_after(monkeypatch: pytest.MonkeyPatch, n_shards: int, error: BaseException) -> None:
    """The next extraction ends with `error` when so many shards of the database are written."""
    write = Extraction._write_shard
    written: list[int] = []

    def write_and_stop(self: Extraction, parts: Path, i: int, shard: shards._Shard) -> None:
        write(self, parts, i, shard)
        written.append(i)
        if self.config.role == "database" and i + 1 == n_shards:
            monkeypatch.setattr(Extraction, "_write_shard", write)
            raise error

    monkeypatch.setattr(Extraction, "_write_shard", write_and_stop)


@pytest.mark.parametrize(
    ("error", "reason"), [(KeyboardInterrupt(), "interrupted"), (StoppedBySignal("SIGTERM"), "stopped by SIGTERM")]
)
def test_ctrl_c_says_how_to_go_on(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: KeyboardInterrupt, reason: str
) -> None:
    stop_after(monkeypatch, 3, error)
    with pytest.raises(KeyboardInterrupt) as stopped:
        extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    line = stop_line(stopped.value)
    assert line.startswith(f"{reason}: 6 of ")
    assert line.endswith(" database photos are done and kept, the same command goes on from there")
    assert not [path for path in (tmp_path / "x").rglob(".*")]
    summary = extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert summary["files"]["database"]["computed"] == summary["files"]["database"]["n"] - 6


def test_damaged_shards_are_computed_again(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Truncated, empty, of other photos, of other rows, no HDF5: as if they were not there."""
    extract_dataset(request(toy, tmp_path / "whole"), CHOICE, "cpu")
    stop_after(monkeypatch, 6, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    parts = [tmp_path / "x" / "database.h5.parts" / f"shard-{i:06d}.h5" for i in range(6)]
    content = parts[0].read_bytes()
    parts[0].write_bytes(content[: len(content) // 2])
    parts[1].write_bytes(b"")
    parts[2].write_bytes(parts[3].read_bytes())
    parts[4].write_bytes(b"\0" * len(content))
    summary = extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert summary["files"]["database"]["computed"] == summary["files"]["database"]["n"] - 2 * 2
    assert caplog.text.count("computing a shard again") == 4
    assert "shard-000002.h5 must hold the photos of its place" in caplog.text
    np.testing.assert_array_equal(rows_of(tmp_path / "x" / "database.h5"), rows_of(tmp_path / "whole" / "database.h5"))


def test_a_shard_that_vanishes_is_computed_again(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = Extraction._write_shard
    removed: list[Path] = []

    def write_and_remove(self: Extraction, parts: Path, i: int, shard: shards._Shard) -> None:
        write(self, parts, i, shard)
        if i == 1 and not removed:
            removed.append(parts / "shard-000000.h5")
            removed[0].unlink()

    monkeypatch.setattr(Extraction, "_write_shard", write_and_remove)
    summary = extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert "1 shard vanished from" in caplog.text
    assert summary["files"]["database"]["n"] == len(rows_of(tmp_path / "x" / "database.h5"))


def test_a_disk_without_room_is_told_before(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_files, "free_bytes", lambda folder: 50_000)
    with pytest.raises(WorkFailed, match=r"the extraction takes about .*, .*x has 50\.0 kB free and .* are missing"):
        extract_dataset(request(toy, tmp_path / "x"), CHOICE, "cpu")
    assert not list((tmp_path / "x").iterdir())


def test_the_command_names_its_flag(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ultron: Run) -> None:
    monkeypatch.setattr(output_files, "free_bytes", lambda folder: 50_000)
    flags = ("--untrained", "--model", "gem", "--backbone", "test_resnet", "--workers", "0")
    code, out, err = ultron("extract", toy, *flags, "--out", tmp_path / "x")
    assert (code, out) == (1, "") and err.splitlines()[-1].endswith("free space, or name another place with --out")
