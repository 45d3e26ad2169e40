"""Event files: their bytes, and that TensorBoard reads them."""

import struct
from pathlib import Path

import pytest

from ultron_cli.training.run.tensorboard import EventWriter, crc32c


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
