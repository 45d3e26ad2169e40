"""Pieces of work side by side: results, failures, an end at the first bug, and the bars on a terminal."""

import io
import sys
import threading

import pytest

from ultron_cli.datasets.download.transfers import GIVE_UP_AFTER, Bars, run_at_once
from ultron_cli.errors import WorkFailed


def failing() -> int:
    raise WorkFailed("no luck")


def test_results_and_failures() -> None:
    stop = threading.Event()
    outcome = run_at_once([("a", lambda: 1), ("b", failing), ("c", lambda: 3)], 2, stop)
    assert sorted(outcome.results) == [1, 3]
    assert {name: str(error) for name, error in outcome.failures.items()} == {"b": "no luck"}
    assert stop.is_set()


def test_the_rest_is_left_when_many_fail() -> None:
    outcome = run_at_once([(str(i), failing) for i in range(50)], 1, threading.Event())
    assert len(outcome.failures) == GIVE_UP_AFTER


def test_a_bug_stops_the_others_and_keeps_its_traceback() -> None:
    stop = threading.Event()

    def waiting() -> bool:
        return stop.wait(30)

    with pytest.raises(ZeroDivisionError):
        run_at_once([("a", waiting), ("b", lambda: 1 // 0)], 2, stop)
    assert stop.is_set()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = Bars("roxford5k", 3000, 2)
    for name in ("a.tgz", "b.tgz", "c.tgz"):  # one more than there are places
        on_progress, close = bars.of_file(name)
        for done in (200, 1000, 0, 1000):  # begun anew in between
            on_progress(done, 1000)
        close()
    bars.close()
    shown = terminal.getvalue()
    assert all(name in shown for name in ("roxford5k", "a.tgz", "b.tgz", "c.tgz"))
    assert "3.00k/3.00k" in shown
