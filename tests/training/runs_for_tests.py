"""Small runs for the tests of training, in this process or in others."""

import json
import os
from pathlib import Path
from typing import Any

from tests.prepared_python import SERVER

SMALL: dict[str, Any] = {
    "model": {"name": "gem", "backbone": "test_resnet"},
    "loss": {"name": "arcface", "margin": 0.0, "scale": 16.0},
    "side_px": 48,
    "batch_size": 12,
    "epochs": 2,
    "optimizer": "sgd",
    "lr": 0.05,
    "workers": 0,
    "validation": {"share": 0.0},
    "log_every": 1,
    "threads": 1,
}
# So that few epochs are enough to know the photos by heart, whatever the rounding.
PHOTOS_AS_THEY_ARE: dict[str, Any] = {
    "crop_area": [1.0, 1.0],
    "crop_aspect": [1.0, 1.0],
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "flip": False,
}


def train(toy: Path, folder: Path, resume: bool = False, device: str = "cpu", **changes: Any) -> list[dict[str, Any]]:
    """Trains in this process; returns the epochs' summaries."""
    import torch

    from ultron_cli import distributed
    from ultron_cli.configs import from_dict
    from ultron_cli.datasets.landmarks.photos import open_landmark_photos
    from ultron_cli.training.config import TrainConfig
    from ultron_cli.training.loop import Training

    place = distributed.process_device(torch.device(device))
    distributed.join_processes(place)
    try:
        config = from_dict(TrainConfig, SMALL | changes)
        return Training(config, open_landmark_photos(toy), place).run(folder, resume)
    finally:
        distributed.leave_processes()


def step_losses(folder: Path) -> list[float]:
    """The loss of every step, as steps.jsonl has it with log_every = 1."""
    entries = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["loss"] for entry in entries]


def start_train(toy: Path, folder: Path, rank: int = 0, n_processes: int = 1, port: int = 0, **changes: Any) -> Any:
    """Starts train() in a process of its own, as one of `n_processes`."""
    variables = (
        {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if n_processes > 1
        else {}
    )
    process = SERVER.Process(
        target=_train_in_child, args=(toy, folder, {key: str(value) for key, value in variables.items()}, changes)
    )
    process.start()
    return process


def _train_in_child(toy: Path, folder: Path, variables: dict[str, str], changes: dict[str, Any]) -> None:
    os.environ.update(variables)
    os.nice(5)
    train(toy, folder, **changes)
