"""TensorBoard event files, written without TensorBoard: records of protocol buffers with masked CRC-32C.

Format: TFRecord (length, CRC of the length, bytes, CRC of the bytes; little endian) of Event messages
(tensorflow/core/util/event.proto: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary; Summary.Value: 1
tag string, 2 simple_value float).
"""

import struct
import time
from pathlib import Path

from ultron_cli.output_files import AppendedFile

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def record(content: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def scalar_event(step: int, values: dict[str, float], wall_time_s: float) -> bytes:
    """An Event with one Summary.Value per tag."""
    summary = b"".join(
        _bytes_field(1, _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        for tag, value in values.items()
    )
    return b"\x09" + struct.pack("<d", wall_time_s) + b"\x10" + _varint(step) + _bytes_field(5, summary)


class EventWriter:
    """One event file in `folder`; TensorBoard reads all files of a folder, so a resumed run adds one."""

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        started_s = time.time()
        self._file = AppendedFile(folder / f"events.out.tfevents.{started_s:.6f}.{first_step:08d}.ultron")
        version = b"\x09" + struct.pack("<d", started_s) + _bytes_field(3, b"brain.Event:2")
        self._file.write(record(version))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends scalars; they can be read at once."""
        self._file.write(record(scalar_event(step, values, time.time())))

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
