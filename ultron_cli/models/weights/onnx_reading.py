"""What a child process sees in an ONNX file, and what a file may read beside itself: weights in its own folder."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ultron_cli.datasets.photos import INTERPOLATIONS
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import ReaderDied, ReaderFailed, ReaderStopped, in_child, one_line
from ultron_cli.memory import check_memory
from ultron_cli.models.onnx_model import NUMBERS
from ultron_cli.models.runtimes import require_packages
from ultron_cli.models.weights.network_record import KEY, VERSION, NetworkRecord
from ultron_cli.schema.texts import fit_file, parse_json
from ultron_cli.schema.values import Misfit, fit

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from google.protobuf.message import Message

CPU_S = 120  # for one photo by a network that is not made fast first
SPARE_BYTES = 1 << 30  # beside what a file holds, for onnxruntime and one photo
MOST_NAME = 100  # characters of a label or of an input's name
MOST_VALUES = 1 << 50  # of a tensor that a sound file declares
AGAIN = "export it again"
STANDARD_DOMAINS = ("", "ai.onnx")  # of operators; those of ai.onnx.ml and others are ONNX's too
Part = TypeVar("Part", bound="Message")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or an output."""

    name: str
    kind: str  # as onnxruntime says it: tensor(float)
    axes: tuple[int | None, ...]  # None: of any length

    def __str__(self) -> str:
        axes = ", ".join("any" if length is None else str(length) for length in self.axes)
        return f"{self.name[:MOST_NAME]} {self.kind[:MOST_NAME]} ({axes})"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a child saw in a file."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    metadata: str | None  # under KEY


def answer_of_child(path: Path, n_bytes: int, function: Callable[..., Answer], *arguments: object) -> Answer:
    """What a child says. Raises UltronError if the file is none that the library takes."""
    try:
        return in_child(function, *arguments, cpu_s=CPU_S, memory_bytes=3 * n_bytes + SPARE_BYTES)
    except ReaderStopped as stop:
        raise UltronError(f"{path}: looking into it {one_line(stop)}; try a smaller network") from stop
    except ReaderDied as death:
        raise UltronError(f"{path} is not sound: the library that reads it {one_line(death)}; {AGAIN}") from death
    except ReaderFailed as failure:
        raise UltronError(
            f"{path} is truncated or not an ONNX file that can be read ({one_line(failure, 200)}); get it again"
        ) from failure


def weights_beside(path: Path, n_bytes: int) -> list[Path]:
    """The files of a network's weights beside its own. Raises UltronError for one that is not in the same folder."""
    names = answer_of_child(path, n_bytes, _names_beside, str(path))
    folder = os.path.realpath(path.parent)
    beside = []
    for name in sorted(names):
        place = os.path.realpath(os.path.join(folder, name.partition("\0")[0]))
        is_inside = name.isprintable() and not os.path.isabs(name) and place.startswith(os.path.join(folder, ""))
        if not is_inside:
            raise UltronError(
                f"{path} was refused: it reads weights from {name[:MOST_NAME]!r}, outside of its own folder; {AGAIN}"
            )
        require_regular_file(Path(place), f"{path} has its weights in")
        beside.append(Path(place))
    return beside


def _names_beside(path: str) -> list[str]:
    """In a child: the files in which a network's tensors are, as it names them."""
    import onnx

    model = _loaded(path)
    names = set()
    for tensor in _parts(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"} or {""}
    return sorted(names)


def _loaded(path: str) -> "onnx.ModelProto":
    """In a child: a network without the weights beside it. Raises ValueError where a text in it is none: protobuf gives
    the bytes."""
    import onnx
    from google.protobuf.message import Message

    model = onnx.load(path, load_external_data=False)
    for message in (model, *_parts(model, Message)):
        for field, value in message.ListFields():
            if field.type == field.TYPE_STRING and any(
                isinstance(text, bytes) for text in (value if field.is_repeated else [value])
            ):
                raise ValueError(f"{field.full_name} in it is not UTF-8")
    return model


def _parts(message: "Message", kind: type[Part]) -> Iterator[Part]:
    """All messages of a kind in a message of ONNX, however deep, which may hold each other."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, kind):
                yield part
            yield from _parts(part, kind)


def _session(path: str) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what is fatal
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def look_into(path: str) -> dict[str, object]:
    """In a child: a Look as plain data."""
    session = _session(path)

    def values(parts: "Sequence[onnxruntime.NodeArg]") -> list[dict[str, object]]:
        return [
            {
                "name": part.name,
                "kind": part.type,
                "axes": [length if isinstance(length, int) and length > 0 else None for length in part.shape],
            }
            for part in parts
        ]

    metadata = session.get_modelmeta().custom_metadata_map.get(KEY)
    return {"inputs": values(session.get_inputs()), "outputs": values(session.get_outputs()), "metadata": metadata}


def tried_shape(path: str, name: str, kind: str, shape: list[int], output: str) -> list[int]:
    """In a child: the shape of an output for grey photos. Raises ValueError if a number in it is not finite."""
    photos = np.full(shape, 128 if kind == "tensor(uint8)" else 0.25, NUMBERS[kind])
    (result,) = _session(path).run([output], {name: photos})
    values = np.asarray(result)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError("its output is not made of finite numbers")
    return list(values.shape)


@dataclass(frozen=True, kw_only=True)
class NamedValue:
    """An input or an output as a file declares it."""

    name: str
    type: str  # of its numbers: float, uint8, ...
    axes: tuple[int | str, ...]  # a length, or the name of any length

    def __str__(self) -> str:
        return f"{self.name} {self.type} ({', '.join(map(str, self.axes))})"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Weights as a file declares them."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str | None  # that holds them, as the network names it; None: its own


@dataclass(frozen=True, kw_only=True)
class OnnxContents:
    """What a file says, of which nothing has been run."""

    ir_version: int
    producer: str
    opsets: dict[str, int]  # version of the operators, by domain
    operators: dict[str, int]  # how often each is used, functions and inner graphs included; domain::Name
    custom_operators: tuple[str, ...]  # of them, those that neither ONNX nor the file defines
    inputs: tuple[NamedValue, ...]
    outputs: tuple[NamedValue, ...]
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]

    @property
    def n_values(self) -> int:
        return sum(int(np.prod(tensor.shape, dtype=object)) for tensor in self.tensors)


def onnx_contents(path: Path) -> OnnxContents:
    """What a file holds; weights beside it are not looked at. Raises UltronError if it is no ONNX file."""
    require_regular_file(path, "weights")
    require_packages(f"{path}, a network in ONNX,", ("onnx",), "onnx")
    n_bytes = path.stat().st_size
    check_memory(2 * n_bytes, f"{path}: the network")
    return fit(answer_of_child(path, n_bytes, _contents, str(path)), OnnxContents)


def _contents(path: str) -> dict[str, object]:
    """In a child: an OnnxContents as plain data. Raises ValueError for a tensor that no file can hold."""
    import onnx

    model = _loaded(path)
    if not model.graph.node:
        raise ValueError("it has no operators")

    def type_name(number: int) -> str:
        return onnx.TensorProto.DataType.Name(number).lower() if number in onnx.TensorProto.DataType.values() else "?"

    def value(info: onnx.ValueInfoProto) -> dict[str, object]:
        numbers = info.type.tensor_type
        axes = [
            axis.dim_param or (axis.dim_value if axis.HasField("dim_value") else "any") for axis in numbers.shape.dim
        ]
        return {"name": info.name, "type": type_name(numbers.elem_type), "axes": axes}

    weights = {tensor.name for tensor in model.graph.initializer}
    tensors = []
    for tensor in _parts(model, onnx.TensorProto):
        files = [entry.value for entry in tensor.external_data if entry.key == "location"]
        is_beside = tensor.data_location == onnx.TensorProto.EXTERNAL
        shape = list(tensor.dims)
        if min(shape, default=1) < 0 or int(np.prod(shape, dtype=object)) > MOST_VALUES:
            raise ValueError(f"tensor {tensor.name[:MOST_NAME]} is declared as {shape[:8]}")
        tensors.append(
            {
                "name": tensor.name,
                "shape": shape,
                "dtype": type_name(tensor.data_type),
                "file": (files or [""])[0] if is_beside else None,
            }
        )
    operators = Counter(
        node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"
        for node in _parts(model, onnx.NodeProto)
    )
    defined = {f"{function.domain}::{function.name}" for function in model.functions}
    return {
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "operators": dict(operators.most_common()),
        "custom_operators": [
            name for name in operators if "::" in name and not name.startswith("ai.onnx.") and name not in defined
        ],
        "inputs": [value(info) for info in model.graph.input if info.name not in weights],
        "outputs": [value(info) for info in model.graph.output],
        "tensors": tensors,
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def stored_record(path: Path, metadata: str | None) -> NetworkRecord | None:
    """What a file of ultron says of itself. Raises UltronError if that is unsound, or of a newer ultron."""
    if metadata is None:
        return None
    try:
        content = parse_json(metadata)
    except Misfit as misfit:
        raise UltronError(f"{path}: its metadata {KEY} is not JSON ({misfit}); {AGAIN}") from None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise UltronError(
            f"{path} has format version {version}, this ultron reads up to {VERSION}; install a newer ultron"
        )
    record = fit_file(content, NetworkRecord, path, "what the network says of itself", AGAIN)
    fault = record.fault(tuple(INTERPOLATIONS))
    if fault:
        raise UltronError(f"{path}: what it says of itself is not sound ({fault}); {AGAIN}")
    return record
