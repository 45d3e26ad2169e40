"""Hostile networks in ONNX, each thought out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.fuzz.hostile_binaries import hostile_bytes
from tests.fuzz.hostile_texts import Files
from ultron_cli.models.weights.network_record import KEY

if TYPE_CHECKING:
    import onnx

FAR = 1 << 60
FLOAT, INT64, BOOL = 1, 7, 9  # ONNX's numbers of types


def _beside(model: "onnx.ModelProto", **entries: str) -> None:
    """Puts the factors into another file."""
    from onnx import TensorProto

    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _before(model: "onnx.ModelProto", *nodes: "onnx.NodeProto") -> None:
    """Puts operators before the others."""
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _loop(model: "onnx.ModelProto") -> None:
    """One that does not end in a lifetime, and gives the factors."""
    from onnx import helper

    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["again"]), helper.make_node("Abs", ["f"], ["same"])],
        "body",
        [value("i", INT64, []), value("c", BOOL, []), value("f", FLOAT, [3])],
        [value("again", BOOL, []), value("same", FLOAT, [3])],
    )
    model.graph.initializer.extend([helper.make_tensor("n", INT64, [], [FAR]), helper.make_tensor("t", BOOL, [], [1])])
    _before(model, helper.make_node("Loop", ["n", "t", "factors"], ["looped"], body=body))
    model.graph.node[-1].input[1] = "looped"


def _giant(model: "onnx.ModelProto") -> None:
    """Makes a tensor of an exabyte while it runs."""
    from onnx import helper

    model.graph.initializer.append(helper.make_tensor("big", INT64, [1], [FAR]))
    _before(
        model,
        helper.make_node("ConstantOfShape", ["big"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["factors", "sum"], ["more"]),
    )
    model.graph.node[-1].input[1] = "more"


def _in_itself(model: "onnx.ModelProto") -> None:
    """A function that calls itself."""
    from onnx import helper

    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    _before(model, helper.make_node("F", ["factors"], ["changed"], domain="own"))
    model.graph.node[-1].input[1] = "changed"


def _custom(model: "onnx.ModelProto") -> None:
    from onnx import helper

    model.opset_import.append(helper.make_opsetid("com.example", 1))
    _before(model, helper.make_node("RunProgram", ["factors"], ["y"], domain="com.example", program="/bin/true"))


def _deep(model: "onnx.ModelProto") -> None:
    """Choices in choices."""
    from onnx import helper

    info = [helper.make_tensor_value_info("o", FLOAT, [3])]
    graph = helper.make_graph([helper.make_node("Identity", ["factors"], ["o"])], "g", [], info)
    for i in range(30):
        node = helper.make_node("If", ["t"], ["o"], name=str(i), then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], info) if i < 12 else graph
    model.graph.initializer.append(helper.make_tensor("t", BOOL, [], [1]))
    _before(model, helper.make_node("If", ["t"], ["chosen"], then_branch=graph, else_branch=graph))


def _dims(model: "onnx.ModelProto", *lengths: int) -> None:
    del model.graph.initializer[1].dims[:]
    model.graph.initializer[1].dims.extend(lengths)


def _photo_axis(model: "onnx.ModelProto", axis: int, length: int) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length


def _metadata(model: "onnx.ModelProto", key: str, value: str) -> None:
    del model.metadata_props[:]
    model.metadata_props.add(key=key, value=value)


def _named(model: "onnx.ModelProto", name: str) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = name


def _circle(model: "onnx.ModelProto") -> None:
    model.graph.node[0].input[0] = "d"


CHANGES: dict[str, Callable[["onnx.ModelProto"], object]] = {
    "weights in /etc/passwd": lambda model: _beside(model, location="/etc/passwd"),
    "weights in the folder above": lambda model: _beside(model, location="../x.onnx"),
    "weights in a device": lambda model: _beside(model, location="../../../../../../dev/zero"),
    "weights in no file": lambda model: _beside(model),
    "weights in the folder": lambda model: _beside(model, location="."),
    "weights in itself": lambda model: _beside(model, location="x.onnx"),
    "weights far away in itself": lambda model: _beside(model, location="x.onnx", offset=str(FAR), length="12"),
    "weights of a length below 0": lambda model: _beside(model, location="x.onnx", offset="-1", length="-5"),
    "weights in a name with a NUL": lambda model: _beside(model, location="a\0b"),
    "weights in a name that is too long": lambda model: _beside(model, location="x" * 300),
    "a loop that does not end": _loop,
    "a giant tensor": _giant,
    "a function in itself": _in_itself,
    "an operator of another tool": _custom,
    "choices in choices": _deep,
    "a circle": _circle,
    "a tensor of an exabyte": lambda model: _dims(model, FAR),
    "a tensor of a length below 0": lambda model: _dims(model, -3),
    "a tensor whose size overflows": lambda model: _dims(model, 1 << 32, 1 << 32, 3),
    "a tensor of many axes": lambda model: _dims(model, *[1] * 5000, 3),
    "photos of 2^40 px": lambda model: _photo_axis(model, 2, 1 << 40),
    "2^40 photos at once": lambda model: _photo_axis(model, 0, 1 << 40),
    "an input of several lines": lambda model: _named(model, "a\n\x1b[31mb" * 1000),
    "metadata that is no JSON": lambda model: _metadata(model, KEY, "{" * 100_000),
    "metadata of a long number": lambda model: _metadata(model, KEY, '{"version": ' + "9" * 5000 + "}"),
    "metadata of several lines": lambda model: _metadata(model, "a\nb", "c\n\x1b[31m" * 1000),
    "operators of the future": lambda model: setattr(model.opset_import[0], "version", (1 << 31) - 1),
    "a version of the future": lambda model: setattr(model, "ir_version", FAR),
    "no operators": lambda model: model.graph.ClearField("node"),
    "no input": lambda model: model.graph.ClearField("input"),
    "nothing": lambda model: model.Clear(),
}


def hostile_onnx(sound: bytes) -> Files:
    """What is hostile to a reader of networks."""
    import onnx

    files = hostile_bytes(sound)
    for name, change in CHANGES.items():
        model = onnx.load_model_from_string(sound)
        change(model)
        files[name] = model.SerializeToString()
    model = onnx.load_model_from_string(sound)
    _beside(model, location="w.b")
    files["weights in a name that is no UTF-8"] = model.SerializeToString().replace(b"w.b", b"w\xffb")
    return files
