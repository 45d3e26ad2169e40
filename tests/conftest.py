"""Shared by all tests: a small rendered dataset, the shared folder beside the checkout, a workspace of each test's own,
and a headless browser for the pages that people open."""

import os

# Before torch: several test processes share the cores, and small networks are slower on several threads, much slower
# on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# Commands that a test runs in this process would have it keep all memory it ever freed; a tuned malloc is left alone.
os.environ.setdefault("MALLOC_CHECK_", "0")

import dataclasses
import json
import logging
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_or_skip(demand: str) -> Path:
    """The folder of real photographs, ground truth and weights; beside the checkout here and in CI, not on a user's
    machine.

    Where it is not, the test is skipped and says which demand goes unchecked.
    """
    if not SHARED.is_dir():
        pytest.skip(f"not checked: {demand}; what it needs lies in {SHARED}, which is not here")
    return SHARED


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """No test leaves its handlers of signals to the next: torch's launcher of processes does not put back what it
    replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of rendered landmarks: 6 to train on, 4 to evaluate on."""
    from ultron_cli.datasets.toy import ToyConfig, make_toy

    config = ToyConfig(
        seed=3,
        n_train_landmarks=6,
        n_train_photos=6,
        n_eval_landmarks=4,
        n_database_photos=10,
        n_distractors=8,
        max_side_px=96,
    )
    folder = tmp_path_factory.mktemp("data") / "toy"
    make_toy(folder, config, workers=0)
    return folder


Run = Callable[..., tuple[int, str, str]]


def read_json(result: tuple[int, str, str]) -> dict[str, Any]:
    """What a command that must succeed printed with --json."""
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """pytest's own, of ultron's log too where a command of an earlier test has started that."""
    monkeypatch.setattr(logging.getLogger("ultron"), "propagate", True)
    return caplog


def settings_shown(err: str, arguments: Sequence[object]) -> set[str]:
    """Settings between backquotes in what a command wrote on stderr: it shows its flags instead, and leaves out advice
    for which it has none. Those of a training or a sweep stand as they are in its TOML file."""
    names = set(re.findall(r"`([a-z_]\w*)`", err)) - {"key"}  # a word of msgspec's messages
    if "train" in arguments:
        from ultron_cli.training.autola.config import AutolaConfig
        from ultron_cli.training.config import TrainConfig

        names -= {field.name for config in (TrainConfig, AutolaConfig) for field in dataclasses.fields(config)}
    if "sweep" in arguments:
        from ultron_cli.sweep import settings

        kinds = [getattr(settings, name) for name in dir(settings) if name.endswith("Settings")]
        names -= {field.name for kind in kinds for field in dataclasses.fields(kind)}
    return names


@pytest.fixture
def ultron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command through main() in a workspace of the test's own; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))
    monkeypatch.setenv("ULTRON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        from ultron_cli.cli import main

        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert not settings_shown(captured.err, arguments), "a message names a setting that this command has not"
        return code, captured.out, captured.err

    return run


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not chromium:
        pytest.skip("no Chromium with its driver (Debian: chromium, chromium-driver)")
    monkeypatch.setenv("SE_OFFLINE", "true")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1200",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield session
    session.quit()


# Whatever renders landmarks, runs commands or opens a browser is slow; other tests that train, start processes or
# compile say so themselves (pytest.mark.slow).
HEAVY_FIXTURES = {"toy", "ultron", "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that stand on something heavy, so that `make test-fast` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and HEAVY_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
