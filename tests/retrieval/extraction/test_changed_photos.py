"""Photos replaced under their names, between runs and within one: never an old descriptor under a new photo."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ultron_cli.console import reset_settings, start_log
from ultron_cli.datasets import photo_marks
from ultron_cli.datasets.photo_marks import NO_FILE, PhotoMark, PhotoMarks, read_with_mark, state_of
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.extraction import described, shards
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, ExtractSummary, extract_dataset

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})
N_PHOTOS = 10
STRIPES = {"h": np.arange(48)[:, None], "v": np.arange(48)[None], "d": np.arange(48)[:, None] + np.arange(48)[None]}


def draw(path: Path, kind: str, period: int = 6) -> None:
    """A photo of stripes, without compression: those of one size have files of one size."""
    grey = np.broadcast_to((STRIPES[kind] // period % 2 * 255).astype(np.uint8), (48, 48))
    Image.fromarray(grey).convert("RGB").save(path, "BMP")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 4)
    reset_settings()
    start_log(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(N_PHOTOS):
        draw(folder / f"{i}.bmp", "h", 3 + i)
    return folder


def extract(photos: Path, out: Path, **changes: object) -> ExtractSummary:
    request = ExtractRequest(
        **({"dataset": str(photos), "out": out, "scales": (1.0,), "n_workers": 0, "batch_size": 1} | changes)  # type: ignore[arg-type]
    )
    return extract_dataset(request, CHOICE, "cpu")


def rows_of(folder: Path) -> dict[str, bytes]:
    with DescriptorFile(folder / "database.h5") as stored:
        return {name: row.tobytes() for name, row in zip(stored.names, stored.read(), strict=True)}


def require_as_if_new(photos: Path, out: Path, tmp_path: Path) -> None:
    """Bit for bit what an extraction into an empty folder gives."""
    extract(photos, tmp_path / "new", overwrite=True, skip_bad=True)
    assert rows_of(out) == rows_of(tmp_path / "new")


def keep_times(path: Path, replace: Callable[[], None]) -> None:
    before = path.stat()
    replace()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("how", ["written over", "renamed over", "of the same size and time"])
def test_a_photo_replaced_between_runs_is_told_and_computed_anew(
    photos: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(photos, tmp_path / "x")
    before = rows_of(tmp_path / "x")
    if how == "written over":
        draw(photos / "5.bmp", "v")
    elif how == "renamed over":
        draw(tmp_path / "other", "v")
        os.replace(tmp_path / "other", photos / "5.bmp")
    else:
        keep_times(photos / "5.bmp", lambda: draw(photos / "5.bmp", "v"))
    capsys.readouterr()
    summary = extract(photos, tmp_path / "x")
    assert summary["files"]["database"]["computed"] == 1
    assert f"warning: 1 photo changed since {tmp_path / 'x/database.h5'} was made" in capsys.readouterr().err
    after = rows_of(tmp_path / "x")
    assert [name for name in before if before[name] != after[name]] == ["5.bmp"]
    assert not list((tmp_path / "x").glob("*.parts"))
    require_as_if_new(photos, tmp_path / "x", tmp_path)
    assert extract(photos, tmp_path / "x")["files"]["database"]["computed"] == 0


def test_photos_that_only_look_changed_are_reused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(photos, tmp_path / "x")
    for path in photos.iterdir():
        os.utime(path, ns=(1, 1))
    shutil.copytree(photos, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(photos)
    os.rename(tmp_path / "copy", photos)
    capsys.readouterr()
    assert extract(photos, tmp_path / "x")["files"]["database"]["computed"] == 0
    assert "same configuration, weights and photos, 10 descriptors" in capsys.readouterr().err


def test_a_resumed_run_computes_changed_photos_anew(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = described.write_descriptors

    def stops(path: Path, *arguments: object) -> None:
        if "000002" in path.name:
            raise KeyboardInterrupt
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(described, "write_descriptors", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "x")
    monkeypatch.setattr(described, "write_descriptors", write)
    keep_times(photos / "0.bmp", lambda: draw(photos / "0.bmp", "d"))
    draw(photos / "9.bmp", "d")
    summary = extract(photos, tmp_path / "x")
    assert summary["files"]["database"]["computed"] == 3  # the last shard's two, and the one that changed
    assert "1 photo changed since" in capsys.readouterr().err
    require_as_if_new(photos, tmp_path / "x", tmp_path)


def test_killed_while_it_computes_changed_photos_it_still_ends_right(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(photos, tmp_path / "x")
    for i in (1, 6):
        draw(photos / f"{i}.bmp", "v")
    write = described.write_descriptors

    def stops(path: Path, *arguments: object) -> None:
        if path.name in ("shard-000001.h5", "database.h5"):
            raise KeyboardInterrupt
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(described, "write_descriptors", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "x")
    monkeypatch.setattr(described, "write_descriptors", write)
    draw(photos / "6.bmp", "d")
    assert extract(photos, tmp_path / "x")["files"]["database"]["computed"] == 1
    require_as_if_new(photos, tmp_path / "x", tmp_path)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_photo_replaced_while_the_run_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], n_workers: int
) -> None:
    write = described.write_descriptors

    def replaces(path: Path, *arguments: object) -> None:
        write(path, *arguments)  # type: ignore[arg-type]
        if "000001" in path.name and os.path.exists(tmp_path / "other"):
            os.replace(tmp_path / "other", photos / "2.bmp")

    monkeypatch.setattr(described, "write_descriptors", replaces)
    draw(tmp_path / "other", "v")
    extract(photos, tmp_path / "x", n_workers=n_workers)
    message = "1 photo changed while the extraction was under way: 2.bmp; computing new descriptors"
    assert message in capsys.readouterr().err
    require_as_if_new(photos, tmp_path / "x", tmp_path)


def test_photos_that_never_stop_changing_end_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = described.write_descriptors

    def replaces(path: Path, *arguments: object) -> None:
        write(path, *arguments)  # type: ignore[arg-type]
        draw(photos / "2.bmp", "v", 3 + replaces.n)
        replaces.n += 1

    replaces.n = 0
    monkeypatch.setattr(described, "write_descriptors", replaces)
    with pytest.raises(WorkFailed, match="keep changing while they are described"):
        extract(photos, tmp_path / "x")
    assert not (tmp_path / "x/database.h5").exists()


def test_a_photo_written_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    contents = []

    def read() -> bytes:
        contents.append(path.read_bytes())
        if len(contents) == 1:
            path.write_bytes(b"new!")
        return contents[-1]

    value, mark = read_with_mark(path, read)
    assert (value, mark) == (b"new!", PhotoMark(state_of(path), photo_marks.digest_of(path)))
    assert contents == [b"old", b"new!"]
    with pytest.raises(UltronError, match="changes while it is read"):
        read_with_mark(path, lambda: path.write_bytes(path.read_bytes() + b"x"))


def test_a_skipped_photo_that_was_mended_is_taken_in(photos: Path, tmp_path: Path) -> None:
    good = (photos / "3.bmp").read_bytes()
    (photos / "3.bmp").write_bytes(b"broken")
    assert [entry["name"] for entry in extract(photos, tmp_path / "x", skip_bad=True)["skipped"]] == ["3.bmp"]
    again = extract(photos, tmp_path / "x", skip_bad=True)
    assert ([entry["name"] for entry in again["skipped"]], again["files"]["database"]["computed"]) == (["3.bmp"], 0)
    (photos / "3.bmp").write_bytes(good)
    mended = extract(photos, tmp_path / "x", skip_bad=True)
    assert (mended["skipped"], mended["files"]["database"]) == (
        [],
        {"path": str(tmp_path / "x/database.h5"), "n": N_PHOTOS, "computed": 1},
    )
    require_as_if_new(photos, tmp_path / "x", tmp_path)
    (photos / "7.bmp").write_bytes(b"broken")
    with pytest.raises(UltronError, match=r"7\.bmp: cannot be decoded"):
        extract(photos, tmp_path / "x")
    spoiled = extract(photos, tmp_path / "x", skip_bad=True)
    assert ([entry["name"] for entry in spoiled["skipped"]], len(rows_of(tmp_path / "x"))) == (["7.bmp"], N_PHOTOS - 1)


def test_added_and_removed_photos_are_named(photos: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path / "x")
    os.rename(photos / "4.bmp", photos / "new.bmp")
    draw(photos / "newer.bmp", "v")
    with pytest.raises(UltronError) as raised:
        extract(photos, tmp_path / "x")
    assert "2 photos added (new.bmp, newer.bmp) and 1 photo gone (4.bmp)" in str(raised.value)


def test_a_file_of_a_released_version_is_readable_and_reused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "8.bmp").write_bytes(b"broken")
    extract(photos, tmp_path / "x", skip_bad=True)
    with h5py.File(tmp_path / "x/database.h5", "r+") as stored:
        del stored["photo_states"], stored["photo_digests"]
        stored.attrs["skipped"] = '[{"name": "8.bmp", "reason": "truncated"}]'
    content = (tmp_path / "x/database.h5").read_bytes()
    draw(photos / "5.bmp", "v")
    capsys.readouterr()
    assert extract(photos, tmp_path / "x", skip_bad=True)["files"]["database"]["computed"] == 0
    assert "only `overwrite` describes such photos anew" in capsys.readouterr().err
    assert (tmp_path / "x/database.h5").read_bytes() == content


def test_a_damaged_shard_is_computed_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = described.write_descriptors

    def stops(path: Path, *arguments: object) -> None:
        if path.name == "database.h5":
            raise KeyboardInterrupt
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(described, "write_descriptors", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "x")
    monkeypatch.setattr(described, "write_descriptors", write)
    parts = tmp_path / "x/database.h5.parts"
    (parts / "shard-000001.h5").write_bytes((parts / "shard-000001.h5").read_bytes()[:700])
    (parts / "shard-000002.h5").write_bytes((parts / "shard-000000.h5").read_bytes())  # of other photos
    assert extract(photos, tmp_path / "x")["files"]["database"]["computed"] == 6
    require_as_if_new(photos, tmp_path / "x", tmp_path)


def test_marks_that_do_not_fit_are_as_none(tmp_path: Path) -> None:
    from tests.retrieval.rows_for_tests import INFO, unit_rows

    marks = PhotoMarks.of([PhotoMark((1, 2, 3), bytes(range(16))), PhotoMark(NO_FILE)])
    write_descriptors(tmp_path / "d.h5", ["a", "b"], [unit_rows(0, 2, 8)], 8, INFO, marks)
    with DescriptorFile(tmp_path / "d.h5") as stored:
        assert stored.marks is not None
        assert [stored.marks[0], stored.marks[1].state] == [PhotoMark((1, 2, 3), bytes(range(16))), NO_FILE]
    with h5py.File(tmp_path / "d.h5", "r+") as handle:
        del handle["photo_states"]
        handle["photo_states"] = np.zeros((5, 3), np.int64)
    with DescriptorFile(tmp_path / "d.h5") as stored:
        assert stored.marks is None


def test_a_refusal_for_one_file_leaves_the_other_as_it_was(photos: Path, tmp_path: Path) -> None:
    """A ground truth that came later: its queries are not put beside the database of before."""
    extract(photos, tmp_path / "out")
    truth = {
        "imlist": ["1.bmp", "2.bmp"],
        "qimlist": ["0.bmp"],
        "gnd": [{"easy": [0], "hard": [], "junk": [], "bbx": None}],
    }
    (photos / "gnd_photos.json").write_text(json.dumps(truth))
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(UltronError, match=r"database\.h5 was made with another configuration: .* photos gone"):
        extract(photos, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    extract(photos, tmp_path / "out", overwrite=True)
    assert list(rows_of(tmp_path / "out")) == ["1.bmp", "2.bmp"]
