"""What is written: whole or absent, on a full disk too, onto any target, and swept when its writer was killed."""

import io
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from ultron_cli import output_files
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import whole_file, whole_folder, write_text
from ultron_cli.leftovers import sweep
from ultron_cli.locks import only_writer
from ultron_cli.machine import size_text
from ultron_cli.output_files import AppendedFile, OutputFile, require_space
from ultron_cli.processes import machine_mark


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The disk takes 20,000 bytes of each file, and then nothing; 1,000 are said to be free."""
    room = 20_000
    write = os.write

    def filling_write(handle: int, data: memoryview) -> int:
        left = room - os.lseek(handle, 0, os.SEEK_CUR)
        if left <= 0:
            raise OSError(28, "No space left on device")
        return write(handle, data[:left])

    monkeypatch.setattr(output_files.os, "write", filling_write)
    monkeypatch.setattr(output_files, "free_bytes", lambda folder: 1_000)
    yield room


def write_h5(output: OutputFile) -> None:
    with h5py.File(output, "w") as handle:
        handle["names"] = np.array([f"photo {i}" for i in range(500)], dtype=h5py.string_dtype("utf-8"))
        rows = handle.create_dataset("rows", (500, 64), "f4", chunks=(50, 64))
        for start in range(0, 500, 50):
            rows[start : start + 50] = 1.0
        handle.attrs["complete"] = True


def write_tensors(output: OutputFile) -> None:
    torch.save({f"w{i}": torch.randn(1000) for i in range(20)}, output)


def write_arrays(output: OutputFile) -> None:
    np.savez(output, a=np.zeros(9000), b=np.ones(9000))


def write_picture(output: OutputFile) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    Image.fromarray(pixels).save(output, format="PNG")


def write_index(output: OutputFile) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(64, "Flat")
    index.add(np.zeros((400, 64), np.float32))
    faiss.write_index(index, faiss.PyCallbackIOWriter(output.write))


def write_rows(output: OutputFile) -> None:
    """Each to its own place, without a gap."""
    rows = np.arange(2 * 4_999, dtype=np.float64).reshape(-1, 2)
    places = np.random.default_rng(0).permutation(len(rows))
    if isinstance(output, OutputFile):
        output.write_each((16 * places).tolist(), rows.data, 16)
        output.write(b"behind the last")
    else:
        for place, row in zip(places.tolist(), rows, strict=True):
            output.seek(16 * place)
            output.write(row.data)
        output.write(b"behind the last")


WRITERS = (write_h5, write_tensors, write_arrays, write_picture, write_index, write_rows)


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_one_line_with_what_is_missing(tmp_path: Path, full_disk: int, write) -> None:
    (tmp_path / "x.bin").write_bytes(b"older")
    expected = r"the disk is full: it takes \d+.* kB, and \d+.* are missing"
    with pytest.raises(WorkFailed, match=expected) as raised, whole_file(tmp_path / "x.bin") as output:
        write(output)
    assert isinstance(raised.value.__cause__, OSError)
    assert (tmp_path / "x.bin").read_bytes() == b"older"
    assert entries(tmp_path) == {"x.bin"}
    assert f"{size_text(output.n_bytes - 1000)} are missing" in str(raised.value)


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_written_is_what_a_plain_file_gets(tmp_path: Path, write) -> None:
    torch.manual_seed(0)
    with whole_file(tmp_path / "x.bin") as output:
        write(output)
    torch.manual_seed(0)
    plain = io.BytesIO()
    write(plain)
    if write is write_h5:  # holds no time, but bytes between its parts that nothing is said of
        with h5py.File(tmp_path / "x.bin") as ours, h5py.File(plain) as theirs:
            assert (ours["rows"][:] == theirs["rows"][:]).all() and (ours["names"][:] == theirs["names"][:]).all()
    else:
        assert (tmp_path / "x.bin").read_bytes() == plain.getvalue()
    assert (tmp_path / "x.bin").stat().st_size == output.n_bytes


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "older")
    with pytest.raises(KeyError), whole_file(tmp_path / "x") as output:
        output.write(b"newer")
        raise KeyError
    assert entries(tmp_path) == {"x"} and (tmp_path / "x").read_text() == "older"


def test_lines_of_a_growing_file(tmp_path: Path, full_disk: int) -> None:
    lines = AppendedFile(tmp_path / "x")
    lines.write(b"a" * (full_disk - 1))
    with pytest.raises(WorkFailed, match=r"could not write .*x: the disk is full"):
        lines.write(b"bc")
    lines.close()
    assert (tmp_path / "x").stat().st_size == full_disk


def test_space_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_files, "free_bytes", lambda folder: 2_000_000)
    require_space(tmp_path, 2_000_000, "the extraction")
    with pytest.raises(WorkFailed, match=r"the extraction takes about 2\.5 MB, .* has 2\.0 MB free and 500 kB are mis"):
        require_space(tmp_path, 2_500_000, "the extraction")


def test_a_device_is_written_through(tmp_path: Path) -> None:
    null = tmp_path / "null"
    os.symlink("/dev/null", null)
    for path in (Path("/dev/null"), null):
        write_text(path, "gone")
        assert stat.S_ISCHR(path.stat().st_mode)
    assert entries(tmp_path) == {"null"}


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "{}")
    reader.join(5)
    assert received == ["{}"] and pipe.is_fifo() and entries(tmp_path) == {"pipe.json"}


@pytest.mark.parametrize("redirected", [True, False])
def test_stdout_is_written_through(tmp_path: Path, redirected: bool) -> None:
    """A file that stdout goes to keeps what was and will be printed."""
    code = (
        "from pathlib import Path; from ultron_cli.files import write_text; print('before', flush=True); "
        "write_text(Path('/dev/stdout'), 'result\\n'); print('after')"
    )
    with open(tmp_path / "log", "wb") as log:
        stdout = log if redirected else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True)
    printed = (tmp_path / "log").read_bytes() if redirected else done.stdout
    assert printed.split() == [b"before", b"result", b"after"]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    write_text(tmp_path / "far" / "x", "1")
    os.symlink(tmp_path / "far" / "x", tmp_path / "link")
    os.symlink(tmp_path / "far" / "new", tmp_path / "dangling")
    write_text(tmp_path / "link", "2")
    write_text(tmp_path / "dangling", "3")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "far" / "x").read_text() == "2" and (tmp_path / "far" / "new").read_text() == "3"
    os.symlink(tmp_path / "round", tmp_path / "round")
    with pytest.raises(UltronError, match="round cannot be written"):
        write_text(tmp_path / "round", "")


def test_permissions_stay(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "1")
    (tmp_path / "x").chmod(0o640)
    write_text(tmp_path / "x", "2")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["folder", "..", ".", "", "/", "folder/..", "folder/"])
def test_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "in" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(UltronError, match="is a folder, not a file"):
        write_text(Path(name), "x")
    assert entries(tmp_path / "in") == {"folder"}


def test_a_name_through_a_file_and_too_long_a_name(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "1")
    with pytest.raises(UltronError, match="Not a directory"):
        write_text(tmp_path / "x" / "y", "2")
    with pytest.raises(UltronError, match="File name too long"):
        write_text(tmp_path / ("y" * 300), "2")
    write_text(tmp_path / ("y" * 255), "2")  # its temporary name is short


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(UltronError, match="neither a file nor a pipe"):
            write_text(Path("s"), "x")


def test_folders_are_replaced_whole(tmp_path: Path) -> None:
    for content in ("1", "2"):
        with whole_folder(tmp_path / "x") as folder:
            (folder / "sub").mkdir()
            write_text(folder / "sub" / "a", content)
    assert (tmp_path / "x" / "sub" / "a").read_text() == "2"
    os.symlink(tmp_path / "x", tmp_path / "link")
    with whole_folder(tmp_path / "link") as folder:
        write_text(folder / "b", "3")
    assert (tmp_path / "link").is_symlink() and entries(tmp_path / "x") == {"b"}
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "x") as folder:
        write_text(folder / "c", "4")
        raise ZeroDivisionError
    assert entries(tmp_path) == {"x", "link"} and entries(tmp_path / "x") == {"b"}
    for bad in (tmp_path / "x" / "b", Path("/")):
        with pytest.raises(UltronError, match="cannot become a folder"), whole_folder(bad):
            pass


def test_a_stop_while_the_older_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is in its place, and nothing of the older one is left."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/older").touch()
    removed: list[object] = []
    rmtree = shutil.rmtree

    def stopped_rmtree(path: Path, **settings: bool) -> None:
        removed.append(path)
        if len(removed) == 2:
            raise KeyboardInterrupt
        rmtree(path, **settings)

    monkeypatch.setattr(shutil, "rmtree", stopped_rmtree)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "x") as folder:
        (folder / "newer").touch()
    assert entries(tmp_path) == {"x"} and entries(tmp_path / "x") == {"newer"}


def a_dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    dead, mark = a_dead_pid(), machine_mark()
    left = [f".ultron-{mark}-{dead}-00000000.tmp.h5", f".ultron-{mark}-{dead}-00000001.tmp"]
    old = ".ultron-00000000-7-00000002.tmp.json"  # of another machine, two days ago
    stay = {
        f".ultron-{mark}-{os.getpid()}-00000003.tmp.pt",
        ".ultron-00000000-7-00000004.tmp.json",  # of another machine, now
        ".ultron-notes.tmp",
        f"ultron-{mark}-{dead}-00000005.tmp",
    }
    for name in (*left, old, *stay):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / old, (1e9, 1e9))
    (tmp_path / f".ultron-{mark}-{dead}-00000006.tmp").mkdir()
    (tmp_path / f".ultron-{mark}-{dead}-00000006.tmp" / "part").write_text("x")
    (tmp_path / f".ultron-{mark}-{dead}-00000007.old-my index").mkdir()
    sweep(tmp_path, anew=True)
    assert entries(tmp_path) == {*stay, "my index"}  # a folder that was moved aside has its name back


def test_what_is_older_than_the_process_of_its_number_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process numbers come round: another process may have that of the one that was killed."""
    (tmp_path / f".ultron-{machine_mark()}-{os.getpid()}-00000000.tmp.json").write_text("x")
    monkeypatch.setattr("ultron_cli.leftovers.start_time", lambda pid: time.time() + 60)
    sweep(tmp_path, anew=True)
    assert entries(tmp_path) == set()


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127])
def test_long_names_can_be_replaced_and_locked(tmp_path: Path, name: str) -> None:
    for content in ("1", "2"):
        with only_writer(tmp_path / name, "another", beside=True), whole_folder(tmp_path / name) as folder:
            (folder / "x").write_text(content)
    assert (tmp_path / name / "x").read_text() == "2" and [path.name for path in tmp_path.iterdir()] == [name]


def test_names_that_are_no_utf_8_are_written_with_their_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "x", os.fsdecode(b"a\xff.jpg"))
    assert (tmp_path / "x").read_bytes() == b"a\xff.jpg"
