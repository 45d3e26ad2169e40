"""The results of a run are safe before its pictures are drawn, and a full disk ends a run in one line."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli import output_files

SETTINGS = ("model.name=gem", "model.backbone=test_resnet", "epochs=1", "batch_size=8", "side_px=32", "workers=0")
FLAGS = [part for setting in (*SETTINGS, "log_every=1") for part in ("--set", setting)]


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if it were not installed."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def forget_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ultron_cli.visualization")]:
        monkeypatch.delitem(sys.modules, name)


def test_without_matplotlib_the_checkpoint_is_there(
    ultron: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "w"))
    forget_pictures(monkeypatch)
    without(monkeypatch, "matplotlib")
    code, out, err = ultron("train", "--dataset", toy, *FLAGS, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert Path(json.loads(out)["checkpoint"]).is_file() and not (tmp_path / "run" / "curves.png").exists()
    assert "no pictures of the run: matplotlib is not installed" in err and "pip install matplotlib" in err
    assert json.loads((tmp_path / "w" / "latest.json").read_text())["train"] == str(tmp_path / "run")
    code, _, err = ultron("visualize", "curves", "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: matplotlib is not installed, and this needs it; install it with")


@pytest.mark.parametrize(
    ("package", "named"), [("timm", "timm"), ("scipy", "scipy"), ("sklearn", "scikit-learn"), ("cv2", "opencv-python")]
)
def test_a_package_that_is_not_installed_is_one_line(
    ultron: Run, monkeypatch: pytest.MonkeyPatch, package: str, named: str
) -> None:
    from ultron_cli import cli

    def needs(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.part")

    monkeypatch.setattr(cli, "_root_command", lambda name: needs)
    code, out, err = ultron("doctor")
    assert (code, out) == (2, "") and err.startswith(f"error: {named}") and "`pip install " in err

    def is_broken(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    monkeypatch.setattr(cli, "_root_command", lambda name: is_broken)
    with pytest.raises(ModuleNotFoundError):  # none of ours: a bug keeps its traceback
        ultron("doctor")


def test_a_folder_of_something_else_is_left_alone(ultron: Run, toy: Path, tmp_path: Path) -> None:
    """A run clears its own files from a folder, and they have common names."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"mine": 1}')
    for more in ((), ("--overwrite",)):
        code, _, err = ultron("train", "--dataset", toy, *FLAGS, "--out", tmp_path, *more)
        assert code == 2 and "is no run's folder, it holds checkpoints, config.json" in err
        assert "name a new or empty one with --out" in err
    assert {path.name for path in tmp_path.iterdir()} >= {"checkpoints", "config.json"}


def test_a_full_disk_ends_a_run_in_one_line(
    ultron: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = output_files.os.write

    def filling_write(handle: int, data: bytes) -> int:
        if len(data) > 20_000:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(output_files.os, "write", filling_write)
    code, out, err = ultron("train", "--dataset", toy, *FLAGS, "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert ".pt: the disk is full: it takes " in err.splitlines()[-1] and " are missing" in err
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_run_that_cannot_be_stored_does_not_begin(
    ultron: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_files, "free_bytes", lambda folder: 1000)
    code, out, err = ultron("train", "--dataset", toy, *FLAGS, "--out", tmp_path / "run")
    assert (code, out) == (1, "") and "the run with one checkpoint to go on from takes about" in err.splitlines()[-1]
    assert "step 1" not in err and list((tmp_path / "run").iterdir()) == []
