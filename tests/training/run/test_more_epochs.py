"""A run goes on with more epochs than it was started with, and ends as if it had been started with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, read_json
from tests.training.runs_for_tests import step_losses, train
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.models.weights.reading import read_weights_file
from ultron_cli.training.presets import resumed_config
from ultron_cli.training.run.checkpoints import saved_steps
from ultron_cli.training.run.folder import continued, describe_run, is_unfinished, set_result_aside

pytestmark = pytest.mark.slow

# What has a state: running mean, drawn classes, momentum, held-out landmarks.
EVERYTHING: dict[str, Any] = {
    "batch_size": 6,
    "ema": 0.9,
    "optimizer": "adamw",
    "lr": 1e-3,
    "warmup_epochs": 0.5,
    "loss": {"name": "arcface", "sample_rate": 0.5, "curricular": True},
    "validation": {"share": 0.4},
}
SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # until epoch 1, and beyond
    "constant": ({"schedule": "constant"}, {"schedule": "constant"}),
    "steps": (
        {"schedule": "steps", "step_epochs": [0.6]},
        {"schedule": "steps", "step_epochs": [0.6, 1.0]},
    ),
    "cosine": ({"schedule": "cosine"}, {"schedule": "cosine", "restart_epochs": [1]}),
}


def finished(folder: Path) -> tuple[list[float], str, list[Mapping[str, object]]]:
    """Losses of the steps, the model's hash, and the epochs' summaries without times."""
    timed = ("seconds", "photos_per_s", "wait_share")
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (
        step_losses(folder),
        load_checkpoint(folder / "checkpoint.pt").weights_sha256,
        [{key: value for key, value in epoch.items() if key not in timed} for epoch in epochs],
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_and_one_epochs_are_two(toy: Path, tmp_path: Path, schedule: str) -> None:
    first, whole = SCHEDULES[schedule]
    train(toy, tmp_path / "straight", epochs=2, **EVERYTHING | whole)
    folder = tmp_path / "run"
    train(toy, folder, epochs=1, **EVERYTHING | first)
    n_steps = saved_steps(folder)[-1]
    train(toy, folder, resume=True, epochs=2, **EVERYTHING | whole)
    assert finished(folder) == finished(tmp_path / "straight")
    assert saved_steps(folder) == [n_steps, 2 * n_steps]
    earlier = load_checkpoint(folder / "checkpoint-1-epochs.pt")
    assert earlier.weights_sha256 != load_checkpoint(folder / "checkpoint.pt").weights_sha256


@pytest.fixture
def run_of_two(toy: Path, tmp_path: Path) -> Path:
    """A finished run of two epochs at a constant rate."""
    train(toy, tmp_path / "run", epochs=2, schedule="constant")
    return tmp_path / "run"


def test_what_a_run_records_of_going_on(toy: Path, run_of_two: Path) -> None:
    created = json.loads((run_of_two / "config.json").read_text())["provenance"]["created"]
    assert continued(run_of_two, 2) == {}
    with pytest.raises(UltronError, match="started with epochs=2, and can go on with more, not with 1"):
        resumed_config(run_of_two / "config.json", None, None, ["epochs=1"])
    train(toy, run_of_two, resume=True, epochs=3, schedule="constant")
    stored = json.loads((run_of_two / "config.json").read_text())
    assert stored["config"]["epochs"] == 3
    assert stored["provenance"]["continued"] == [{"epochs": 2, "created": created}]
    assert read_weights_file(run_of_two / "checkpoint.pt")["provenance"]["continued"] == [
        {"epochs": 2, "created": created}
    ]
    assert [entry["epochs"] for entry in continued(run_of_two, 5)["continued"]] == [2, 3]  # type: ignore[attr-defined]  # a list
    facts = describe_run(run_of_two)
    assert (facts.state, facts.epochs, facts.epochs_done) == ("finished", 3, 3)
    train(toy, run_of_two, epochs=1, schedule="constant")
    assert not list(run_of_two.glob("checkpoint-*"))  # of the run that was replaced


def test_a_kill_before_the_new_number_is_written_loses_nothing(toy: Path, run_of_two: Path) -> None:
    before = finished(run_of_two)
    set_result_aside(run_of_two)
    assert is_unfinished(run_of_two)
    train(toy, run_of_two, resume=True, epochs=2, schedule="constant")
    assert finished(run_of_two) == before


def test_without_checkpoints_kept_a_finished_run_has_none(ultron: Run, toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path / "run", epochs=1, keep_checkpoints=0, checkpoint_minutes=0.0)
    assert saved_steps(tmp_path / "run") == []
    code, _, error = ultron("train", "--resume", "--out", tmp_path / "run", "--set", "epochs=2")
    assert (code, "run is finished, and keeps no state to go on from, there is nothing to resume" in error) == (2, True)


def test_what_cannot_go_on_is_told_with_the_way_that_can(ultron: Run, toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = [f"--set={text}" for text in ("epochs=1", "batch_size=8", "side_px=32", "workers=0", "warmup_epochs=0")]
    read_json(ultron("train", "--dataset", toy, *quick, "--out", run, "--json"))

    def refused(*settings: str) -> str:
        code, _, error = ultron("train", "--resume", "--out", run, *(f"--set={setting}" for setting in settings))
        assert code == 2
        return error.strip()

    assert refused() == (
        f"error: {run} is finished after epoch 1, there is nothing to resume; go on with more epochs (--set epochs=2), "
        "or leave out --resume (with --overwrite to train it again)"
    )
    assert refused("epochs=2") == (
        f"error: {run} was started with epochs=1, over which the cosine of its rate falls to 0; go on with a second "
        "cosine after it with --set restart_epochs=1 beside --set epochs=2, or start a new run"
    )
    assert "other rates until then" in refused("epochs=2", "schedule=constant")
    assert "lr (stored 0.01, asked 3.0)" in refused("epochs=2", "restart_epochs=1", "lr=3")
    assert "restart_epochs must ascend, between warmup_epochs and epochs" in refused("epochs=2", "restart_epochs=2")
    resumed = ultron("train", "--resume", "--out", run, "--set", "epochs=2", "--set", "restart_epochs=1", "--json")
    assert len(read_json(resumed)["metrics"]) == 2
    assert "going on after step 4 of 8" in resumed[2]


def test_a_search_goes_on_with_its_own_epochs_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": {"task": "search", "epochs": 3}, "provenance": {}}))
    with pytest.raises(UltronError, match="over which a search's rate falls"):
        resumed_config(tmp_path / "config.json", None, None, ["epochs=4"])
    assert resumed_config(tmp_path / "config.json", None, None, ["workers=0"]).epochs == 3
