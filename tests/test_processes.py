"""Workers end with their parent; signals clear away what is half written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultron_cli.processes import (
    StoppedBySignal,
    is_alive,
    machine_mark,
    signals_interrupt,
    start_time,
    stop_line,
    way_to_go_on,
)

# The parent prints its workers' numbers, and is then killed or fails.
POOL = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import os, time
from ultron_cli.processes import start_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=start_worker)
    futures = [pool.submit(time.sleep, 60) for _ in range(4)]
    while len(pool._processes) < 2 or not all(future.running() for future in futures[:2]):
        time.sleep(0.01)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""
LOADER = """
import sys, time
import torch
from ultron_cli.processes import kill_workers_at_exit, start_loader_worker
class Slow(torch.utils.data.Dataset):
    def __len__(self): return 100
    def __getitem__(self, i):
        if i > 3: time.sleep(60)
        return i
kill_workers_at_exit()
loader = torch.utils.data.DataLoader(Slow(), 1, num_workers=2, worker_init_fn=start_loader_worker)
iterator = iter(loader)
next(iterator)
print(*(worker.pid for worker in iterator._workers), flush=True)
if sys.argv[1] == "fails":
    raise KeyError
time.sleep(60)
"""


# The launcher starts a process that waits for what its end sends.
LAUNCHER = """
import os, subprocess, sys, time
from ultron_cli import processes
processes.PARENT_LOOK_S = 0.01
if sys.argv[1] == "launcher":
    subprocess.Popen([sys.executable, sys.argv[0], "process"])
    time.sleep(60)
with processes.signals_interrupt():
    try:
        processes.stop_with_launcher()
        print(os.getpid(), flush=True)
        time.sleep(60)
    except processes.StoppedBySignal as stop:
        print("saved:", processes.stop_line(stop), flush=True)
"""


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Torch's launcher leaves its own handlers in the process of an earlier test; nohup ignores SIGHUP."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def wait_until_dead(pids: list[int]) -> bool:
    for _ in range(400):
        if not any(is_alive(pid) and "Z" not in state_of(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("code", "end"), [(POOL, "killed"), (LOADER, "killed"), (LOADER, "fails")])
def test_workers_end_with_their_parent(tmp_path: Path, code: str, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), end], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    if end == "killed":
        assert all(is_alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=20)
    assert wait_until_dead(pids)


def test_a_killed_launcher_stops_its_processes_as_sigterm_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LAUNCHER)
    command = [sys.executable, str(script), "launcher"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        launcher.kill()
        assert launcher.stdout.readline().startswith("saved: stopped by SIGTERM: ")
    assert wait_until_dead([pid])


def test_what_is_said_of_a_stop() -> None:
    with pytest.raises(KeyboardInterrupt) as nothing_kept, way_to_go_on(lambda: ""):
        raise KeyboardInterrupt
    assert stop_line(nothing_kept.value) == (
        "interrupted: nothing half written is left; the same command can be run again"
    )
    with pytest.raises(KeyboardInterrupt) as stopped, way_to_go_on(lambda: "all of x\ny is kept"):
        raise StoppedBySignal("SIGHUP")
    assert stop_line(stopped.value) == "stopped by SIGHUP: all of x\\ny is kept"


def test_a_second_signal_at_once_lets_the_first_clear_away() -> None:
    """A terminal that closes sends SIGHUP, and so does its shell."""
    cleared = []
    with pytest.raises(StoppedBySignal), signals_interrupt() as arrived:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            cleared.append(True)
    assert cleared and arrived == ["SIGHUP", "SIGHUP", "SIGTERM"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_as_ctrl_c_does(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt, match=number.name), signals_interrupt() as arrived:
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert arrived == [number.name] and signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup starts a command."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals_interrupt() as arrived:
        os.kill(os.getpid(), signal.SIGHUP)
    assert arrived == [] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_who_is_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_alive(os.getpid()) and is_alive(1) and not is_alive(child.pid)
    zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert zombie.stdout is not None and zombie.stdout.read() == b""  # it has ended; nobody has taken note
    assert wait_until_dead([zombie.pid]) and not is_alive(zombie.pid)
    zombie.communicate()
    began_s = start_time(os.getpid())
    assert began_s is not None and 0 < time.time() - began_s < 7 * 86400 and start_time(zombie.pid) is None
    assert len(machine_mark()) == 8 and issubclass(StoppedBySignal, KeyboardInterrupt)
