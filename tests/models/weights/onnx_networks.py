"""Small networks in ONNX, written by hand as other tools might."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.models.weights.network_record import KEY, NetworkRecord

RECORD = NetworkRecord(
    ultron_version="1",
    label="gem-tiny",
    model={"name": "gem", "settings": {}},
    weights_sha256="0" * 64,
    descriptor_dim=3,
    pixels="float",
    mean=(0.5, 0.5, 0.5),
    sd=(0.5, 0.5, 0.5),
    interpolation="bilinear",
    scaling="bilinear",
    box_edges="truncated",
    scales=(0.5, 1.0),
    max_side_px=640,
    least_side_px=64,
)


def network(
    path: Path,
    shape: tuple[Any, ...] = ("n", 3, "h", "w"),
    kind: int = 1,
    metadata: object = None,
    extra_input: bool = False,
) -> Path:
    """Writes the mean of every channel as a network. kind: ONNX's number of the photos' type."""
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=1),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "factors"], ["d"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("y", 1, [1]))
    weights = [
        helper.make_tensor("axes", 7, [2], [2, 3]),
        helper.make_tensor("factors", 1, [3], np.array([1, 2, 3], np.float32).tobytes(), raw=True),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("d", 1, [shape[0], None])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if metadata is not None:
        helper.set_model_props(model, {KEY: metadata if isinstance(metadata, str) else json.dumps(metadata)})
    path.write_bytes(model.SerializeToString())
    return path


def with_weights_beside(path: Path, place: str) -> Path:
    """The same network, whose factors are in another file."""
    import onnx

    model = onnx.load(network(path))
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    return path
