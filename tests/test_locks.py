"""One writer per folder, whoever starts it, and who that is."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ultron_cli import locks
from ultron_cli.errors import UltronError
from ultron_cli.locks import Writer, lock_path, only_writer
from ultron_cli.processes import machine_mark
from ultron_cli.workspace import Workspace

HOLDER = """
import sys, time
from pathlib import Path
from ultron_cli.locks import only_writer
with only_writer(Path(sys.argv[1]), "held"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_of(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    process = holder_of(tmp_path / "x")
    with pytest.raises(UltronError) as raised, only_writer(tmp_path / "x", "another `ultron train` is writing"):
        pass
    message = str(raised.value)
    assert message.startswith(
        f"another `ultron train` is writing: process {process.pid} on {socket.gethostname()}, since "
    )
    assert message.endswith("; wait for it, or name another place with `out`") and "\n" not in message
    process.send_signal(signal.SIGKILL)
    process.wait()
    with only_writer(tmp_path / "x", ""):  # its death gave the lock back
        assert json.loads(lock_path(tmp_path / "x").read_text())["pid"] == os.getpid()
    assert list((tmp_path / "x").iterdir()) == []


def test_a_stale_lock_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = holder_of(tmp_path)
    process.kill()
    process.wait()
    caplog.set_level("INFO", "ultron")
    with only_writer(tmp_path, ""):
        pass
    assert f"was left by process {process.pid} on" in caplog.text and "going on" in caplog.text


def test_threads_of_a_process_are_told_apart(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path, ""),
        pytest.raises(UltronError, match=f"process {os.getpid()} on"),
        only_writer(tmp_path / "." / "..", ""),
        only_writer(tmp_path, "second"),
    ):
        pass


def test_waiting_for_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with only_writer(tmp_path / "a.json", "", beside=True, wait=True):
            order.append("second")

    with only_writer(tmp_path / "a.json", "", beside=True):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", locks.NO_LOCKS)
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The file says who writes: alive is refused, dead is stale."""

    def lockf(handle: int, operation: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(locks.fcntl, "lockf", lockf)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid, mark, is_refused in ((gone.pid, machine_mark(), False), (1, machine_mark(), True), (gone.pid, "?", True)):
        writer = Writer("elsewhere", pid, "2026-01-01", "ultron train", mark)
        lock_path(tmp_path).write_text(json.dumps(vars(writer)))
        if is_refused:
            with pytest.raises(UltronError, match=f"process {pid} on elsewhere"), only_writer(tmp_path, ""):
                pass
        else:
            with only_writer(tmp_path, ""):
                pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": null}', '{"pid": "x"}'])
def test_a_lock_file_of_anything(tmp_path: Path, content: str) -> None:
    lock_path(tmp_path).write_text(content)
    with only_writer(tmp_path, ""):
        assert json.loads(lock_path(tmp_path).read_text())["pid"] == os.getpid()


def test_eight_commands_at_once_lose_no_update(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ultron_cli.workspace import Workspace; "
        "workspace = Workspace(root=Path(sys.argv[1])); sys.stdin.readline(); "
        "[workspace.remember(f'{sys.argv[2]}-{i}', workspace.root) for i in range(5)]"
    )
    commands = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], stdin=subprocess.PIPE) for n in range(8)
    ]
    for command in commands:
        command.communicate(b"\n")
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert set(latest) == {f"{n}-{i}" for n in range(8) for i in range(5)}
    assert {path.name for path in tmp_path.iterdir()} == {"latest.json"}


def test_a_device_is_no_result(tmp_path: Path) -> None:
    Workspace(root=tmp_path).remember("search", Path("/dev/null"))
    assert list(tmp_path.iterdir()) == []
