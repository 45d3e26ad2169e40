"""What a run shows: event files that TensorBoard reads, lines, curves, the table of runs, the settings and their
origin."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.models import create_model
from ultron_cli.training.run.journal import Journal, read_lines
from ultron_cli.training.run.tensorboard import EventWriter, crc32c
from ultron_cli.training.validation import RetrievalValidation, choose_photos, retrieval_map
from ultron_cli.visualization.curves.run_pictures import draw_run

QUICK = (
    "--set",
    "epochs=1",
    "--set",
    "batch_size=8",
    "--set",
    "side_px=32",
    "--set",
    "workers=0",
    "--set",
    "log_every=1",
)


def test_crc32c_of_the_standard_s_examples() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def literal_records(data: bytes) -> list[bytes]:
    """TFRecords read back as their format says, both checksums verified."""
    records, place = [], 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        parts = (data[place : place + 8], place + 8), (data[place + 12 : place + 12 + length], place + 12 + length)
        for content, at in parts:
            value = crc32c(content)
            assert (
                struct.unpack_from("<I", data, at)[0]
                == (((value >> 15) | (value << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32
            )
        records.append(parts[1][0])
        place += 16 + length
    return records


def test_event_file(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, 0)
    writer.add(300, {"train/loss": 2.5})
    writer.close()
    (path,) = tmp_path.iterdir()
    version, event = literal_records(path.read_bytes())
    assert version[9:] == b"\x1a\x0dbrain.Event:2"
    assert event[0] == 0x09
    # step 300; summary of 19 bytes; value of 17; tag; simple_value 2.5
    assert event[9:] == b"\x10\xac\x02" + b"\x2a\x13" + b"\x0a\x11" + b"\x0a\x0atrain/loss" + b"\x15" + struct.pack(
        "<f", 2.5
    )


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = EventWriter(tmp_path, 0)
    writer.add(7, {"a": 1.5})
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(7, 1.5)]


def test_journal_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    lines = [{"step": 2, "epoch": 0.5, "loss": 3.0}, {"step": 4, "epoch": 1.0, "loss": 2.0}]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "lo')
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    journal = Journal(tmp_path, 3, 1, 2, torch.device("cpu"))
    assert journal.metrics == [{"epoch": 1}]
    journal.meter.add(4.0, 8, 2, seconds=2.0, wait_s=0.5)
    journal.meter.add(2.0, 8, 6, seconds=2.0, wait_s=0.5)
    journal.step(4, 1.0, 0.1, 0.2, 30.0)
    journal.step(5, 1.25, 0.1, 0.2, 30.0)  # none is due
    journal.close()
    first, second = read_lines(tmp_path / "steps.jsonl")
    assert first == lines[0]
    assert {
        key: second[key] for key in ("step", "loss", "accuracy", "photos_per_s", "wait_share", "margin", "scale")
    } == {
        "step": 4,
        "loss": 3.0,
        "accuracy": 0.5,
        "photos_per_s": 4.0,
        "wait_share": 0.25,
        "margin": 0.2,
        "scale": 30.0,
    }


def test_curves(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text(
        '{"step": 1, "epoch": 0.5, "loss": 3.0, "lr": 0.1}\n{"step": 2, "epoch": 1.0, "loss": null, "lr": 0.1}\n'
    )
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "loss": 3.0, "lr": 0.1, "accuracy": 0.1, "validation_mAP": 0.3}\n'
    )
    draw_run(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000


def test_retrieval_map_by_hand() -> None:
    def at(*degrees: float) -> np.ndarray:
        radians = np.deg2rad(degrees)
        return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)

    perfect = retrieval_map(at(0, 1, 90, 91), np.array([0, 0, 1, 1]))
    assert (perfect.mAP, perfect.n_queries) == (1.0, 4)
    # The landmark's other photo comes second for both: AP = (0/1 + 1/2) / 2; landmark 1 has no second photo and asks
    # nothing.
    worse = retrieval_map(at(0, 20, 10), np.array([0, 0, 1]))
    assert (worse.mAP, worse.n_queries, worse.n_photos) == (pytest.approx(0.25), 2, 3)


def test_validation_takes_whole_landmarks_and_leaves_bad_photos_out(toy: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(toy)
    rows = choose_photos(photos, np.arange(36), 20, seed=0)
    assert len(rows) == 18
    assert len(np.unique(photos.labels[rows])) == 3
    (tmp_path / "broken.jpg").write_bytes(b"")
    paths = [tmp_path / "broken.jpg", *(photos.paths[i] for i in range(1, 12))]
    held_out = LandmarkPhotos(
        folder=photos.folder, paths=paths, labels=photos.labels[:12], landmark_names=photos.landmark_names[:2]
    )
    model, state = create_model("gem", backbone="test_resnet"), torch.get_rng_state()
    result = RetrievalValidation(held_out, 64, 0).run(model, torch.device("cpu"))
    assert (result.n_photos, result.n_queries) == (11, 11)
    assert 0.3 < result.mAP <= 1.0
    assert torch.equal(torch.get_rng_state(), state)


def test_show_config_says_where_values_come_from(ultron: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 3\n")
    code, out, _ = ultron(
        "train",
        "--show-config",
        "--preset",
        "ultron-s",
        "--config",
        tmp_path / "mine.toml",
        "--set",
        "switch.epoch=2",
        "--set",
        "warmup_epochs=1",
        "--json",
    )
    shown = json.loads(out)
    assert code == 0
    assert (shown["config"]["epochs"], shown["config"]["switch"]["epoch"], shown["config"]["loss"]["rho"]) == (
        3,
        2,
        0.04,
    )
    assert (shown["origin"]["epochs"], shown["origin"]["loss.rho"], shown["origin"]["ema"]) == (
        str(tmp_path / "mine.toml"),
        "preset ultron-s",
        "default",
    )
    code, out, _ = ultron("train", "--show-config")
    assert "side_px" in out
    assert "preset quickstart" in out


def test_runs_are_listed_and_resumed_by_command(ultron: Any, toy: Path, tmp_path: Path) -> None:
    assert "no runs yet" in ultron("train", "--list")[1]
    code, _, err = ultron("train", "--resume")
    assert code == 2
    assert "no unfinished run" in err
    code, out, err = ultron("train", "--dataset", toy, *QUICK, "--set", "checkpoint_minutes=0", "--json")
    assert code == 0, err
    run = Path(json.loads(out)["run"])
    assert "finished" in ultron("train", "--list")[1]
    (run / "checkpoint.pt").unlink()  # as if stopped before the end
    (entry,) = json.loads(ultron("train", "--list", "--json")[1])["runs"]
    assert (entry["state"], entry["epochs"], entry["model"]) == ("stopped, saved at step 4", 1, "ultron-t")
    code, _, err = ultron("train", "--dataset", toy, *QUICK, "--out", run)
    assert (code, "holds an unfinished run; go on with --resume" in err) == (2, True)
    code, _, err = ultron("train", "--resume", "--set", "lr=3")
    assert (code, "another configuration: lr (stored 0.001, asked 3.0)" in err) == (2, True)
    code, out, err = ultron("train", "--resume")
    assert code == 0, err
    assert "going on after step 4 of 4" in err
    assert (run / "checkpoint.pt").exists()
    code, _, err = ultron("train", "--resume", "--out", run)
    assert (code, "is finished, there is nothing to resume" in err) == (2, True)
