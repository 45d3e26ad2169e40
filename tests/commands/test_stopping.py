"""What a command says when it is stopped or its output finds no room, and its exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.locks import only_writer
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.stops import NOTHING_TOLD, StoppedBySignal, way_to_go_on
from ultron_cli.training import start
from ultron_cli.visualization import genotype

FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("stop", "reason"), [(KeyboardInterrupt(), "interrupted"), (StoppedBySignal("SIGTERM"), "stopped by SIGTERM")]
)
@pytest.mark.parametrize("clause", ["", "3 of 7 photos are kept"])
def test_a_stop_is_one_line_with_the_way_on(
    ultron: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: KeyboardInterrupt, reason: str, clause: str
) -> None:
    def stopped(*_: object) -> None:
        with way_to_go_on(lambda: clause):
            raise type(stop)(*stop.args)

    monkeypatch.setattr(genotype, "genotype_figure", stopped)
    code, out, err = ultron("visualize", "genotype", "-q", "--out", tmp_path / "g.png")
    assert (code, out, err) == (1, "", f"{reason}: {clause or NOTHING_TOLD}\n")
    assert not list(tmp_path.glob("*g.png*"))


def test_what_is_kept_of_a_training(tmp_path: Path) -> None:
    assert start._what_is_kept(tmp_path) == ""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    assert start._what_is_kept(tmp_path) == ""
    (tmp_path / "checkpoints/step-00000003.pt").touch()
    assert start._what_is_kept(tmp_path).endswith(f"go on with `ultron train --resume --out {tmp_path}`")
    (tmp_path / "checkpoint.pt").touch()
    assert f"`ultron visualize curves --run {tmp_path}`" in start._what_is_kept(tmp_path)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_an_output_without_room_is_one_line() -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "ultron_cli", "datasets", "list", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: could not write the output: the disk is full; free space\n")


def test_one_index_is_written_by_one_command(ultron: Run, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    out, descriptors = tmp_path / "x.index", tmp_path / "database.h5"
    write_descriptors(descriptors, list("abcdefgh"), [unit_rows(1, 8, 4)], 4, INFO)
    with only_writer(out, "a test is writing", beside=True):
        code, _, err = ultron("index", descriptors, "--out", out)
    assert code == 2 and f"another `ultron index` is writing {out}: process " in err and not out.exists()
    assert ultron("index", descriptors, "--out", out)[0] == 0
    assert out.is_dir() and not list(tmp_path.glob(".*"))
