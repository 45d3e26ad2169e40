"""The ONNX file of a network: the parts of photos.py, each traced once, as one graph."""

from collections.abc import Mapping

import onnx
import torch
from torch import nn

from ultron_cli import __version__
from ultron_cli.models.runtimes.exported import CannotExport, onnx_model
from ultron_cli.models.runtimes.graphs import Graph
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.network_record import INPUT_NAME, KEY, OUTPUT_NAME, NetworkRecord
from ultron_cli.retrieval.networks.exporting import (
    N_EXAMPLES,
    ExportRequest,
    example_photos,
    free_axes,
    refusal,
)
from ultron_cli.retrieval.networks.photos import Joined, Scaled


def onnx_content(loaded: LoadedModel, request: ExportRequest, record: NetworkRecord) -> bytes:
    """The file. Raises UltronError, with the exporter's reason, if the network cannot be written so."""
    model = loaded.model
    images, axes = example_photos(loaded, request, record), free_axes(request)
    networks: dict[tuple[int, ...], bytes] = {}  # by the shape of what it is traced with
    graph = Graph()

    def traced(module: nn.Module, argument: str, example: torch.Tensor, dynamic: Mapping[int, object]) -> bytes:
        return onnx_model(module.eval(), {argument: example}, {argument: dynamic}, "output")

    try:
        names = []
        for scale in request.scales:
            scaled = Scaled(model, scale, request.pixels)
            name = graph.add(traced(scaled, "images", images, axes), {"images": INPUT_NAME})
            # A network for photos of any size serves all scales; of one size it is made anew for each.
            example = torch.zeros_like(images, dtype=torch.float32) if request.sides_px is None else scaled(images)
            key = tuple(example.shape)
            if key not in networks:
                networks[key] = traced(model.per_scale, "images", example, axes)
            names.append(graph.add(networks[key], {"images": name}))
        stacked = graph.stacked(names)
        of_scales = torch.rand(len(names), N_EXAMPLES, model.per_scale.descriptor_dim)
        joined = traced(Joined(model, request.whitening), "of_scales", of_scales, {1: torch.export.Dim.DYNAMIC})
        output = graph.add(joined, {"of_scales": stacked})
    except (CannotExport, ValueError) as fault:
        raise refusal(loaded, request, str(fault)) from fault
    sides = request.sides_px or ("height", "width")
    kind = onnx.TensorProto.UINT8 if request.pixels == "uint8" else onnx.TensorProto.FLOAT
    whole = graph.model(
        [onnx.helper.make_tensor_value_info(INPUT_NAME, kind, ["batch", 3, *sides])],
        (
            output,
            onnx.helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, ["batch", record.descriptor_dim]),
        ),
        {KEY: record.to_json()},
        ("ultron", __version__),
    )
    return whole.SerializeToString()
