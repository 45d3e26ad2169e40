"""Two processes train as one with the same global batch, and survive the loss of one of them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.training.runs_for_tests import SMALL, start_train, step_losses, train
from ultron_cli import distributed
from ultron_cli.errors import UltronError

pytestmark = pytest.mark.slow

# No batch statistics: they are of each process's own photos on CPUs.
NETWORK: dict[str, Any] = {
    "model": {"name": "gem", "backbone": "test_convnext"},
    "optimizer": "adamw",
    "lr": 1e-3,
    "batch_size": 6,
    "workers": 0,
}
LOSSES: dict[str, dict[str, Any]] = {
    "madacos": {"loss": {"name": "madacos"}, "clip_norm": 1.0, "accumulate": 1, "validation": {"share": 0.4}},
    "sharded": {"loss": {"name": "arcface", "margin": 0.3, "curricular": True, "sharded": True}, "clip_norm": 1.0},
    "sharded-madacos": {"loss": {"name": "madacos", "sharded": True}},
    # By SGD, whose steps are as long as the gradient.
    "memory": {
        "loss": {"name": "multi-similarity", "per_landmark": 2, "memory": 10},
        "batch_size": 8,
        "optimizer": "sgd",
        "lr": 0.05,
    },
    "mined": {
        "loss": {"name": "contrastive", "batches": "mined", "negatives": 2},
        "batch_size": 8,
        "optimizer": "sgd",
        "lr": 0.05,
    },
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_two_processes_have_the_loss_curve_of_one(toy: Path, tmp_path: Path, name: str) -> None:
    settings, port = NETWORK | LOSSES[name], free_port()
    processes = [start_train(toy, tmp_path / "two", rank, 2, port, **settings) for rank in range(2)]
    train(toy, tmp_path / "one", **settings)
    for process in processes:
        process.join(90)
        assert process.exitcode == 0
    losses_of_one, losses_of_two = step_losses(tmp_path / "one"), step_losses(tmp_path / "two")
    assert len(losses_of_one) == len(losses_of_two) >= 6
    assert max(abs(a - b) for a, b in zip(losses_of_one, losses_of_two, strict=True)) < 1e-4
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


def train_and_be_killed(toy: str, folder: str, settings: dict[str, Any]) -> None:
    """What torchrun starts: process 1 dies once, mid-epoch; the restarted processes go on from the checkpoint."""
    from ultron_cli.training.learner import Learner
    from ultron_cli.training.run.folder import is_unfinished

    learner_step = Learner.step

    def step(self: Learner, pixels: Any, labels: Any, step: int) -> Any:
        if step == 4 and distributed.process_index() == 1 and not distributed.restart_count():
            os.kill(os.getpid(), signal.SIGKILL)
        return learner_step(self, pixels, labels, step)

    Learner.step = step
    train(Path(toy), Path(folder), resume=is_unfinished(Path(folder)), **settings)


def test_one_of_two_is_killed_and_the_curve_is_that_of_an_undisturbed_run(toy: Path, tmp_path: Path) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = NETWORK | LOSSES["sharded"] | {"checkpoint_minutes": 0.0, "ema": 0.9}
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{free_port()}",
        rdzv_configs={"rank": 0},
        run_id="test",
        max_restarts=1,
        monitor_interval=0.2,
        start_method="forkserver",
    )
    elastic_launch(launch, train_and_be_killed)(str(toy), str(tmp_path / "killed"), settings)
    port = free_port()
    processes = [start_train(toy, tmp_path / "undisturbed", rank, 2, port, **settings) for rank in range(2)]
    for process in processes:
        process.join(90)
    assert step_losses(tmp_path / "killed") == step_losses(tmp_path / "undisturbed")


def test_alone_nothing_is_gathered() -> None:
    import torch

    values = torch.arange(3.0, requires_grad=True)
    assert (distributed.process_index(), distributed.n_processes()) == (0, 1)
    assert distributed.gather_rows(values).tolist() == [0, 1, 2]
    assert distributed.sum_numbers([1.5], torch.device("cpu")) == [1.5]
    assert distributed.from_first_process("a") == "a"


def test_a_batch_that_cannot_be_shared_is_refused(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "n_processes", lambda: 5)
    with pytest.raises(UltronError, match="multiple of processes x accumulate = 5; found 12; use `batch_size=10`"):
        train(toy, tmp_path / "run", **SMALL)
