"""Signals become an exception where that leaves nothing half done."""

import contextlib
import os
import signal
import sys
import time
import weakref
from collections.abc import Iterator

import pytest

from ultron_cli.stops import (
    StoppedBySignal,
    signals_interrupt,
    stop_behind,
    stop_line,
    to_the_end,
    undisturbed,
    way_to_go_on,
)


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Torch's launcher leaves its own handlers in the process of an earlier test; nohup ignores SIGHUP."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


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


def test_a_stop_waits_for_what_is_not_to_be_disturbed() -> None:
    done = []
    with pytest.raises(StoppedBySignal, match="SIGTERM"), signals_interrupt():
        with undisturbed():
            with undisturbed():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2]


def test_a_second_ctrl_c_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_interrupt(), undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        done.append(2)
    assert done == [1]


def test_a_failure_within_is_not_lost_behind_a_stop() -> None:
    with pytest.raises(KeyboardInterrupt) as stopped, signals_interrupt(), undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError("full")
    assert isinstance(stopped.value.__context__, OSError)


class Finalized:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))


def test_a_stop_that_python_would_only_print_is_raised_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoppedBySignal, match="SIGTERM"), signals_interrupt():
        Finalized()
        time.sleep(5)
    reference = None
    with pytest.raises(StoppedBySignal, match="SIGHUP"), signals_interrupt():
        dies = Finalized()
        reference = weakref.ref(dies, lambda _: os.kill(os.getpid(), signal.SIGHUP))
        Finalized.__del__ = lambda _: None  # type: ignore[method-assign]
        del dies
        time.sleep(5)
    assert reference is not None and reference() is None and capsys.readouterr().err == ""


def test_a_stop_while_a_with_statement_is_entered_is_raised_inside() -> None:
    """Before, nothing would leave what has been entered."""
    entering = contextlib.contextmanager(lambda: map(signal.raise_signal, [signal.SIGTERM]))  # in no frame but theirs
    entered = []
    with signals_interrupt(), entering(), pytest.raises(StoppedBySignal):
        entered.append(True)
        time.sleep(5)
    assert entered == [True]


def test_a_stop_before_the_first_step_of_clearing_away_waits_for_it() -> None:
    steps: list[str] = []

    def arrives_as_it_begins() -> None:
        steps.append("begun")
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, sys._getframe(1))  # as if to_the_end were about to call this
        steps.append("taken")

    with pytest.raises(StoppedBySignal), signals_interrupt():
        to_the_end(arrives_as_it_begins)
        time.sleep(5)  # until it is raised
    assert steps == ["begun", "taken"]


def test_forks_leave_signals_to_their_parent() -> None:
    with signals_interrupt() as arrived:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            os._exit(7)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 7 and arrived == []


def test_what_a_library_makes_of_a_stop() -> None:
    with pytest.raises(RuntimeError) as made:
        try:
            raise StoppedBySignal("SIGTERM")
        except KeyboardInterrupt:
            raise RuntimeError("unexpected pos 1 vs 2")  # noqa: B904 - as libraries do
    assert str(stop_behind(made.value)) == "SIGTERM" and stop_behind(RuntimeError()) is None
