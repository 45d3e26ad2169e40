"""Workers end with their parent, and hear of signals what they should."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ultron_cli.processes import is_alive, machine_mark, start_time

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
from ultron_cli import processes, stops
processes.PARENT_LOOK_S = 0.01
if sys.argv[1] == "launcher":
    subprocess.Popen([sys.executable, sys.argv[0], "process"])
    time.sleep(60)
with stops.signals_interrupt():
    try:
        processes.stop_with_launcher()
        print(os.getpid(), flush=True)
        time.sleep(60)
    except stops.StoppedBySignal as stop:
        print("saved:", stops.stop_line(stop), flush=True)
"""


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
    assert len(machine_mark()) == 8


SPAWNING = """
import os, signal, sys, time
from multiprocessing import get_context, resource_tracker
from ultron_cli.processes import start_worker, starting_workers
from ultron_cli.stops import StoppedBySignal, signals_interrupt
def work(line):
    start_worker()
    line.send("started")
    line.recv()
if __name__ == "__main__":
    with signals_interrupt():
        try:
            near, far = get_context("spawn").Pipe()
            worker = get_context("spawn").Process(target=work, args=(far,))
            with starting_workers():
                os.killpg(0, signal.SIGHUP)
                worker.start()
                os.killpg(0, signal.SIGHUP)
                is_started = True
        except StoppedBySignal:
            assert is_started and near.recv() == "started"
            near.send("end")
            worker.join()
            resource_tracker.register(__file__, "semaphore")  # one that has died is replaced, with a warning
            resource_tracker.unregister(__file__, "semaphore")
            print("stopped", worker.exitcode)
"""


def test_signals_while_a_process_starts_end_neither_it_nor_pythons_tracker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWNING)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped 0\n", "")
