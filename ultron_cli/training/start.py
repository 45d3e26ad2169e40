"""Starts a training run: configuration, dataset, run folder, and the record of it in the workspace."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ultron_cli import workspace
from ultron_cli.configs import to_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks import open_landmark_photos
from ultron_cli.datasets.toy_default import open_named_dataset
from ultron_cli.devices import resolve_device
from ultron_cli.errors import UltronError
from ultron_cli.training.config import load_config
from ultron_cli.training.loop import Training


def _run_folder(preset: str, out: Path | None, overwrite: bool) -> Path:
    if out is not None:
        if (out / "checkpoint.pt").exists() and not overwrite:
            raise UltronError(f"{out} holds a finished run; replace it with --overwrite, or name another --out")
        return out
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}"
    root = workspace.workspace_root() / "train"
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
    return root / next(name for name in names if not (root / name).exists())


def start_training(
    preset: str, dataset: str | None, config_file: Path | None, assignments: Sequence[str], out: Path | None, overwrite: bool, device_name: str
) -> dict[str, Any]:
    """Trains and returns a summary: run folder, model, config, metrics per epoch. Raises UltronError for bad settings or photos."""
    config = load_config(preset, config_file, [*assignments, *([f"dataset={dataset}"] if dataset else [])])
    device = resolve_device(device_name)
    folder = _run_folder(preset, out, overwrite)
    photos = open_landmark_photos(open_named_dataset(config.dataset).folder)
    log.info("training on %s of %s from %s (%s)", counted(len(photos.paths), "photo"), counted(len(photos.landmark_names), "landmark"), photos.folder, device)
    training = Training(config, photos, device)
    started_s = time.perf_counter()
    metrics = training.run(folder)
    workspace.remember("train", folder)
    return {
        "run": str(folder), "checkpoint": str(folder / "checkpoint.pt"), "model": training.model.label, "config": to_dict(config),
        "n_photos": len(photos.paths), "n_landmarks": len(photos.landmark_names), "seconds": time.perf_counter() - started_s, "metrics": metrics,
    }  # fmt: skip
