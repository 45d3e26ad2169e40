"""Functions in a child process: what they return, and what becomes of those that crash, loop, fill memory or raise."""

import ctypes
import os
import select
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ultron_cli import guarded
from ultron_cli.errors import UltronError
from ultron_cli.guarded import ReaderDied, ReaderFailed, in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="without fork functions run in this process")


def plain_data(n: int) -> dict[str, object]:
    return {"a": [1, 2.5, None, True], "b": b"\xff", "c": "ü" * n}


def crash() -> None:
    ctypes.string_at(0)


HAS_THREADS = False  # of a library that a fork does not stand, as a test makes believe


def crash_in_a_fork(n: int) -> int:
    if HAS_THREADS:
        ctypes.string_at(0)
    return n


def loop() -> None:
    while True:
        pass


def fill_memory() -> int:
    return len(bytearray(3 * guarded.MEMORY_BYTES))


def fail(text: str) -> None:
    raise KeyError(text)


def refuse() -> None:
    raise UltronError("the rule")


def open_files() -> int:
    return len([handle for handle in range(3, 256) if _is_open(handle)])


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def process_number() -> int:
    return os.getpid()


def test_results_are_plain_data_of_any_length():
    for n in (0, 10, 3_000_000):
        assert in_child(plain_data, n) == plain_data(n)


def test_what_is_raised_is_told_in_one_line():
    with pytest.raises(UltronError, match="the rule"):
        in_child(refuse)
    with pytest.raises(ReaderFailed) as caught:
        in_child(fail, "a\nb\x1b[31m" + "c" * 5000)
    assert (caught.value.kind, caught.value.errno) == ("KeyError", None)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 600
    with pytest.raises(ReaderFailed) as caught:
        in_child(os.listdir, "/nonexistent")
    assert caught.value.errno == 2


def test_a_crash_a_loop_and_too_much_memory_end_the_child_alone():
    with pytest.raises(ReaderDied, match=r"crashed \(SIGSEGV\)"):
        in_child(crash)
    started_s = time.monotonic()
    with pytest.raises(ReaderDied, match="computed for seconds and was stopped"):
        in_child(loop, cpu_s=1)
    assert time.monotonic() - started_s < 30
    with pytest.raises(ReaderFailed, match="MemoryError"):
        in_child(fill_memory)
    assert in_child(plain_data, 1) == plain_data(1)


def test_modules_of_the_next_function_do_not_count_as_the_last_ones_time(tmp_path, monkeypatch):
    (tmp_path / "slow_to_load.py").write_text(
        f"import os, time\nif os.getpid() != {os.getpid()}:\n    while time.process_time() < 2.5:\n        pass\n"
        "def answer():\n    return time.process_time()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    guarded._end_child()
    assert in_child(plain_data, 1, cpu_s=1)  # the child stays, having computed for less than a second
    import slow_to_load  # pyright: ignore[reportMissingImports]

    assert in_child(slow_to_load.answer, cpu_s=1) >= 2.5


def test_time_in_which_both_are_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-Z for an hour: one look finds nothing, and the clock is far ahead."""
    parent_pid, looks, real = os.getpid(), [], select.select

    def look_after_an_hour(*arguments):
        if os.getpid() == parent_pid and not looks:
            looks.append(arguments)
            monkeypatch.setattr(guarded.time, "monotonic", lambda: 1e9)
            return [], [], []
        return real(*arguments)

    monkeypatch.setattr(guarded, "select", SimpleNamespace(select=look_after_an_hour))
    assert in_child(process_number) != parent_pid and looks


def sleep_long() -> None:
    time.sleep(60)


def test_a_child_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guarded, "LOOK_S", 0.05)
    monkeypatch.setattr(guarded, "WALL_S", 0.1)
    with pytest.raises(ReaderDied, match="did not end within"):
        in_child(sleep_long)


def test_one_child_serves_many_requests_and_holds_no_files(tmp_path: Path):
    with open(tmp_path / "lock", "w"):
        first = in_child(process_number)
        assert first != os.getpid()
        assert {in_child(process_number) for _ in range(20)} == {first}
        assert in_child(open_files) == 1  # the line to its parent


def test_a_child_that_ended_is_replaced():
    first = in_child(process_number)
    os.kill(first, 9)
    assert in_child(process_number) not in (first, os.getpid())


def test_what_only_a_fork_does_not_stand_is_asked_of_a_fresh_process(monkeypatch: pytest.MonkeyPatch):
    os.kill(in_child(process_number), 9)
    monkeypatch.setattr(sys.modules[__name__], "HAS_THREADS", True)
    assert in_child(crash_in_a_fork, 3) == 3
    os.kill(in_child(process_number), 9)
    monkeypatch.setitem(sys.modules, "grpc", sys)
    assert in_child(crash_in_a_fork, 4) == 4


def test_a_lasting_child_is_no_fork_and_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "HAS_THREADS", True)
    monkeypatch.setattr(guarded, "FRESH_IDLE_S", 0.0)
    with guarded.lasting_child():
        first = in_child(process_number)
        assert in_child(crash_in_a_fork, 3) == 3
        assert in_child(process_number) == first
        os.kill(first, 9)
        assert in_child(crash_in_a_fork, 4) == 4
        second = in_child(process_number)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def keep(n_bytes: int) -> int:
    blocks.append(bytearray(n_bytes))
    return os.getpid()


blocks: list[bytearray] = []


def test_memory_that_a_child_keeps_is_not_held_against_the_next_file():
    with guarded.lasting_child():
        assert len({in_child(keep, 600 << 20) for _ in range(3)}) == 3


def test_a_lasting_child_at_work_is_not_waited_for():
    began, done = threading.Event(), threading.Event()
    with guarded.lasting_child():
        in_child(process_number)

        def hold() -> None:
            with guarded._lock:  # as one that waits for an answer
                began.set()
                done.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        assert began.wait(60)
    done.set()
    holder.join()
    os.kill(in_child(process_number), 9)


def test_a_child_made_before_a_library_was_loaded_is_replaced(monkeypatch: pytest.MonkeyPatch):
    """It would load the library with little memory left: faiss-gpu, which maps gigabytes, fails then."""
    monkeypatch.setattr(guarded, "LIBRARIES", ("colorsys",))  # there, and loads at once
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    first = in_child(process_number)
    assert in_child(process_number) == first
    monkeypatch.setitem(sys.modules, "colorsys", sys)
    second = in_child(process_number)
    assert second != first and in_child(process_number) == second


def test_threads_take_turns():
    answers: list[object] = []

    def ask(n: int) -> None:
        answers.append(in_child(plain_data, n) == plain_data(n))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8


def files_in_folder() -> list[str]:
    return sorted(os.listdir("."))


def test_relative_paths_are_of_the_folder_that_the_parent_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        (tmp_path / name / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        assert in_child(files_in_folder) == [name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert in_child(plain_data, 1)["a"] == [1, 2.5, None, True]
