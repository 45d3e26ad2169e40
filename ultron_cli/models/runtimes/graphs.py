"""Several ONNX models as one graph: parts that follow each other, and parts that are used more than once.

Weights that parts share are stored once. What the exporter notes of its own (the places in the source code that an
operator comes from) is left out.
"""

import hashlib
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper
from onnx.inliner import inline_local_functions

STANDARD_DOMAINS = ("", "ai.onnx")


class Graph:
    """An ONNX graph in the making."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[bytes, onnx.TensorProto] = {}  # by the hash of their content
        self._opset = 0
        self._n_parts = 0

    def add(self, part: bytes, inputs: Mapping[str, str]) -> str:
        """Adds a serialised model and returns the name of its (only) output here. inputs: names here by its names.
        Raises ValueError for an operator that is not of ONNX itself."""
        model = onnx.load_model_from_string(part)
        if model.functions:
            model = inline_local_functions(model)
        opset = next(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
        if self._opset not in (0, opset):
            raise ValueError(f"parts must be of one version of the operators, found {self._opset} and {opset}")
        self._opset = opset
        prefix = f"part{self._n_parts}/"
        self._n_parts += 1
        names = {"": "", **inputs}
        for tensor in model.graph.initializer:
            names[tensor.name] = self._weight(tensor, prefix)
        for node in model.graph.node:
            self._nodes.append(_renamed(node, names, prefix))
        (output,) = model.graph.output
        return names[output.name]

    def stacked(self, names: Sequence[str]) -> str:
        """The name of values of one shape, one above the other on a new first axis."""
        axis = helper.make_tensor("stack/axis", onnx.TensorProto.INT64, [1], [0])
        self._weights[b"stack/axis"] = axis
        rows = [f"stack/{i}" for i in range(len(names))]
        self._nodes += [
            helper.make_node("Unsqueeze", [name, axis.name], [row]) for name, row in zip(names, rows, strict=True)
        ]
        self._nodes.append(helper.make_node("Concat", rows, ["stack"], axis=0))
        return "stack"

    def _weight(self, tensor: onnx.TensorProto, prefix: str) -> str:
        """The name here of a part's weights."""
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.name = content.doc_string = ""
        del content.metadata_props[:]
        digest = hashlib.sha256(content.SerializeToString()).digest()
        if digest not in self._weights:
            content.name = prefix + tensor.name
            self._weights[digest] = content
        return self._weights[digest].name

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        output: tuple[str, onnx.ValueInfoProto],
        metadata: Mapping[str, str],
        producer: tuple[str, str],
    ) -> onnx.ModelProto:
        """The whole. output: a name here, and what it is called. producer: name and version of the program."""
        name, info = output
        nodes = [*self._nodes, helper.make_node("Identity", [name], [info.name])]
        graph = helper.make_graph(nodes, "network", list(inputs), [info], list(self._weights.values()))
        whole = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self._opset)],
            producer_name=producer[0],
            producer_version=producer[1],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(whole, dict(metadata))
        return whole


IR_VERSION = 10  # of 2024, which runtimes of that year read


def _renamed(node: onnx.NodeProto, names: dict[str, str], prefix: str) -> onnx.NodeProto:
    """A node with the names that its values have here; those of its outputs are added to `names`."""
    if node.domain not in STANDARD_DOMAINS:
        raise ValueError(f"operator {node.domain}::{node.op_type} is not of ONNX itself")
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.doc_string = ""
    del copy.metadata_props[:]
    copy.name = prefix + node.name
    for attribute in copy.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise ValueError(f"operator {node.op_type} chooses what is computed")
    copy.input[:] = [names[name] for name in node.input]
    copy.output[:] = [prefix + name if name else "" for name in node.output]
    names.update(zip(node.output, copy.output, strict=True))
    return copy
