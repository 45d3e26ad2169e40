"""Readers of what trains and is trained: configurations, the folder of a run, weights."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.reader import Reader, bytes_file, json_part, json_reader, lazily, text_file
from tests.fuzz.structures import mutate_weights, mutate_zip

RUN = {
    "config": {
        "dataset": "toy",
        "epochs": 2,
        "model": {"name": "gem", "backbone": "resnet50"},
        "loss": {"name": "arcface"},
    },
    "provenance": {"created": "2026-01-01"},
}
LINES = "".join(json.dumps({"epoch": i, "step": i, "loss": 0.5, "accuracy": None, "lr": 0.1}) + "\n" for i in range(3))
CONFIG = """epochs = 5
batch_size = 8
weight_decay = 1e-4
step_epochs = [2, 4]
schedule = "steps"
[model]
name = "gem"
backbone = "resnet50"
[loss]
name = "arcface"
margin = 0.3
"""


def _run_folder(folder: Path) -> None:
    text_file("config.json", RUN)(folder)
    text_file("metrics.jsonl", LINES)(folder)
    text_file("steps.jsonl", LINES)(folder)


def _read_run(folder: Path) -> None:
    from ultron_cli.training.run.folder import describe_run
    from ultron_cli.training.run.journal import lines_up_to
    from ultron_cli.visualization.curves.run_curves import read_run

    describe_run(folder)
    lines_up_to(folder / "steps.jsonl", "step", 1)
    run = read_run(folder)
    run.points("loss"), run.points("lr", by_step=True)


def _load_config(folder: Path) -> None:
    from ultron_cli.training.presets import explain_config, load_config

    load_config("quickstart", folder / "f.toml", [])
    explain_config("quickstart", folder / "f.toml", [])


def _split(folder: Path) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from ultron_cli.datasets.landmarks.split import require_same_photos

    require_same_photos(folder / "split.json", cast(Any, SimpleNamespace(sha256=lambda: "0" * 64, folder=folder)))


def _write_weights(is_zip: bool) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import torch

        content = {"state_dict": {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, "epoch": 3, "best": 0.5}
        torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=is_zip)

    return write


def _write_safetensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, folder / "w.pth")


def _read_weights(folder: Path) -> None:
    from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

    bare_state_dict(read_weights_file(folder / "w.pth"), folder / "w.pth")


def _write_cirtorch(folder: Path) -> None:
    import torch

    whitening = {"m": np.zeros((4, 1)), "P": np.eye(4)}
    meta = {
        "architecture": "resnet101",
        "pooling": "gem",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "Lw": {"sfm": {"ss": whitening, "ms": whitening}},
    }
    torch.save({"meta": meta, "state_dict": {"pool.p": torch.ones(1)}}, folder / "w.pth")


def _read_cirtorch(folder: Path) -> None:
    from ultron_cli.models.weights.cirtorch import cirtorch_meta, cirtorch_whitenings
    from ultron_cli.models.weights.reading import read_weights_file

    meta = cirtorch_meta(read_weights_file(folder / "w.pth"), folder / "w.pth")
    cirtorch_whitenings(meta, 4, folder / "w.pth")


def _write_checkpoint(folder: Path) -> None:
    import torch

    content = {
        "format": "ultron-checkpoint",
        "version": 1,
        "model": {"name": "gem", "settings": {"backbone": "resnet50"}},
        "preprocessing": {"mean": [0.5, 0.5, 0.5], "sd": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
        "scales": [1.0, 0.5],
        "train_config": {"side_px": 224},
        "state_dict": {"a.weight": torch.ones(3, 4)},
    }
    torch.save(content, folder / "w.pth")


def _read_checkpoint(folder: Path) -> None:
    """All of load_checkpoint but for the network, which takes a second to make."""
    from ultron_cli.models.weights.checkpoints import _stored_parts
    from ultron_cli.models.weights.reading import read_weights_file

    _stored_parts(read_weights_file(folder / "w.pth"), folder / "w.pth")


STATE = "checkpoints/step-00000003.pt"


def _write_state(folder: Path) -> None:
    import torch

    (folder / "checkpoints").mkdir()
    content = {"format": "ultron-training", "version": 1, "step": 3, "n_ranks": 1, "model": {"a": torch.ones(2)}}
    torch.save(content, folder / STATE)


def _read_state(folder: Path) -> None:
    from ultron_cli.training.run.checkpoints import load_latest_state

    load_latest_state(folder, is_sharded=False)


def _nearest() -> bytes:
    output = io.BytesIO()
    np.save(output, np.array([-1, 2, 0], np.int64))
    return output.getvalue()


def _read_nearest(folder: Path) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from ultron_cli.training.batches.hard import _read

    _read(folder / "nearest.npy", cast(Any, SimpleNamespace(labels=np.zeros(3))))


RUN_READERS: dict[str, Reader] = {
    "run-config": json_part("config.json", _run_folder, read=_read_run),
    "run-metrics": Reader(file="metrics.jsonl", seeds=(_run_folder,), read=_read_run),
    "run-steps": Reader(file="steps.jsonl", seeds=(_run_folder,), read=_read_run),
    "run-split": json_reader("split.json", {"photos_sha256": "0" * 64, "held_out_landmarks": ["a"]}, read=_split),
    "run-state": Reader(
        file=STATE, seeds=(_write_state,), read=_read_state, mutations=(mutate_bytes, mutate_zip, mutate_zip)
    ),
    "run-negatives": Reader(file="nearest.npy", seeds=(bytes_file("nearest.npy", _nearest),), read=_read_nearest),
    "training-config": Reader(file="f.toml", seeds=(text_file("f.toml", CONFIG),), read=_load_config),
    "genotype": Reader(
        file="g.txt",
        seeds=(text_file("g.txt", "# x\nskip:0/sep_spatial:0,sep:1/cbam:0,skip:2,sep:1/sep:0,skip:1,sep:3,dil:2\n"),),
        read=lazily("models.attentions.genotype", "load_genotype", "g.txt"),
    ),
    "weights": Reader(
        file="w.pth",
        seeds=(_write_weights(True), _write_weights(False), _write_safetensors),
        read=_read_weights,
        mutations=(mutate_bytes, mutate_weights, mutate_weights),
    ),
    "checkpoint": Reader(
        file="w.pth", seeds=(_write_checkpoint,), read=_read_checkpoint, mutations=(mutate_bytes, mutate_zip)
    ),
    "weights-cirtorch": Reader(
        file="w.pth", seeds=(_write_cirtorch,), read=_read_cirtorch, mutations=(mutate_bytes, mutate_zip)
    ),
}
