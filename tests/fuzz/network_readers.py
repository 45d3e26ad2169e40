"""Readers of networks of other tools."""

from pathlib import Path
from unittest import mock

import numpy as np

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.onnx_mutations import mutate_onnx
from tests.fuzz.reader import Reader
from tests.models.weights.onnx_networks import RECORD, network, with_weights_beside

CPU_S = 1  # of one look; what is tried here has five operators


def _read(folder: Path) -> None:
    """As `ultron weights inspect` and then `ultron extract` read it; the latter's fault counts."""
    from ultron_cli.models.weights import onnx_reading
    from ultron_cli.models.weights.onnx_files import open_onnx
    from ultron_cli.models.weights.overview import describe_onnx

    with mock.patch.object(onnx_reading, "CPU_S", CPU_S):
        try:
            describe_onnx(folder / "x.onnx")
        finally:
            open_onnx(folder / "x.onnx", {})


def _beside(folder: Path) -> None:
    (folder / "w.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    with_weights_beside(folder / "x.onnx", "w.bin")


NETWORK_READERS: dict[str, Reader] = {
    "onnx": Reader(
        file="x.onnx",
        seeds=(
            lambda folder: network(folder / "x.onnx"),
            lambda folder: network(folder / "x.onnx", metadata=RECORD.to_dict()),
            _beside,
        ),
        read=_read,
        mutations=(mutate_bytes, mutate_onnx, mutate_onnx),
        is_guarded=True,
    )
}
