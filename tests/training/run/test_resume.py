"""A run that was stopped goes on exactly: by signal, by SIGKILL at any moment, with damaged or changed files."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs_for_tests import start_train, step_losses, train
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.run.checkpoints import saved_steps
from ultron_cli.training.run.folder import is_unfinished

pytestmark = pytest.mark.slow

# Everything that has a state: running mean, drawn classes, momentum of two optimisers, dropout, held-out landmarks.
EVERYTHING: dict[str, Any] = {
    "epochs": 3,
    "ema": 0.9,
    "checkpoint_minutes": 0.0,
    "batch_size": 6,
    "optimizer": "adamw",
    "lr": 1e-3,
    "switch": {"epoch": 2, "lr": 0.01},
    "loss": {"name": "arcface", "sample_rate": 0.5, "curricular": True},
    "validation": {"share": 0.4},
    "group_sizes": False,
    "augment": {"grey": 0.3},
}


def finished(folder: Path) -> tuple[list[float], str]:
    return step_losses(folder), load_checkpoint(folder / "checkpoint.pt").weights_sha256


@pytest.fixture(scope="module")
def undisturbed(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], str]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(toy, folder, **EVERYTHING)
    return finished(folder)


@pytest.mark.parametrize("seed", [0])
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    toy: Path, tmp_path: Path, undisturbed: tuple[list[float], str], seed: int
) -> None:
    chance, folder, n_kills = random.Random(seed), tmp_path / "run", 0
    while n_kills < 3:
        process = start_train(toy, folder, resume=is_unfinished(folder), **EVERYTHING)
        before = len(saved_steps(folder)) and saved_steps(folder)[-1]
        deadline_s = time.monotonic() + 60
        while (
            process.is_alive()
            and time.monotonic() < deadline_s
            and (not saved_steps(folder) or saved_steps(folder)[-1] <= before)
        ):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.1)
        if not process.is_alive():
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        n_kills += 1
    assert n_kills >= 1
    if not (folder / "checkpoint.pt").exists():
        train(toy, folder, resume=True, **EVERYTHING)
    assert finished(folder) == undisturbed
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_stop(
    toy: Path, tmp_path: Path, undisturbed: tuple[list[float], str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from ultron_cli.training.learner import Learner

    learner_step = Learner.step

    def step(self: Learner, pixels: torch.Tensor, labels: torch.Tensor, step: int) -> Any:
        if step == 6:
            for child in multiprocessing.active_children():  # terminals and schedulers send it to all processes
                os.kill(child.pid, number)
            os.kill(os.getpid(), number)
        return learner_step(self, pixels, labels, step)

    settings = EVERYTHING | {"checkpoint_minutes": 1000.0, "workers": 1}
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "step", step)
        with pytest.raises(
            WorkFailed,
            match=rf"stopped by {signal.Signals(number).name} after step 7, all saved; go on with `ultron train "
            r"--resume --out",
        ):
            train(toy, tmp_path / "run", **settings)
    assert saved_steps(tmp_path / "run") == [7]
    train(toy, tmp_path / "run", resume=True, **settings)
    assert finished(tmp_path / "run") == undisturbed


def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(
    toy: Path, tmp_path: Path, undisturbed: tuple[list[float], str]
) -> None:
    folder = tmp_path / "run"
    train(toy, folder, **EVERYTHING)
    (folder / "checkpoint.pt").unlink()
    steps = saved_steps(folder)
    latest = folder / "checkpoints" / f"step-{steps[-1]:08d}.pt"
    latest.write_bytes(latest.read_bytes()[:1000])
    train(toy, folder, resume=True, **EVERYTHING)
    assert finished(folder) == undisturbed
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UltronError, match="not one of 2 checkpoints"):
        train(toy, folder, resume=True, **EVERYTHING)


def test_other_photos_are_refused(toy: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(toy / "train", tmp_path / "photos")
    train(tmp_path / "photos", tmp_path / "run", checkpoint_minutes=0.0)
    (tmp_path / "run/checkpoint.pt").unlink()
    next((tmp_path / "photos").rglob("*.jpg")).unlink()
    with pytest.raises(UltronError, match=r"no longer those that .*run was started with"):
        train(tmp_path / "photos", tmp_path / "run", resume=True, checkpoint_minutes=0.0)
